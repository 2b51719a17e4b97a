"""A stage that is told to stop ends in order: told alone or with its whole group, once or again, by SIGTERM or SIGINT."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.components.conftest import runner_of
from tests.components.test_train_tokenizer import CONFIG as TOKENIZER
from tests.components.test_train_tokenizer import dataset
from wfm.artifacts import Artifact, Store
from wfm.artifacts.runs import Run
from wfm.parts.workers import keys_environment, local_cluster

ROOT = Path(__file__).parents[2]
SIMULATION = {
    "sessions": 8, "views": 1, "shots_per_video": 1, "seconds_per_shot": [2.0, 2.5], "size": 96, "fps": 8, "workers": 2,
}  # fmt: skip
LONG = {**TOKENIZER, "training": {**TOKENIZER["training"], "steps": 100_000}}


class Stage:
    """Real stages, started as a pod's agent would: in a group of their own, by no guard of ours."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.started: list[subprocess.Popen[str]] = []

    def start(
        self, component: str, config: dict[str, Any], environment: dict[str, str] | None = None, **inputs: Artifact
    ) -> tuple[subprocess.Popen[str], Run]:
        run = self.store.runs.create({"pipeline": "stopping"})
        spec = {
            "schema_version": 1, "store": self.store.url, "run_id": run.id, "node": component, "stage": component,
            "component": component, "kind": "made", "config": config, "redo": "", "promote": "", "reads_truth": False,
        }  # fmt: skip
        command = [sys.executable, "-m", f"components.{component}", "--spec", run.write("spec.json", json.dumps(spec))]
        for name, artifact in inputs.items():
            command += ["--input", f"{name}={artifact.key}"]
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **(environment or {})}, start_new_session=True, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        self.started.append(process)
        return process, run

    def end_all(self) -> None:
        for process in self.started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(Store.open(tmp_path / "store"))
    yield stage
    stage.end_all()


def wait_until(process: subprocess.Popen[str], reached: Callable[[], object]) -> None:
    until = time.monotonic() + 90
    while not reached() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()


def parts(store: Store) -> list[Path]:
    path = store.objects.local_path("parts")
    assert path is not None
    return list(path.glob("*/manifest.json"))


def told(process: subprocess.Popen[str], how: str) -> None:
    """``how``: ``SIGTERM alone``, ``SIGINT group twice`` …"""
    number, to, *again = how.split()
    for _ in range(1 + len(again)):
        (os.killpg if to == "group" else os.kill)(process.pid, signal.Signals[number])
        time.sleep(0.2 * len(again))


def ended_in_order(process: subprocess.Popen[str], run: Run, node: str) -> None:
    _, errors = process.communicate(timeout=60)
    (attempt,) = run.read_outcomes(node)
    assert attempt.outcome is not None, errors
    assert (attempt.outcome["outcome"], process.returncode) == ("cancelled", 143), errors
    assert "asked to stop" in str(attempt.outcome["reason"])


@pytest.mark.long
@pytest.mark.parametrize("how", ["SIGTERM alone", "SIGTERM group"])
def test_a_stage_with_workers_of_its_own(stage: Stage, how: str) -> None:
    """A signal to the group used to end the workers at once: what they were at was lost, and the stage tried it elsewhere."""
    process, run = stage.start("simulate_videos", SIMULATION)
    wait_until(process, lambda: parts(stage.store))
    told(process, how)
    ended_in_order(process, run, "simulate_videos")
    assert 1 <= len(parts(stage.store)) < SIMULATION["sessions"]
    assert not list(stage.store.objects.walk("artifacts"))


@pytest.mark.long
def test_splitting_on_workers_of_the_run(stage: Stage, tmp_path: Path, film: Callable[..., Path]) -> None:
    (tmp_path / "in").mkdir()
    for seed in range(8):
        film(tmp_path / "in" / f"{seed}.mp4", seed)
    videos = runner_of(stage.store, tmp_path / "scratch")("ingest_videos", {"videos": str(tmp_path / "in")})
    before = len(parts(stage.store))
    with local_cluster(workers=2, memory="1GiB") as address:
        environment = {"DASK_SCHEDULER_ADDRESS": address, **keys_environment()}
        process, run = stage.start("split_clips", {}, environment, videos=videos)
        wait_until(process, lambda: len(parts(stage.store)) > before)
        workers = psutil.Process().children(recursive=True)
        assert [found for one in workers for found in shared_memory(one.pid)] == []
        told(process, "SIGTERM group twice")
        ended_in_order(process, run, "split_clips")
    assert not list(stage.store.objects.walk("poison")), "nobody died at a video"


@pytest.mark.parametrize("how", ["SIGTERM group", "SIGINT group twice"])
def test_training(stage: Stage, how: str, tmp_path: Path) -> None:
    data = dataset(stage.store, tmp_path, "a", dark=False)
    process, run = stage.start("train_tokenizer", LONG, dataset=data)
    wait_until(process, lambda: learning(tmp_path))
    assert shared_memory(process.pid) == [], "the 64 MB that a pod has of it are no matter"
    told(process, how)
    ended_in_order(process, run, "train_tokenizer")
    assert list((tmp_path / "store").rglob("*.safetensors")), "what was learnt is kept"


def shared_memory(pid: int) -> list[str]:
    """What a process has mapped of /dev/shm, locks (one page each) left out."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    except OSError:  # it has ended
        return []
    return [line for line in lines if "/dev/shm/" in line and "/dev/shm/sem." not in line]


def learning(folder: Path) -> bool:
    return any(path.stat().st_size for path in (folder / "store" / "scratch").rglob("*.jsonl"))


def test_a_stage_outlives_the_thread_that_started_it(stage: Stage, tmp_path: Path) -> None:
    """The kernel sends the parent-death signal when the parent's *thread* ends: an agent written in Go moves between threads,
    and healthy stages died. Under our own guard, which has one thread, the guard asks for it (`test_subprocess_stage`)."""
    data = dataset(stage.store, tmp_path, "a", dark=False)
    starting = threading.Thread(target=lambda: stage.start("train_tokenizer", LONG, dataset=data))
    starting.start()
    starting.join()
    wait_until(stage.started[0], lambda: learning(tmp_path))


def test_the_broken_twin_dies_with_the_thread(stage: Stage) -> None:
    program = (
        "import ctypes, signal, time; ctypes.CDLL(None).prctl(1, signal.SIGKILL); print(1, flush=True); time.sleep(60)"
    )
    started: list[subprocess.Popen[str]] = []

    def start() -> None:
        started.append(subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True))
        assert started[0].stdout is not None
        started[0].stdout.readline()

    starting = threading.Thread(target=start)
    starting.start()
    starting.join()
    assert started[0].wait(timeout=30) == -signal.SIGKILL
