"""Two copies of a stage that are started at once, on two machines, commit once."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.kills import Calm, whole
from tests.faults.stage_runs import PATIENCE, Job

LEASE = "20"  # seconds: nobody is taken for dead here, however busy the machine is


def both(calm: Calm, folder: Path) -> None:
    job = Job(calm.scene, calm.new_place(folder / "store"), folder / "job")
    copies = [job.start(WFM_LEASE_SECONDS=LEASE)[0] for _ in range(2)]
    for copy in copies:
        copy.join(PATIENCE)
    assert [copy.exitcode for copy in copies] == [0, 0], job.printed()
    assert sorted(job.outcomes()) == ["cached", "done"], "the work is done once"
    key = calm.undisturbed.key
    attempts = [path for path in job.place.files() if path.startswith(f"artifacts/{key}/attempts/")]
    assert len({path.split("/")[3] for path in attempts}) == 1
    whole(job, calm)


def test_on_a_disk(calm: Callable[[str, str], Calm], tmp_path: Path) -> None:
    both(calm("encode_latents", "disk"), tmp_path)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", ["disk", "s3"])
@pytest.mark.parametrize("scene", ["split_clips", "encode_latents", "train_world_model"])
def test_everywhere(scene: str, kind: str, calm: Callable[[str, str], Calm], tmp_path: Path) -> None:
    both(calm(scene, kind), tmp_path)
