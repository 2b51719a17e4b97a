"""A training that is told to stop writes its outcome before the grace is over, counted from SIGTERM: whatever it is at."""

from pathlib import Path

import pytest

from tests.faults.stage_runs import Disk, Job, Scene
from tests.faults.stage_scenes import INTERVAL, STEPS, learning

GRACE = 10.0
FILES = 4
"""Of a checkpoint."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return learning(tmp_path_factory.mktemp("scene"))


def preempted(scene: Scene, folder: Path, slow: str, told: float) -> tuple[int | None, Job]:
    """As a kubelet does: SIGTERM in the middle of step 6, and SIGKILL `GRACE` seconds later. `told`: what the stage knows of
    it."""
    job = Job(scene, Disk(scene.seed, folder / "store"), folder / "job")
    [process] = job.start(machine="one", WFM_TEST_SLOW=slow, WFM_GRACE_SECONDS=f"{told:g}")
    while "slow at after_step" not in (job.log("one").read_text() if job.log("one").exists() else ""):
        process.join(0.05)
        assert process.exitcode is None, job.printed()
    process.terminate()
    process.join(GRACE)
    process.kill()
    process.join()
    return process.exitcode, job


WAYS = {
    "a step that takes too long": ("after_step:6=60", "was at 'step' when the 10 s of grace"),
    "a store that takes what is left": (
        f"after_step:6=2 half_checkpoint_upload:{FILES + 1}=60",
        f"step 6 of {STEPS} is kept; the newest checkpoint in the store is that of step {INTERVAL} (the upload took more than ",
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_outcome_is_there_in_time(scene: Scene, tmp_path: Path, way: str) -> None:
    slow, words = WAYS[way]
    code, job = preempted(scene, tmp_path, slow, GRACE)
    assert code == 143, job.printed()
    [attempt] = job.run.read_outcomes("node")
    assert attempt.outcome is not None
    assert attempt.outcome["outcome"] == "cancelled"
    assert words in attempt.outcome["reason"]
    job.finish()
    artifact = job.artifact()
    assert artifact.manifest.extra["resumed_from"] == INTERVAL, "what was committed is whole"
    assert job.store.verify(job.key).ok


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
def test_the_twin_that_thinks_it_has_more_time_says_nothing(scene: Scene, tmp_path: Path, way: str) -> None:
    code, job = preempted(scene, tmp_path, WAYS[way][0], 1000.0)
    assert code == -9
    [attempt] = job.run.read_outcomes("node")
    assert attempt.outcome is None
