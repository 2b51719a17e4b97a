"""A training of two processes: rank 0 alone leases, commits and tells; whatever happens to one ends both, soon, and rightly."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.components.rank_jobs import STALL_SECONDS, Job, copy_of
from tests.components.test_train_tokenizer import dataset
from wfm.artifacts import Store

SOON = 10.0
"""How long after a stall is seen everything may still take [s]."""
Start = Callable[..., Job]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("ranks")
    return folder / "store", dataset(Store.open(folder / "store"), folder, "a", dark=False).key


@pytest.fixture
def job(base: tuple[Path, str], tmp_path: Path) -> Start:
    """``job("torchrun", steps=20)``: a training, on the way."""
    store = copy_of(base[0], tmp_path / "store")

    def start(launcher: str, **more: Any) -> Job:
        return Job(store, base[1], launcher, **more).start()

    return start


def test_two_processes_make_it_once_and_find_it_made_then(job: Start) -> None:
    first = job("guard", steps=8)
    outcome = first.wait(120)
    assert (first.code, outcome["outcome"]) == (0, "done"), first.log
    assert first.store.artifact(first.key).manifest.counts["steps"] == 8
    assert len(first.run.attempts("train")) == 1
    leases = first.store.objects.names(f"leases/{first.key}")
    assert [name for name in leases if name.endswith(".json")] == ["00000001.json"]
    again = job("guard", steps=8)
    assert (again.wait(60)["outcome"], again.code) == ("cached", 0), again.log
    assert len(again.run.attempts("train")) == 1


@pytest.mark.parametrize(
    ("launcher", "number", "rank"),
    [
        ("guard", signal.SIGSTOP, 0),
        pytest.param("guard", signal.SIGSTOP, 1, marks=pytest.mark.long),
        pytest.param("guard", signal.SIGKILL, 0, marks=pytest.mark.long),
        pytest.param("guard", signal.SIGKILL, 1, marks=pytest.mark.long),
        pytest.param("torchrun", signal.SIGSTOP, 0, marks=pytest.mark.long),
        pytest.param("torchrun", signal.SIGSTOP, 1, marks=pytest.mark.long),
        pytest.param("torchrun", signal.SIGKILL, 0, marks=pytest.mark.long),
        pytest.param("torchrun", signal.SIGKILL, 1, marks=pytest.mark.long),
    ],
)
def test_a_rank_that_dies_or_hangs_ends_all_as_try_again(
    job: Start, launcher: str, number: signal.Signals, rank: int
) -> None:
    training = job(launcher)
    ranks = training.in_training()
    assert sorted(r for r in ranks if r >= 0) == [0, 1]
    ranks[rank].send_signal(number)
    outcome = training.wait(STALL_SECONDS + SOON)
    assert outcome["outcome"] == "try_again", training.log
    assert f"rank {rank} on host" in outcome["reason"]
    says = {signal.SIGSTOP: "did not answer for", signal.SIGKILL: "SIGKILL" if launcher == "guard" else "is gone"}
    assert says[number] in outcome["reason"]
    if number == signal.SIGSTOP:
        (stacks,) = outcome["stacks"].values()
        assert "loop.py" in stacks, "the living rank shows where it waits"
        assert "stacks of rank" in training.log


def test_what_a_rank_cannot_read_is_final_for_all(job: Start, tmp_path: Path) -> None:
    script = tmp_path / "rank"
    spoils = f'#!/bin/sh\nif [ "$RANK" = 1 ]; then export WFM_STORE_OPTIONS=spoilt; fi\nexec {sys.executable} "$@"\n'
    script.write_text(spoils)
    script.chmod(0o755)
    training = job("guard", python=str(script))
    outcome = training.wait(60)
    assert outcome["outcome"] == "wrong_input", training.log
    assert outcome["reason"].startswith("rank 1 on host ")
    assert "WFM_STORE_OPTIONS is not a JSON object" in outcome["reason"]
