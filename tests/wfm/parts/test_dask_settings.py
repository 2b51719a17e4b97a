"""A user's settings of Dask hold where they are a choice; a scheduler set up elsewhere gets ours by its environment."""

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

from wfm.errors import InputError, TryAgain
from wfm.parts.dask_settings import LOSSES_ON_A_CLUSTER, dask_environment, local_settings
from wfm.parts.workers import local_cluster, map_tasks

ROOT = Path(__file__).parents[3]


def settings_of_a_worker(_: int) -> dict[str, Any]:
    import dask
    from distributed import get_worker

    return {
        "folder": get_worker().local_directory,
        "terminate": dask.config.get("distributed.worker.memory.terminate"),
        "spill": dask.config.get("distributed.worker.memory.spill"),
        "safe": os.environ.get("PYTHONSAFEPATH"),
        "alone in its group": os.getpgid(0) == os.getpid(),
    }


def die(payload: str) -> int:
    with Path(payload).open("a") as file:
        file.write("x")
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("SCHEDULER__HTTP__ROUTES", "['distributed.http.health']", "open to all"),
        ("WORKER__MULTIPROCESSING_METHOD", "fork", "'spawn'"),
        ("SCHEDULER__ALLOWED_FAILURES", "many", "whole number"),
        ("SCHEDULER__ALLOWED_FAILURES", "-1", "whole number"),
        ("WORKER__MEMORY__TERMINATE", "95", "a share of"),
    ],
)
def test_a_setting_that_would_break_a_stage_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(f"DASK_DISTRIBUTED__{name}", value)
    with pytest.raises(InputError, match=f"DASK_DISTRIBUTED__{name} is .*{words}"), local_cluster(workers=1):
        pass


def test_a_users_choices_hold(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The old code wrote over them: a task was given up after three losses, whatever had been asked for."""
    ours = local_settings()
    assert (ours["distributed.scheduler.allowed-failures"], ours["distributed.scheduler.work-stealing"]) == (2, False)
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "0")
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__WORK_STEALING", "True")
    monkeypatch.setenv("DASK_DISTRIBUTED__WORKER__MEMORY__TERMINATE", "0.8")
    monkeypatch.setenv("DASK_TEMPORARY_DIRECTORY", str(tmp_path))
    assert local_settings()["distributed.scheduler.work-stealing"] is True
    with local_cluster(workers=1, memory="1GiB") as address:
        (found,) = dict(map_tasks(settings_of_a_worker, {"a": 1}, scheduler=address)).values()
        assert found["terminate"] == 0.8
        assert found["alone in its group"], "Ctrl-C and signals to the group of a stage are not for its workers"
        assert list(tmp_path.glob("wfm-dask-*")), "scratch lies where the user said"
        with pytest.raises(TryAgain, match=r"task 'x': lost its worker 1 times.*ALLOWED_FAILURES: it is 0"):
            list(map_tasks(die, {"x": str(tmp_path / "tries")}, scheduler=address))
    assert (tmp_path / "tries").read_text() == "x"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Callable[[], psutil.Process]]:
    """A scheduler as a DaskJob would start it; a call starts a worker."""
    about, folder = tmp_path / "scheduler.json", tmp_path / "scratch"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DASK_")}
    environment = {**clean, **dask_environment(str(folder)), "PYTHONPATH": str(ROOT)}
    started: list[subprocess.Popen[bytes]] = []

    def start(role: str, *options: str) -> psutil.Process:
        command = [sys.executable, "-m", f"distributed.cli.dask_{role}", "--scheduler-file", str(about), *options]
        started.append(subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL))
        return psutil.Process(started[-1].pid)

    start("scheduler", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0")
    until = time.monotonic() + 60
    while not about.exists() and time.monotonic() < until:
        time.sleep(0.05)
    yield lambda: start(
        "worker", "--nthreads", "1", "--local-directory", str(folder), "--dashboard-address", "127.0.0.1:0"
    )
    for process in started:
        for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []:
            child.kill()
        process.kill()
        process.wait()


def dawdle(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


@pytest.mark.long
def test_a_cluster_set_up_by_its_environment_survives_a_spot_storm(
    cluster: Callable[[], psutil.Process], tmp_path: Path
) -> None:
    """More workers go than one of this machine may lose, half of them asked and half of them not; the work is done all the
    same. With our settings in `local_cluster` alone, the scheduler gave the task up after the fourth."""
    worker = cluster()
    address = json.loads((tmp_path / "scheduler.json").read_text())["address"]
    (found,) = dict(map_tasks(settings_of_a_worker, {"a": 1}, scheduler=address)).values()
    assert found["folder"].startswith(str(tmp_path / "scratch"))
    assert (found["terminate"], found["spill"], found["safe"], found["alone in its group"]) == (0.95, False, "1", True)
    asked = map_tasks(dawdle, {"long": 4.0}, scheduler=address)
    assert LOSSES_ON_A_CLUSTER >= 5

    def storm() -> None:
        nonlocal worker
        for loss in range(5):
            time.sleep(2.0)
            lost, worker = worker, cluster()
            for process in [*lost.children(recursive=True), lost] if loss % 2 else [lost]:
                process.send_signal(signal.SIGKILL if loss % 2 else signal.SIGTERM)

    losing = threading.Thread(target=storm)
    losing.start()
    ((name, _),) = asked
    losing.join()
    assert name == "long"
