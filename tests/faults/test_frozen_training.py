"""A training whose machine froze for longer than its lease: another one goes on with the work, and the first, when it wakes,
leaves it to that one at once."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.faults.stage_runs import LEASE_SECONDS, Disk, Job
from tests.faults.stage_scenes import learning
from wfm.errors import TryAgain


@pytest.mark.timeout(300)
def test_who_wakes_leaves_the_work_to_who_has_taken_it(tmp_path: Path) -> None:
    (tmp_path / "scene").mkdir()
    scene = learning(tmp_path / "scene", steps=1000, interval=5)
    job = Job(scene, Disk(scene.seed, tmp_path / "store"), tmp_path / "job")
    [first] = job.start("after_step:12=SIGSTOP", machine="first")
    until = time.monotonic() + 60
    while stopped(first.pid) is False and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(LEASE_SECONDS)
    [second] = job.start(machine="second")
    while "resumed at step 10" not in printed(job, "second") and time.monotonic() < until:
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGCONT)
    first.join(30)
    assert first.exitcode == TryAgain.exit_code, job.printed()
    assert second.exitcode is None, "the work goes on"
    second.terminate()
    second.join(60)
    outcomes = [one.outcome for one in job.run.read_outcomes("node")]
    assert [one["outcome"] for one in outcomes] == ["try_again", "cancelled"]
    assert "another process has taken it over" in outcomes[0]["reason"]
    assert outcomes[0]["lease_held"] is True, "whoever tries again waits for the other"


def stopped(pid: int | None) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def printed(job: Job, machine: str) -> str:
    return job.log(machine).read_text() if job.log(machine).exists() else ""
