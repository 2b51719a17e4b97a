"""A training that is preempted again and again, each time on another machine, ends as if nothing had happened.

Kills come at seeded steps, or at seeded moments from outside; by SIGKILL (no grace), or by SIGTERM with ten seconds of grace.
"""

import random
import re
import signal
import time
from pathlib import Path

import pytest

from pipelines.runs.seen import cost_in_words, read_tries
from tests.faults.kills import Calm, whole
from tests.faults.stage_runs import PATIENCE, Disk, Job, undisturbed
from tests.faults.stage_scenes import learning

GRACE = 10.0
INTERVAL = 5
_RESUMED = re.compile(r"resumed at step (\d+)")


def storm(folder: Path, *, steps: int, kills: int, seed: int) -> None:
    """``kills`` preemptions over ``steps`` steps."""
    (folder / "scene").mkdir()
    scene = learning(folder / "scene", steps=steps, interval=INTERVAL)
    calm = Calm(
        scene,
        undisturbed(Job(scene, Disk(scene.seed, folder / "calm store"), folder / "calm")),
        lambda place: Disk(scene.seed, place),
    )
    job, chance = Job(scene, calm.new_place(folder / "store"), folder / "job"), random.Random(seed)
    ways, done = [], []
    starts: list[int | None] = []
    for number in range(kills):
        way, after = chance.choice(["SIGKILL", "SIGTERM"]), chance.randint(1, 2 * INTERVAL - 1)
        from_outside = chance.random() < 0.3
        job.move()
        [process] = job.start("" if from_outside else f"after_step:{after}={way}", machine=f"machine-{number}")
        if from_outside:
            time.sleep(chance.uniform(0.0, 2.0))
            process.kill() if way == "SIGKILL" else process.terminate()
        process.join(GRACE if way == "SIGTERM" and from_outside else PATIENCE)
        process.kill()
        process.join()
        assert process.exitcode in (-signal.SIGKILL, -signal.SIGTERM, 143), f"{way} {number}\n{job.printed()}"
        found = _RESUMED.search(job.log(f"machine-{number}").read_text())
        ways.append(way)
        # a machine that was lost before it said where it went on began nothing
        starts.append(int(found[1]) if found else None if from_outside else 0)
        done.append(None if from_outside else starts[-1] + after)
    job.move()
    assert job.end(machine="last") == 0, job.printed()
    whole(job, calm)
    starts.append(job.artifact().manifest.extra["resumed_from"])
    went_on = [next(at for at in starts[index + 1 :] if at is not None) for index in range(kills)]
    lost = [max(at - went_on[index], 0) for index, at in enumerate(done) if at is not None]
    print(
        f"{kills} kills, {ways.count('SIGTERM')} of them SIGTERM, {done.count(None)} from outside: {sum(lost)} steps lost"
    )
    assert max(lost) <= INTERVAL, f"{lost} steps were lost by {kills} kills"
    told = [index for index, at in enumerate(done) if at is not None and ways[index] == "SIGTERM"]
    assert all(done[index] == went_on[index] for index in told), "a stop that was asked for keeps its step"
    ends = job.outcomes()
    assert ends[-1] == "done"
    assert set(ends[:-1]) <= {"", "cancelled"}
    assert ends.count("cancelled") >= len(told)
    tries = read_tries(job.run)
    assert all(one.cpu_seconds > 0 for one in tries), "those that were killed cost too"
    spent = sum(one.cpu_seconds for one in tries)
    assert cost_in_words(tries).startswith(f"{len(ends)} tries: cpu {spent:.1f} s"), cost_in_words(tries)
    assert kills + 1 - sum(at is None for at in done) <= len(ends) <= kills + 1, "each end is an attempt"


@pytest.mark.timeout(900)
def test_three_preemptions(tmp_path: Path) -> None:
    """SIGTERM inside, SIGKILL inside, SIGKILL from outside."""
    storm(tmp_path, steps=25, kills=3, seed=13)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_thirty_preemptions(tmp_path: Path) -> None:
    storm(tmp_path, steps=200, kills=30, seed=4)
