"""Every place where a stage may die: its name is found in the sources, stands in the table here, and a stage is killed there.

The table says which scenes pass a point and what their death leaves. Each point is tried here by one stage on a disk, but for
those that leave what another leaves and those of S3 alone, which are for the long tests; all of them, at their first pass and
their last, in every scene and on S3 too, by `test_kill_matrix.py` (``make crash-matrix``).
"""

import ast
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from components.derivation import ROOT
from tests.faults.kills import Calm, kill_and_finish

SPLIT, ENCODE, RANGE, TRAIN = "split_clips", "encode_latents", "encode_latents --parts", "train_world_model"
RANKS = "train_world_model ranks=2"
SCENES = (SPLIT, ENCODE, RANGE, TRAIN, RANKS)
WHOLE, PARTS, TRAININGS = (SPLIT, ENCODE, TRAIN, RANKS), (SPLIT, ENCODE, RANGE), (TRAIN, RANKS)


class Point(NamedTuple):
    """What is known of a place where a stage may die."""

    passed_by: tuple[str, ...]
    leaves: str
    "What a death there leaves behind, at the last pass."
    committed: bool | None = False
    """Whether the artifact is there after a death at the last pass. None: a thread passes it (heart beat, uploads), how often
    is a matter of time; its first pass is meant."""
    on: tuple[str, ...] = ("disk", "s3")
    "Kinds of stores where it is passed."
    of_manifest: bool = False
    "The pass of the artifact's manifest is meant, not the last one."
    resumed: bool = False
    "Only a start after a death passes it."


DISK, S3 = ("disk",), ("s3",)
TABLE: dict[str, Point] = {
    # the record of the try, the lease
    "after_attempt_open": Point(SCENES, "the record of a try that never said how it ended"),
    "lease_recorded": Point(SCENES, "a lease that never beat"),
    "after_lease": Point(SCENES, "a lease that nobody renews"),
    "before_release": Point(SCENES, "the lease of what is committed", committed=True),
    "lease_released": Point(SCENES, "a released lease with its last beat", committed=True),
    # the work
    "attempt_opened": Point(SCENES, "an empty folder"),
    "before_run": Point(WHOLE, "an empty folder and the lease"),
    "before_ranks_are_told": Point(WHOLE, "a lease, and ranks that wait"),
    "item_noted": Point((SPLIT,), "the note of a video that nobody works on: no proof against it"),
    "item_done": Point((SPLIT,), "the same, of one that went well"),
    "before_part_commit": Point(PARTS, "a part's files without a manifest"),
    "after_part_commit": Point(PARTS, "a part whose lease nobody gives back"),
    "after_part": Point(PARTS, "all parts and no artifact"),
    "after_range": Point((RANGE,), "parts, leases given back, and a try that did not say so"),
    "after_run": Point(WHOLE, "the artifact's files without a manifest"),
    "after_step": Point(TRAININGS, "all steps, the last of them in no checkpoint"),
    "before_checkpoint": Point(TRAININGS, "the same"),
    "half_checkpoint": Point(TRAININGS, "a nameless folder with half of a checkpoint"),
    "checkpoint_unnamed": Point(TRAININGS, "a whole checkpoint without its name"),
    "checkpoint_named": Point(TRAININGS, "one checkpoint more than are kept"),
    "after_checkpoint": Point(TRAININGS, "all checkpoints and no model"),
    "before_end": Point(TRAININGS, "the same"),
    # checkpoints in the store
    "half_checkpoint_upload": Point(TRAININGS, "some files of a checkpoint", committed=None),
    "before_checkpoint_manifest": Point(TRAININGS, "all files of a checkpoint without a record", committed=None),
    "after_checkpoint_manifest": Point(TRAININGS, "one checkpoint more than are kept", committed=None),
    "half_checkpoint_prune": Point(TRAININGS, "files of an old checkpoint without a record", committed=None),
    "half_checkpoint_fetch": Point(TRAININGS, "half of a checkpoint on the new machine", committed=None, resumed=True),
    # the commit
    "files_hashed": Point(SCENES, "files that may not be durable"),
    "file_uploaded": Point(SCENES, "some of the files", on=S3),
    "files_durable": Point(SCENES, "all files and no manifest"),
    "manifest_written": Point(SCENES, "an artifact without a name", committed=True),
    "after_commit": Point(WHOLE, "scratch of a key that is done", committed=True),
    # what is told of it
    "before_promotion": Point(WHOLE, "an artifact without a name", committed=True),
    "name_promoted": Point(WHOLE, "an artifact whose key nobody was told", committed=True),
    "before_key_out": Point(WHOLE, "the same", committed=True),
    "before_outcome": Point(SCENES, "a try that did all and did not say so", committed=True),
    "after_outcome": Point(SCENES, "nothing", committed=True),
    # files that get their names
    "new_file_unnamed": Point(SCENES, "a nameless file: the manifest", on=DISK, of_manifest=True),
    "new_file_named": Point(SCENES, "a second name of the manifest", committed=True, on=DISK, of_manifest=True),
    "replacement_unnamed": Point(SCENES, "a nameless file", committed=None),
}


