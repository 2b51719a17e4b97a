"""Dask workers that somebody else has started, from other code than the stage's."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from components import context
from components.derivation import ROOT, code_id
from tests.components.conftest import runner_of
from tests.components.one_clip_parts import dataset
from wfm.artifacts import Store
from wfm.errors import InputError

STAGE = "encode_signals"


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """``workers(line)``: a scheduler's address, and a worker of a copy of the code whose stage ends with that line."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(line: str) -> str:
        copy, said = tmp_path / f"copy{len(processes)}", tmp_path / f"scheduler{len(processes)}.json"
        for package in ("wfm", "components"):
            shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
        with (copy / f"components/{STAGE}.py").open("a") as file:
            file.write(line)
        environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONSAFEPATH": "1", "DASK_WORKER_NAME": "theirs"}
        dask = [sys.executable, "-m", "dask"]
        ports = ["--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"]
        words = [*dask, "scheduler", *ports, "--scheduler-file", str(said)]
        processes.append(subprocess.Popen(words, cwd=tmp_path, env=environment))
        until = time.monotonic() + 120
        while not said.exists():
            assert time.monotonic() < until
            time.sleep(0.05)
        (address,) = re.findall(r'"address": "([^"]+)"', said.read_text())
        words = [*dask, "worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
        processes.append(subprocess.Popen(words, cwd=tmp_path, env=environment))
        return address

    yield start
    for process in reversed(processes):  # the worker before the scheduler
        process.terminate()
        process.wait(60)


def test_a_worker_of_other_code_makes_no_part(
    workers: Callable[[str], str], store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its parts would be named by the code of the stage's process, and made by another."""
    clips = dataset(store, range(2))
    address = workers("_CHANGED = 1\n")
    with pytest.raises(InputError) as caught:
        runner_of(store, tmp_path / "scratch", scheduler=address)(STAGE, dataset=clips)
    assert f"its process runs code {code_id(STAGE)}, the Dask worker theirs runs code " in str(caught.value)
    assert "start scheduler and workers from the image of the stage" in str(caught.value)

    monkeypatch.setattr(context, "run_part_on_worker", context.run_part)  # the bug: nobody compares
    made = runner_of(store, tmp_path / "scratch", scheduler=address)(STAGE, dataset=clips)
    assert made.manifest.extra["parts_made"] == {"made": 2, "of": 2}


def test_a_comment_is_no_other_code(workers: Callable[[str], str], store: Store, tmp_path: Path) -> None:
    address = workers("# a comment\n")
    made = runner_of(store, tmp_path / "scratch", scheduler=address)(STAGE, dataset=dataset(store, range(2)))
    assert made.manifest.extra["parts_made"] == {"made": 2, "of": 2}
