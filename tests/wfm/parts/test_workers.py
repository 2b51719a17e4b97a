"""Work runs here or on Dask, bounded in flight; what fails is named; workers never outlive their parent."""

import http.client
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import dask
import psutil
import pytest

from wfm.data.decode import VideoError
from wfm.errors import Cancelled, DataError, InputError, TryAgain
from wfm.parts.workers import _patience, keys_environment, local_cluster, map_tasks


def double(payload: int) -> int:
    return 2 * payload


def fail_on_three(payload: int) -> int:
    if payload == 3:
        raise DataError("three is not allowed")
    return payload


def disk_full(payload: int) -> int:
    raise OSError(28, "No space left on device", "/somewhere")


def bad_video(payload: int) -> int:
    raise VideoError("x.mp4", "truncated", "read 1 s of 2 s")


def die_once(payload: str) -> int:
    """Kills its worker the first time."""
    mark = Path(payload)
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def die_always(payload: str) -> int:
    with Path(payload).open("a") as file:
        file.write("x")
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def overlap(payload: tuple[str, float]) -> int:
    """How many tasks ran at once, by counting marks in a folder."""
    folder, seconds = Path(payload[0]), payload[1]
    mark = folder / f"{os.getpid()}-{time.monotonic_ns()}"
    mark.touch()
    time.sleep(seconds)
    count = len(list(folder.iterdir()))
    mark.unlink()
    return count


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    with local_cluster(workers=2, memory="1GiB") as address:
        yield address


@pytest.mark.parametrize("where", ["here", "dask"])
def test_every_task_comes_back_once_with_its_name(where: str, request: pytest.FixtureRequest) -> None:
    scheduler = request.getfixturevalue("cluster") if where == "dask" else ""
    tasks = {f"t{i:02d}": i for i in range(25)}
    got = list(map_tasks(double, tasks, scheduler=scheduler, max_in_flight=3))
    assert sorted(got) == [(name, 2 * value) for name, value in sorted(tasks.items())]


def test_no_tasks_is_no_work(cluster: str) -> None:
    assert list(map_tasks(double, {}, scheduler=cluster)) == []


@pytest.mark.parametrize("where", ["here", "dask"])
def test_an_error_keeps_its_kind_and_names_its_task(where: str, request: pytest.FixtureRequest) -> None:
    scheduler = request.getfixturevalue("cluster") if where == "dask" else ""
    with pytest.raises(DataError, match=r"task 'three': three is not allowed"):
        list(map_tasks(fail_on_three, {"one": 1, "three": 3}, scheduler=scheduler))
    with pytest.raises(OSError, match=r"task 'full': No space left") as raised:
        list(map_tasks(disk_full, {"full": 1}, scheduler=scheduler))
    assert raised.value.errno == 28
    with pytest.raises(VideoError, match=r"task 'v': truncated: read 1 s of 2 s") as video:
        list(map_tasks(bad_video, {"v": 1}, scheduler=scheduler))
    assert video.value.code == "truncated"


def test_a_lost_worker_is_replaced_and_the_task_tried_again(cluster: str, tmp_path: Path) -> None:
    got = dict(map_tasks(die_once, {"fragile": str(tmp_path / "mark")}, scheduler=cluster))
    assert got["fragile"] > 0


def test_a_task_that_kills_every_worker_is_given_up(cluster: str, tmp_path: Path) -> None:
    tries = tmp_path / "tries"
    with pytest.raises(TryAgain, match=r"task 'killer'.*lost its worker 3 times.*ALLOWED_FAILURES"):
        list(map_tasks(die_always, {"killer": str(tries)}, scheduler=cluster))
    assert tries.read_text() == "xxx"


def test_a_wish_to_stop_is_heard_while_a_task_is_long(cluster: str, tmp_path: Path) -> None:
    """A part may take an hour, and whoever asks to stop gives half a minute: the old code asked after each answer only."""
    begun = time.monotonic()
    stop = threading.Event()
    threading.Timer(1.0, stop.set).start()
    with pytest.raises(Cancelled, match="asked to stop"):
        list(map_tasks(time.sleep, {"long": 30.0}, scheduler=cluster, stopping=stop.is_set))
    assert time.monotonic() - begun < 20


def words_of_a_worker(_: int) -> int:
    return logging.getLogger("distributed.worker").getEffectiveLevel()


def test_a_worker_that_ends_says_nothing(cluster: str) -> None:
    """In the old code a finished run now and then ended with a traceback: a worker's heartbeat met no scheduler (level 40)."""
    assert dict(map_tasks(words_of_a_worker, {"a": 1}, scheduler=cluster)) == {"a": logging.CRITICAL}


def test_hand_out_is_bounded(tmp_path: Path) -> None:
    with local_cluster(workers=2, memory="1GiB") as address:
        tasks = {str(i): (str(tmp_path), 0.05) for i in range(8)}
        most = max(count for _, count in map_tasks(overlap, tasks, scheduler=address, max_in_flight=1))
        assert most == 1
        most = max(count for _, count in map_tasks(overlap, tasks, scheduler=address, max_in_flight=4))
        assert most == 2