def literals() -> Iterator[tuple[str, str]]:
    """(name, place) of every point in the sources. Fails for one whose name is no literal."""
    for path in sorted(
        path for package in ("wfm", "components", "pipelines") for path in (ROOT / package).rglob("*.py")
    ):
        yield from points_in(path.read_text(), path.relative_to(ROOT).as_posix())


def points_in(source: str, where: str) -> Iterator[tuple[str, str]]:
    """Those of one file."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or "crash_point" not in (
            getattr(node.func, "id", ""),
            getattr(node.func, "attr", ""),
        ):
            continue
        place = f"{where}:{node.lineno}"
        given = node.args[0] if len(node.args) == 1 and not node.keywords else None
        assert isinstance(given, ast.Constant), (
            f"{place}: a crash point's name is one literal string, so that it is found"
        )
        assert isinstance(given.value, str), f"{place}: a crash point's name is one literal string, so that it is found"
        yield given.value, place


def test_every_point_of_the_sources_stands_in_the_table() -> None:
    found = list(literals())
    twice = {name for name, count in Counter(name for name, _ in found).items() if count > 1}
    assert not twice, f"a name is one place: {[place for name, place in found if name in twice]}"
    untested = [f"{name} ({place})" for name, place in found if name not in TABLE]
    assert not untested, f"say in TABLE what must come out after a death at {untested}"
    assert TABLE.keys() == {name for name, _ in found}, "the table names points that are gone"


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("crash_point(name)", "literal"),
        ("crash_point(f'after_{name}')", "literal"),
        ("crash_points.crash_point(3)", "literal"),
        ("crash_point('a', 'b')", "literal"),
        ("crash_point(name='a')", "literal"),
    ],
)
def test_a_point_without_a_plain_name_is_red(source: str, fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        list(points_in(source, "somewhere.py"))


def test_a_point_is_found_wherever_it_stands() -> None:
    source = "def f():\n    if x:\n        crash_point('inner')\ncrash_points.crash_point('outer')"
    assert sorted(points_in(source, "a.py")) == [("inner", "a.py:3"), ("outer", "a.py:4")]


@pytest.mark.parametrize("scene", SCENES)
def test_a_stage_passes_the_points_that_the_table_says(scene: str, calm: Callable[[str, str], Calm]) -> None:
    passed = set(calm(scene, "disk").undisturbed.order)
    mine = {name: point for name, point in TABLE.items() if scene in point.passed_by and "disk" in point.on}
    assert passed <= mine.keys()
    assert mine.keys() - passed <= {name for name, point in mine.items() if point.committed is None}


def tried() -> Iterator[Any]:
    """The points; as long tests those that leave the same as another, or are passed on S3 alone."""
    for name, point in sorted(TABLE.items()):
        long = point.leaves.startswith("the same") or "disk" not in point.on
        yield pytest.param(name, marks=pytest.mark.long) if long else name


@pytest.mark.parametrize("name", tried())
def test_a_stage_that_died_there_ends_as_if_it_had_not(
    name: str, calm: Callable[[str, str], Calm], tmp_path: Path
) -> None:
    point = TABLE[name]
    scene = ENCODE if ENCODE in point.passed_by else point.passed_by[0]
    there = calm(scene, point.on[0])
    order = there.undisturbed.order
    end = len(order) - order[::-1].index("manifest_written") if point.of_manifest else None
    at = 1 if point.committed is None else order[:end].count(name)
    kill_and_finish(there, name, at, tmp_path, committed=point.committed, resumed=point.resumed)
