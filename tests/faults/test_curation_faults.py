"""Workers, scheduler and run killed (SIGKILL) while curation works on Dask: the same call again ends with the same bytes."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from wfm.artifacts import Store
from wfm.curation.poison import poisoned

VIDEOS = 6
PROGRAM = '''
"""Ingest, split and further stages over the clips on a Dask cluster of this process: argv = store, videos, stage ..."""
import importlib, sys
from pathlib import Path
from components import ingest_videos, split_clips
from components.context import Context
from components.derivation import code_id
from components.entrypoint import node_key
from wfm.artifacts import Store
from wfm.curation.run import local_cluster

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
    with local_cluster(workers=2, memory="1GiB") as address:
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

    def begin(store: Path, *stages: str, crashes_at: str = "") -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": root}
        if crashes_at:
            (tmp_path / "site").mkdir(exist_ok=True)
            (tmp_path / "site" / "sitecustomize.py").write_text(textwrap.dedent(CRASHING_DECODER))
            environment |= {"PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{root}", "CRASHES_AT": crashes_at}
        return subprocess.Popen(
            [sys.executable, str(program), str(store), str(tmp_path / "in"), *stages],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    return begin


def parts_made(store: Path) -> int:
    return len(list(store.glob("parts/*/manifest.json")))


def wait_for_parts(process: subprocess.Popen[str], store: Path, count: int) -> None:
    until = time.monotonic() + 120
    while parts_made(store) < count and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)


def bytes_of(store: Path, key: str) -> dict[str, str]:
    return {entry.path: entry.sha256 for entry in Store.open(store).artifact(key).files()}


def test_killed_workers_and_killed_runs_change_no_byte(start: Start, tmp_path: Path) -> None:
    unbroken, errors = start(tmp_path / "one").communicate(timeout=300)
    key = unbroken.strip()
    assert len(key) == 64, errors

    broken = tmp_path / "two"
    process = start(broken)
    wait_for_parts(process, broken, 3)
    assert process.poll() is None, "killed in the middle, with the scheduler that lives in it"
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive, "no worker outlives its run"
    before = parts_made(broken)
    assert 3 <= before < 3 * VIDEOS

    process = start(broken)
    wait_for_parts(process, broken, before + 1)
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
    answer, errors = start(place).communicate(timeout=300)
    store = Store.open(place)
    clips = store.artifact(answer.strip())
    ids = {name: sorted(piece.column("clip_id").to_pylist()) for name, piece in clips.iterate_table("clips")}
    part, (bad, *_) = next((name, found) for name, found in ids.items() if len(found) > 1)

    stages = ("score_clips", "embed_clips")
    answer, errors = start(place, *stages, crashes_at=bad).communicate(timeout=300)
    assert len(answer.split()) == 3, errors
    for name, key in zip(("scores", "embeddings"), answer.split()[1:], strict=True):
        made = store.artifact(key)
        assert made.manifest.skipped == {"poisoned": 1}, name
        found = set(made.table(name).column("clip_id").to_pylist())
        assert found == {clip for row in ids.values() for clip in row} - {bad}
        (of_part,) = [entry for entry in made.parts if entry.name == part]
        (skip,) = store.part(of_part.key).table("skips").to_pylist()
        assert skip["reason"] == "poisoned: decoding ended by SIGSEGV, 3 times"
    assert [(note.step, note.item) for note in poisoned(store)] == [(step, bad) for step in ("embed", "score")]
    assert len(list(place.glob("poison/*/*.json"))) == 2, "of clips that went well no note stays"
    again, errors = start(place, *stages, crashes_at=bad).communicate(timeout=300)
    assert again == answer, errors