def test_a_scheduler_that_is_not_there_is_worth_another_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wfm.parts.workers._CONNECT_SECONDS", 1)
    patience = dask.config.set({"distributed.comm.timeouts.connect": "1s"})  # the longer of both counts
    with patience, pytest.raises(TryAgain, match="cannot be reached"):
        list(map_tasks(double, {"a": 1}, scheduler="tcp://127.0.0.1:9"))


def test_zero_workers_is_refused() -> None:
    with pytest.raises(InputError, match="workers must be at least 1, got 0"), local_cluster(workers=0):
        pass


_STRANGER = """
import sys
from distributed import Client
from distributed.security import Security

def touch(path):
    open(path, "w").close()

if __name__ == "__main__":
    address, mark, ways = sys.argv[1], sys.argv[2], sys.argv[3].split()
    given = {"plain": None, "own": Security.temporary() if "own" in ways else None, "environment": None}
    for way in ways:
        try:
            at = address.replace("tls://", "tcp://") if way == "plain" else address
            Client(at, security=given[way], timeout=2).submit(touch, mark).result(timeout=90)
            print(way, "ran")
        except Exception as error:
            print(way, type(error).__name__)
"""


def test_a_process_without_the_keys_of_the_run_runs_nothing(cluster: str, tmp_path: Path) -> None:
    (tmp_path / "stranger.py").write_text(_STRANGER)
    mark = tmp_path / "mark"

    def stranger(ways: str, keys: dict[str, str]) -> str:
        command = [sys.executable, str(tmp_path / "stranger.py"), cluster, str(mark), ways]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("DASK_")}
        done = subprocess.run(command, env={**clean, **keys}, capture_output=True, text=True, timeout=120)
        return done.stdout

    out = stranger("plain own environment", {})  # the old one: "plain ran", and the mark was there
    assert "ran" not in out
    assert len(out.split()) == 6
    assert not mark.exists()
    assert stranger("environment", keys_environment()) == "environment ran\n"
    assert mark.exists()


def test_a_client_without_keys_is_told_which(cluster: str) -> None:
    import dask

    with (
        dask.config.set({"distributed.comm.tls.ca-file": None}),
        pytest.raises(InputError, match="asks for keys: set DASK_"),
    ):
        list(map_tasks(double, {"a": 1}, scheduler=cluster))


def test_no_page_of_the_cluster_is_served(cluster: str) -> None:
    """The old one told addresses, tasks and logs at /info/main/workers.html, in clear."""
    me = psutil.Process()
    ports = {
        one.laddr.port
        for process in (me, *me.children(recursive=True))
        for one in process.net_connections("tcp")
        if one.status == psutil.CONN_LISTEN
    }
    assert len(ports) >= 4
    for port in ports:
        for page in ("info/main/workers.html", "json/counts.json", "metrics", "health"):
            with pytest.raises((OSError, http.client.HTTPException)):  # a 404 of urllib is an OSError
                urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=5)


def path_and_environment(payload: int) -> tuple[list[str], dict[str, str]]:
    return sys.path, dict(os.environ)


def test_workers_import_from_no_folder_that_others_can_make(cluster: str) -> None:
    [(_, (path, environment))] = map_tasks(path_and_environment, {"a": 1}, scheduler=cluster)
    assert not [entry for entry in path if "/dask-scratch-space" in entry and "/wfm-dask-" not in entry]
    scratch = next(Path(entry) for entry in path if "/wfm-dask-" in entry)
    private = next(folder for folder in (scratch, *scratch.parents) if folder.name.startswith("wfm-dask-"))
    assert private.stat().st_mode & 0o777 == 0o700  # /tmp/dask-scratch-space before, which another user could have made
    assert environment["PYTHONSAFEPATH"] == "1"


def test_workers_die_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, sys, time
            from distributed import Client
            from wfm.parts.workers import local_cluster
            if __name__ == "__main__":
                with local_cluster(workers=2, memory="1GiB") as address:
                    with Client(address) as client:
                        print(*client.run(os.getpid).values(), flush=True)
                        busy = client.submit(time.sleep, 60)
                        time.sleep(60)
            """
        )
    )
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=_path_to_wfm())
    try:
        assert parent.stdout is not None
        workers = [int(word) for word in parent.stdout.readline().split()]
        assert len(workers) == 2
        assert all(_alive(pid) for pid in workers)
    finally:
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 20
    while any(_alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [pid for pid in workers if _alive(pid)] == []


def _path_to_wfm() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in (os.getcwd(), *sys.path) if path)}


def _alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_whoever_starts_a_runner_beside_its_scheduler_says_how_long_to_look_for_it() -> None:
    import dask

    for told, seconds in (("900s", 900.0), ("5s", 30.0)):
        with dask.config.set({"distributed.comm.timeouts.connect": told}):
            assert _patience() == seconds
    assert _patience() == 30.0
