"""A training on S3 whose store is away, whose token expires, that prints a hundred megabytes: it goes on, or says why not.

Each on a real stage process, from its first request to its outcome (``make crash-matrix``).
"""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.kills import Calm, whole
from tests.faults.stage_runs import Bucket, Disk, Job, Scene, s3_server, undisturbed
from tests.faults.stage_scenes import learning
from wfm.artifacts.attempt_log import KEPT_BYTES, PIECE_BYTES
from wfm.errors import TryAgain

STEPS = 50
pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
_numbers = itertools.count()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return learning(tmp_path_factory.mktemp("scene"), steps=STEPS, interval=10)


@pytest.fixture(scope="module")
def calm(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Calm:
    folder = tmp_path_factory.mktemp("calm")
    return Calm(scene, undisturbed(Job(scene, Disk(scene.seed, folder / "store"), folder / "job")), lambda place: None)


@pytest.fixture
def s3() -> Iterator[Any]:
    with s3_server() as server:
        yield server


def job_on(s3: Any, scene: Scene, folder: Path, **options: Any) -> Job:
    return Job(scene, Bucket(scene.seed, f"trouble-{next(_numbers)}", s3.endpoint, **options), folder / "job")


class Trouble:
    """Spoils requests for some seconds, from the first checkpoint that goes to the store on."""

    def __init__(self, fault: str, seconds: float, most: float = float("inf")) -> None:
        self.fault, self.seconds, self.left = fault, seconds, most
        self.began = 0.0

    def __call__(self, method: str, path: str) -> str | None:
        if not self.began and method == "PUT" and "/checkpoints/" in path:
            self.began = time.monotonic()
        if not self.began or time.monotonic() - self.began > self.seconds or self.left < 1:
            return None
        self.left -= 1
        return self.fault


@pytest.mark.parametrize("fault", ["503", "drop_request"])
def test_a_store_that_is_down_for_a_minute(fault: str, calm: Calm, s3: Any, tmp_path: Path) -> None:
    job = job_on(s3, calm.scene, tmp_path)
    trouble = Trouble(fault, 60.0)
    s3.plan = staticmethod(trouble)
    assert job.end(patience=600) == 0, job.printed()
    assert trouble.began
    assert job.outcomes() == ["done"]
    whole(job, calm)


def test_a_store_that_stays_away_ends_it_as_try_again(calm: Calm, s3: Any, tmp_path: Path) -> None:
    job = job_on(s3, calm.scene, tmp_path, retry_seconds=3.0)
    s3.plan = staticmethod(Trouble("503", 1e9))
    assert job.end(machine="here", patience=600) == TryAgain.exit_code, job.printed()
    assert "kept failing" in job.log("here").read_text()
    s3.plan = staticmethod(lambda method, path: None)
    job.finish()
    assert job.outcomes() == ["", "done"], "nobody could be told of the first end but the engine"
    whole(job, calm)


def test_a_token_that_expires_in_the_middle_is_asked_for_again(calm: Calm, s3: Any, tmp_path: Path) -> None:
    job = job_on(s3, calm.scene, tmp_path)
    trouble = Trouble("400", 1e9, most=1)
    s3.plan = staticmethod(trouble)
    assert job.end(patience=600) == 0, job.printed()
    assert trouble.left == 0
    whole(job, calm)


def test_a_token_that_stays_expired_ends_it_as_try_again(calm: Calm, s3: Any, tmp_path: Path) -> None:
    job = job_on(s3, calm.scene, tmp_path)
    s3.plan = staticmethod(Trouble("400", 1e9))
    assert job.end(machine="here", patience=300) == TryAgain.exit_code, job.printed()
    printed = job.log("here").read_text()
    assert "have expired" in printed
    assert "SeCrEt" not in printed
    s3.plan = staticmethod(lambda method, path: None)
    job.finish()
    whole(job, calm)


def test_a_log_of_a_hundred_megabytes(calm: Calm, s3: Any, tmp_path: Path) -> None:
    job = job_on(s3, calm.scene, tmp_path)
    assert job.end(patience=600, WFM_TEST_CHATTER=str(1_000_000 // STEPS)) == 0, job.printed()
    whole(job, calm)
    kept = job.run.read_log("node")
    assert len(kept) <= KEPT_BYTES + 2 * PIECE_BYTES
    assert f"{STEPS} steps" in kept or "steps in" in kept, "how it ended is kept"
    assert "left out" in kept, "what is not there is said"
