"""Scheduler, run and workers killed (SIGKILL) while curation works on Dask: the same call again ends with the same bytes."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from wfm.artifacts import Store
from wfm.curation.poison import poisoned

VIDEOS = 6
PROGRAM = '''
"""Ingest, split and further stages over the clips on a Dask cluster of this process: argv = store, videos, stage ..."""
import contextlib, importlib, os, sys
from pathlib import Path
from components import ingest_videos, split_clips
from components.context import Context
from components.derivation import code_id
from components.entrypoint import node_key
from wfm.artifacts import Store
from wfm.parts.workers import local_cluster

def stage(store, module, name, config, inputs, scheduler):
    keys = {of: artifact.key for of, artifact in inputs.items()}
    key = node_key({"component": name, "stage": name, "config": config}, keys, store)
    if store.has(key):
        return store.artifact(key)
    attempt = store.attempt(key)
    context = Context(stage=name, component=name, node=name, run_id="r", key=key, code_id=code_id(name),
                      config=module.CONFIG.parse(config), store=store, inputs=inputs, out=attempt.path,
                      scratch=Path(store.scratch(key)), scheduler=scheduler)
    result = module.run(context)
    return attempt.commit(stage=name, kind=name, counts=result.counts, skipped=result.skipped, inputs=keys,
                          parts=result.parts)

if __name__ == "__main__":
    store = Store.open(sys.argv[1])
    elsewhere = os.environ.get("SCHEDULER", "")
    with contextlib.nullcontext(elsewhere) if elsewhere else local_cluster(workers=2, memory="1GiB") as address:
        videos = stage(store, ingest_videos, "ingest_videos", {"videos": sys.argv[2]}, {}, address)
        clips = stage(store, split_clips, "split_clips", {}, {"videos": videos}, address)
        done = [stage(store, importlib.import_module("components." + name), name, {}, {"clips": clips}, address)
                for name in sys.argv[3:]]
    print(*(artifact.key for artifact in [clips, *done]))
'''


CRASHING_DECODER = '''
"""A decoder that reads address 0 when it opens a certain file, in whatever process that is."""
import ctypes, os
import av
opened = av.open
def crash(file, *rest, **named):
    if os.environ["CRASHES_AT"] in str(file):
        ctypes.string_at(0)
    return opened(file, *rest, **named)
av.open = crash
'''
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path, film: Callable[..., Path]) -> Start:
    """Starts the program on a store, as a run of its own."""
    (tmp_path / "in").mkdir()
    for seed in range(VIDEOS):
        film(tmp_path / "in" / f"{seed}.mp4", seed)
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    root = str(Path(__file__).parents[2])

    def begin(
        store: Path, *stages: str, videos: str = "in", crashes_at: str = "", scheduler: str = ""
    ) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": root, "SCHEDULER": scheduler}
        if crashes_at:
            (tmp_path / "site").mkdir(exist_ok=True)
            (tmp_path / "site" / "sitecustomize.py").write_text(textwrap.dedent(CRASHING_DECODER))
            environment |= {"PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{root}", "CRASHES_AT": crashes_at}
        return subprocess.Popen(
            [sys.executable, str(program), str(store), str(tmp_path / videos), *stages],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    return begin


def parts_made(store: Path) -> int:
    return len(list(store.glob("parts/*/manifest.json")))


def inside_a_split(store: Path) -> bool:
    """Whether a part that has written a clip is not committed yet."""
    clips = store.glob("parts/*/attempts/*/clips/*.mp4")
    return any(not (clip.parents[3] / "manifest.json").exists() for clip in clips)


def wait_until(process: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    until = time.monotonic() + 120
    while not reached() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    assert process.poll() is None, "it must be killed in the middle"


def bytes_of(store: Path, key: str) -> dict[str, str]:
    return {entry.path: entry.sha256 for entry in Store.open(store).artifact(key).files()}


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[tuple[psutil.Process, str]]:
    """(process, address) of a Dask scheduler of its own, with a worker."""
    about = tmp_path / "scheduler.json"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    options = ["--scheduler-file", str(about), "--no-dashboard"]
    where = {"scheduler": ["--host", "127.0.0.1", "--port", "0"], "worker": ["--nthreads", "1"]}
    both = [
        subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.dask_{of}", *options, *more],
            env=environment, stderr=subprocess.DEVNULL,
        )
        for of, more in where.items()
    ]  # fmt: skip
    until = time.monotonic() + 60
    while not about.exists() and time.monotonic() < until:
        time.sleep(0.05)
    yield psutil.Process(both[0].pid), json.loads(about.read_text())["address"]
    for process in both:
        process.kill()
        process.wait()


def test_killed_schedulers_runs_and_workers_change_no_byte(
    start: Start, scheduler: tuple[psutil.Process, str], tmp_path: Path
) -> None:
    unbroken, errors = start(tmp_path / "one").communicate(timeout=300)
    key = unbroken.strip()
    assert len(key) == 64, errors

    broken = tmp_path / "two"
    process = start(broken, scheduler=scheduler[1])
    wait_until(process, lambda: parts_made(broken) >= 3)
    scheduler[0].kill()
    _, errors = process.communicate(timeout=60)
    assert "TryAgain" in errors, "a stage whose scheduler is gone ends at once, and may be tried again"
    assert "went away" in errors
    assert 3 <= parts_made(broken) < 3 * VIDEOS

    process = start(broken)
    wait_until(process, lambda: inside_a_split(broken))
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive, "no worker outlives its run"
    before = parts_made(broken)
    assert before < 3 * VIDEOS

    process = start(broken)
    wait_until(process, lambda: parts_made(broken) > before)
    for worker in psutil.Process(process.pid).children(recursive=True):
        if any("spawn_main" in word for word in worker.cmdline()):
            worker.kill()
    answer, errors = process.communicate(timeout=300)
    if process.returncode:  # a task that lost its worker too often gives up; the same call goes on
        answer, errors = start(broken).communicate(timeout=300)
    assert answer.strip() == key, errors
    assert bytes_of(broken, key) == bytes_of(tmp_path / "one", key)
    assert not list(broken.glob("poison/*/*.json")), "killed runs and workers poison nothing"


def test_a_clip_that_crashes_the_decoder_is_left_out_and_the_rest_is_done(start: Start, tmp_path: Path) -> None:
    place = tmp_path / "store"
    answer, errors = start(place, videos="in/0.mp4").communicate(timeout=300)
    assert answer, errors
    store = Store.open(place)
    bad, good = sorted(store.artifact(answer.strip()).table("clips").column("clip_id").to_pylist())

    stages = ("score_clips", "embed_clips")
    answer, errors = start(place, *stages, videos="in/0.mp4", crashes_at=bad).communicate(timeout=300)
    assert len(answer.split()) == 3, errors
    for name, key in zip(("scores", "embeddings"), answer.split()[1:], strict=True):
        made = store.artifact(key)
        assert made.manifest.skipped == {"poisoned": 1}, name
        assert made.table(name).column("clip_id").to_pylist() == [good]
        (skip,) = made.table("skips").to_pylist()
        assert skip["reason"] == "poisoned: decoding ended by SIGSEGV, 3 times"
    assert [(note.step, note.item) for note in poisoned(store)] == [("embed", bad), ("score", bad)]
    assert len(list(place.glob("poison/*/*.json"))) == 2, "of the clip that went well no note stays"
