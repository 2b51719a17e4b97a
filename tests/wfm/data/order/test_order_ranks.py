"""The same global batches for 1, 2 and 4 real ranks and 8 in one process, with 0, 1 and 3 threads, before and after kills.

Each number of ranks meets one number of threads here, and all of them in a long test.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.wfm.data.order.order_ranks import EIGHT, REAL, STEPS, STEPS_A_KILL, WORKERS, order_of, samples_in
from wfm.data.records import RecordWriter

ROOT = Path(__file__).parents[4]
KILLS = {"phases": 10, "packs": 3}
"""Of a run of each mode; packs ten times too, in a long test."""
PATIENCE = 500.0
SHAPES = {"images": [(1, 4, 4), (1, 4, 8)], "clips": [(1, 4, 4), (3, 4, 4), (5, 4, 8)]}
COUNTS = {"images": 37, "clips": 61}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Records of images and clips, each with numbers of its own."""
    root = tmp_path_factory.mktemp("records")
    for name, shapes in SHAPES.items():
        with RecordWriter(root / name, "part-0", maximum_shard_bytes=20_000) as writer:
            for number in range(COUNTS[name]):
                shape = shapes[number * 7 % len(shapes)]
                row = {
                    "sample_id": f"{name}{number:04}:0", "clip_id": f"{name}{number:04}", "session_id": "", "video_id": "v",
                    "source": "s", "start_frame": 0, "start_seconds": 0.0, "fps": 8.0, "num_frames": 4 * shape[0] - 3,
                    "mirrored": False, "kind": "video",
                }  # fmt: skip
                latents = np.random.default_rng([len(name), number]).normal(size=(2, *shape)).astype(np.float32)
                writer.write("train", row, {"latents": latents})
    return root


def ran(folder, scratch: Path, *asked: str) -> dict:
    """What ranks saw; see `order_ranks`."""
    answer = scratch / "answer.json"
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "WFM_CACHE": str(scratch / "cache"), "OMP_NUM_THREADS": "1",
        "JE_ARROW_MALLOC_CONF": "background_thread:false",  # which pyarrow would begin when it is imported
    }  # fmt: skip
    command = [sys.executable, "-m", "tests.wfm.data.order.order_ranks", str(folder), str(answer), *asked]
    with (scratch / "said").open("wb") as said:  # not a pipe, which whatever it left behind would hold open
        try:
            done = subprocess.run(command, env=environment, cwd=ROOT, stdout=said, stderr=said, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{asked} took more than {PATIENCE:.0f} s: {(scratch / 'said').read_text()}")
    assert done.returncode == 0, (scratch / "said").read_text()
    return json.loads(answer.read_text())


@pytest.fixture(scope="module")
def seen(folder, tmp_path_factory):
    """Runs with some numbers of ranks and threads, in one process."""
    return ran(folder, tmp_path_factory.mktemp("ranks"), "few", *(f"{mode}={kills}" for mode, kills in KILLS.items()))


def planned(folder, mode: str, steps: int) -> tuple[list[str], list]:
    """The global batches by the order alone, read straight from the records; and the steps."""
    samples = samples_in(folder)
    order = order_of(mode, samples)
    state, found, walked = order.start(), [], []
    for _ in range(steps):
        step, state = order.next(state)
        names = order.sources[step.lane]
        packs = []
        for pack in step.packs:
            read = [samples[names[source]].read(row)["latents"] for source, row in pack.table[:2].T.tolist()]
            hashes = [hashlib.sha256(latents.numpy().tobytes()).hexdigest()[:16] for latents in read]
            packs.append([list(both) for both in zip(pack.seeds.tolist(), hashes, strict=True)])
        found.append(hashlib.sha256(json.dumps([step.number, step.lane, packs]).encode()).hexdigest())
        walked.append(step)
    return found, walked


def sequence(batches: list[str]) -> str:
    return hashlib.sha256("\n".join(batches).encode()).hexdigest()


@pytest.mark.parametrize("mode", ["batches", "packs", "phases"])
def test_ranks_and_workers_see_the_same_sequence_of_global_batches(mode, seen, folder):
    names = {f"{mode} {size} {workers}" for size, workers in zip(REAL, WORKERS, strict=True)}
    require_alike(seen, mode, names | {f"{mode} in process 8 {EIGHT[mode]}"}, folder)


@pytest.mark.long
def test_so_do_all_numbers_of_ranks_with_all_numbers_of_workers(folder, tmp_path):
    seen = ran(folder, tmp_path, "all")
    for mode in ("batches", "packs", "phases"):
        sizes = [*map(str, REAL), "in process 8"]
        require_alike(seen, mode, {f"{mode} {size} {workers}" for size in sizes for workers in WORKERS}, folder)


def require_alike(seen: dict, mode: str, names: set[str], folder: Path) -> None:
    wanted, _ = planned(folder, mode, STEPS)
    runs = {name: sequence(found) for name, found in seen.items() if name.startswith(f"{mode} ")}
    assert runs == dict.fromkeys(names, sequence(wanted))


def test_killed_ten_times_and_resumed_on_other_ranks_it_is_the_same_sequence(seen, folder):
    require_the_same(seen["phases"], "phases", KILLS["phases"], folder)


def test_killed_and_resumed_packs_are_the_same(seen, folder):
    require_the_same(seen["packs"], "packs", KILLS["packs"], folder)


@pytest.mark.long
def test_killed_ten_times_packs_are_the_same(folder, tmp_path):
    require_the_same(ran(folder, tmp_path, "packs=10")["packs"], "packs", 10, folder)


def test_a_rank_that_dies_ends_the_run_with_what_it_said(folder, tmp_path):
    """The others wait for it: once they did so for ever."""
    with pytest.raises(AssertionError, match=r"(?s)the last words of a rank.*of 2 ranks died by themselves .*\{1: 1\}"):
        ran(folder, tmp_path, "dying")


def require_the_same(run: dict, mode: str, kills: int, folder: Path) -> None:
    """As planned, with no sample lost or repeated in an epoch, after so many kills."""
    wanted, steps = planned(folder, mode, STEPS_A_KILL * kills)
    assert len({size for size, *_ in run["lives"]}) > 1
    assert [set(codes) for _, *codes in run["lives"]] == [{-signal.SIGKILL}] * kills + [{0}]
    assert sequence(run["batches"]) == sequence(wanted)
    samples = samples_in(folder)
    order = order_of(mode, samples)
    for lane in {step.lane for step in steps}:
        packs = [pack for step in steps if step.lane == lane for pack in step.packs]
        table = np.concatenate([pack.table for pack in packs], axis=1)
        for source, name in enumerate(order.sources[lane]):
            rows, epochs = table[1, table[0] == source], table[4, table[0] == source]
            if name == "images":  # each once an epoch; clips have weights
                assert len(set(zip(rows.tolist(), epochs.tolist(), strict=True))) == len(rows)
                assert epochs.max() < 1 or set(rows[epochs == 0].tolist()) == set(range(COUNTS[name]))
