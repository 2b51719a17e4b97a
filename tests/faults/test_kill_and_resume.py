"""SIGKILL at seeded moments of the smoke run, resumed each time on one store: the end is that of an unbroken run.

Three times from the models on, over what an unbroken run curated; twenty times from nothing, in a long test.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipelines.plan import resolve
from pipelines.stages import STAGES
from wfm.artifacts import Artifact, Store

KILLS = 3
MANY_KILLS = 20
pytestmark = [pytest.mark.smoke, pytest.mark.timeout(2400)]


def _start(store: Path, log: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "WFM_STORE": str(store)}
    command = [sys.executable, "-m", "pipelines.commands.cli", "run", "world_model", "--profile", "smoke"]
    with log.open("ab") as output:
        return subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)


def _stages_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The stage processes below a run: the ones that an operator would see die."""
    try:
        below = psutil.Process(process.pid).children(recursive=True)
        return [child for child in below if _is_stage(child.cmdline())]
    except psutil.NoSuchProcess:
        return []


def _is_stage(command: list[str]) -> bool:
    """The stage itself, not the guard above it, which has the stage's command among its arguments."""
    named = any(word.startswith("components.") for word in command)
    return named and not any(word.endswith("guard.py") for word in command)


def _kill(process: subprocess.Popen[bytes], how: str) -> None:
    if how == "group":
        everyone = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + 20  # stages and workers have groups of their own; they must die with their parent
        while (alive := [pid for pid in everyone if _lives(pid)]) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not alive, f"orphans outlived their parent: {[_command(pid) for pid in alive]}"
    else:
        for stage in _stages_of(process)[:1]:
            stage.kill()


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _command(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())[:200]
    except psutil.NoSuchProcess:
        return "gone"


def _break_and_resume(store: Path, log: Path, kills: int, seed: int) -> None:
    moments = random.Random(seed)
    process = _start(store, log)
    for number in range(kills):
        until = time.monotonic() + 60
        while process.poll() is None and not _stages_of(process) and time.monotonic() < until:
            time.sleep(0.2)  # from the moment work goes on, not while the engine starts
        time.sleep(moments.uniform(0.2, 9.0))
        if process.poll() is not None:
            assert process.returncode == 0, log.read_text()[-4000:]
            break
        _kill(process, moments.choice(["group", "group", "stage"]))
        print(f"kill {number + 1} done")
        if process.poll() is not None:
            process = _start(store, log)
    if process.wait(timeout=900) != 0:
        process = _start(store, log)  # a stage killed more often than its retries: an operator starts it again
        assert process.wait(timeout=900) == 0, log.read_text()[-4000:]


def _same_end(broken: Path, unbroken: Path) -> None:
    one, two = Store.open(broken), Store.open(unbroken)
    plan, other = resolve("world_model", profile="smoke", store=one), resolve("world_model", profile="smoke", store=two)
    assert plan.missing == []
    assert [node.key for node in plan.nodes] == [node.key for node in other.nodes]
    for node in plan.nodes:
        assert one.verify(str(node.key)).ok
        if STAGES[node.stage].deterministic:
            assert _hashes(one.artifact(str(node.key))) == _hashes(two.artifact(str(node.key))), node.name


def _hashes(artifact: Artifact) -> dict[str, str]:
    return {file.path: file.sha256 for file in artifact.files()}


def _curated(smoke_store: Path, folder: Path) -> Path:
    """A store that holds what the smoke run curated, and nothing that was made of it."""
    shutil.copytree(smoke_store, folder, copy_function=os.link)
    store = Store.open(folder)
    nodes = resolve("world_model", profile="smoke", store=store).nodes
    first = [node.stage for node in nodes].index("write_shards") + 1
    going = [str(node.key) for node in nodes[first:]]
    assert len(going) >= 8
    for key in going:
        shutil.rmtree(folder / "artifacts" / key)
    left = [node.stage for node in resolve("world_model", profile="smoke", store=store).missing]
    assert left == [node.stage for node in nodes[first:]]
    return folder


def test_killed_three_times_and_resumed(smoke_store: Path, tmp_path: Path) -> None:
    store = _curated(smoke_store, tmp_path / "store")
    _break_and_resume(store, tmp_path / "log.txt", KILLS, seed=1)
    _same_end(store, smoke_store)


@pytest.mark.long
def test_killed_twenty_times_and_resumed(smoke_store: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    _break_and_resume(store, tmp_path / "log.txt", MANY_KILLS, seed=2)
    _same_end(store, smoke_store)
