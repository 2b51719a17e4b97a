"""Fixtures for pipelines: a workshop of fake stages (`fakes/wfm_fakes`), and one Prefect home for all tests."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent / "fakes"))
from wfm_fakes.workshop import Workshop

from tests.pipelines.runs.hook import SECRET, Receiver, receiving
from wfm.artifacts import Store


@pytest.fixture(scope="session", autouse=True)
def _prefect_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> None:
    """One Prefect home for all tests: its database is made once."""
    os.environ["WFM_HOME"] = str(tmp_path_factory.mktemp("wfm-home"))


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    (tmp_path / "notes").mkdir()
    (tmp_path / "store").mkdir(exist_ok=True)  # a new one, in which nothing is yet
    return Workshop(tmp_path / "notes", Store.open(tmp_path / "store", {"fsync": False}))


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """Who hears of runs that failed, as the environment says."""
    with receiving() as kept:
        monkeypatch.setenv("WFM_WEBHOOK", kept.url)
        monkeypatch.setenv("WFM_WEBHOOK_SECRET", SECRET)
        yield kept


@pytest.fixture
def cli(
    workshop: Workshop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """``wfm`` in this process, on the workshop's store: (exit code, output, errors)."""
    from pipelines.commands.cli import app
    from pipelines.commands.console import guarded

    monkeypatch.setattr("pipelines.commands.console.os._exit", sys.exit)
    monkeypatch.setenv("WFM_STORE", workshop.store.url)

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["wfm", *words])
        with pytest.raises(SystemExit) as leaving:
            guarded(lambda: app(args=list(words), standalone_mode=False))
        output = capsys.readouterr()
        return int(leaving.value.code or 0), output.out, output.err

    return call
