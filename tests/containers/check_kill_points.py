"""Stages that die in containers, at every point of the table, and go on in a fresh container with an empty cache.

On moto over the bridge; what only a disk has, and what a mounted folder may do otherwise, on a folder too. How an undisturbed
stage ends is told by one that ran on this machine in no container: the same key, the same bytes.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.containers.container_job import ContainerJob
from tests.containers.podman import Bridge
from tests.faults import stage_runs
from tests.faults.kills import Calm, kill_and_finish
from tests.faults.test_crash_points import ENCODE, RANKS, TABLE, TRAIN

_buckets = itertools.count()
ON_A_FOLDER = ("lease_recorded", "after_part_commit", "checkpoint_named", "manifest_written", "after_outcome")
OF_RANKS = ("before_ranks_are_told", "after_step", "checkpoint_unnamed", "manifest_written")


def rows() -> Iterator[tuple[str, str, str]]:
    """(point, scene, kind of store)."""
    for name, point in sorted(TABLE.items()):
        scene = ENCODE if ENCODE in point.passed_by else point.passed_by[0]
        if "s3" in point.on:
            yield name, scene, "s3"
        if "s3" not in point.on or name in ON_A_FOLDER:
            yield name, scene, "disk"
        if name in OF_RANKS and TRAIN in point.passed_by:
            yield name, RANKS, "s3"


@pytest.mark.parametrize(("name", "scene", "kind"), rows())
def test_a_stage_that_died_in_a_container_ends_as_if_it_had_not(
    name: str, scene: str, kind: str, calm: Callable[[str, str], Calm], bridge: Bridge, moto: Any, tmp_path: Path
) -> None:
    point, there = TABLE[name], calm(scene, kind)

    def bucket(_: Path) -> stage_runs.Bucket:
        return stage_runs.Bucket(there.scene.seed, f"container-{next(_buckets)}", moto.endpoint)

    ContainerJob.bridge = bridge
    places: Any = bucket if kind == "s3" else functools.partial(stage_runs.Disk, there.scene.seed)
    order = there.undisturbed.order
    end = len(order) - order[::-1].index("manifest_written") if point.of_manifest else None
    at = 1 if point.committed is None else order[:end].count(name)
    inside = dataclasses.replace(there, new_place=places, job=ContainerJob)
    kill_and_finish(inside, name, at, tmp_path, committed=point.committed, resumed=point.resumed)
