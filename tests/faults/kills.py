"""Kill a stage at a point, start it again on a machine that has seen nothing, and compare the end with that of a calm run."""

import dataclasses
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults.stage_runs import LEASE_SECONDS, Job, Place, Scene, Undisturbed, content, left_after_collection
from tests.faults.stage_scenes import INTERVAL
from wfm.curation import poison


@dataclasses.dataclass(frozen=True)
class Calm:
    """A scene, stores for it, and how it ends when nobody is killed."""

    scene: Scene
    undisturbed: Undisturbed
    new_place: Callable[[Path], Place]
    "A new store that holds the inputs; the folder is for those on disk."
    job: type[Job] = Job
    "How the stage is started: as a process here, or in a container."


def kill_and_finish(
    calm: Calm, name: str, at: int, folder: Path, *, committed: bool | None = None, resumed: bool = False
) -> None:
    """``at``: the number of the pass. ``committed``: whether the artifact must be there then; None: either. ``resumed``: a
    death comes before, in the middle of the work, since only who goes on from there passes the point."""
    order = calm.undisturbed.order
    passes = [index for index, passed in enumerate(order) if passed == name]
    job = calm.job(calm.scene, calm.new_place(folder / "store"), folder / "job")
    if resumed:
        assert job.end(f"after_step:{2 * INTERVAL + INTERVAL // 2}/0") == -signal.SIGKILL
        job.move()
        if calm.scene.ranks > 1:
            time.sleep(LEASE_SECONDS)
    code = job.end(f"{name}:{at}/0", arguments=calm.scene.calls()[0])
    assert code == -signal.SIGKILL, f"it did not die at pass {at} of {name}: exit code {code}\n{job.printed()}"
    key, found = calm.undisturbed.key, job.store.has(calm.undisturbed.key)
    safe = newest_in_store(job, key)
    assert found == committed or committed is None, (
        f"after a death at {name} the artifact is {'there' if found else 'not there'}"
    )
    if not found:
        assert not list(job.store.names.all(calm.scene.kind)), "a name without an artifact"
    job.finish()
    assert job.key == key
    whole(job, calm)
    first, *others = job.outcomes()[int(resumed) :]
    assert [end for end in others if end != "try_again" or calm.scene.ranks == 1] == (
        ["cached" if found else "done"] * len(calm.scene.calls())
    )
    told = name == "after_outcome" or (name == "new_file_named" and at == len(passes))
    assert first in ([""] if not told else ["done"]) or (first == "try_again" and calm.scene.ranks > 1), first
    if calm.scene.component.startswith("train") and not found:
        went_on = job.artifact().manifest.extra["resumed_from"]
        assert went_on == safe, f"the store had the checkpoint of step {safe}, and it went on from step {went_on}"
        if passes and committed is not None:
            lost = order[: passes[at - 1] + 1].count("after_step") - went_on
            assert lost <= INTERVAL, f"{lost} steps were lost: an interval is {INTERVAL}"


def newest_in_store(job: Job, key: str) -> int:
    """Step of the newest checkpoint that is committed; 0 when there is none."""
    names = [name for name in job.store.objects.names(f"checkpoints/{key}") if name.endswith(".json")]
    return max((int(name.split("-")[1]) for name in names), default=0)


def whole(job: Job, calm: Calm) -> None:
    """The bytes of a calm run under the same key, sound; its name; nothing poisoned, no lease held, nothing left behind."""
    key = calm.undisturbed.key
    assert content(job) == calm.undisturbed.digest, "other bytes than those of an undisturbed run"
    report = job.store.verify(key)
    assert report.ok, report.problems
    assert job.store.resolve(f"{calm.scene.kind}/named@latest") == key
    assert not poison.poisoned(job.store)
    assert not job.store.objects.names("poison/split"), "a note of an item that nobody works on"
    left = left_after_collection(job)
    assert not left - calm.undisturbed.files, f"garbage collection leaves {sorted(left - calm.undisturbed.files)}"
    assert not calm.undisturbed.files - left, f"gone: {sorted(calm.undisturbed.files - left)}"
    job.store.lease(key).acquire(wait_seconds=4 * LEASE_SECONDS).release()
