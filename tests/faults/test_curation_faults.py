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

VIDEOS = 6
PROGRAM = '''
"""Ingest and split on a Dask cluster of this process: argv = store, videos."""
import sys
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
    print(clips.key)
'''


@pytest.fixture
def start(tmp_path: Path, film: Callable[..., Path]) -> Callable[[Path], subprocess.Popen[str]]:
    """Starts the program on a store, as a run of its own."""
    (tmp_path / "in").mkdir()
    for seed in range(VIDEOS):
        film(tmp_path / "in" / f"{seed}.mp4", seed)
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    root = str(Path(__file__).parents[2])

    def begin(store: Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(program), str(store), str(tmp_path / "in")],
            env={**os.environ, "PYTHONPATH": root}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
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


def test_killed_workers_and_killed_runs_change_no_byte(
    start: Callable[[Path], subprocess.Popen[str]], tmp_path: Path
) -> None:
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
