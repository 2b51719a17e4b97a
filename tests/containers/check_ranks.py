"""A world model that two containers train together: gloo over a bridge, the store on moto behind it."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from components.entrypoint import node_key
from tests.containers.container_job import ContainerJob
from tests.containers.podman import Bridge
from tests.faults.kills import Calm, newest_in_store, whole
from tests.faults.stage_runs import LEASE_SECONDS, Bucket
from tests.faults.stage_scenes import training
from tests.faults.test_crash_points import RANKS


def test_two_ranks_in_two_containers_make_what_two_processes_of_one_machine_make(
    calm: Callable[[str, str], Calm], bridge: Bridge, moto: Any, tmp_path: Path
) -> None:
    there = calm(RANKS, "s3")
    ContainerJob.bridge = bridge
    job = ContainerJob(there.scene, Bucket(there.scene.seed, "two-ranks", moto.endpoint), tmp_path / "job")
    assert job.end() == 0, job.printed()
    assert job.key == there.undisturbed.key
    whole(job, dataclasses.replace(there, job=ContainerJob))
    (attempt,) = job.run.read_outcomes("node")
    assert attempt.record["ranks"] == 2
    print(f"two ranks in two containers: key {job.key[:12]}, the bytes of two processes on one machine")


def test_a_pod_that_is_told_to_go_stops_both_ranks_and_new_ones_go_on(
    calm: Callable[[str, str], Calm], bridge: Bridge, moto: Any, tmp_path: Path
) -> None:
    scene = dataclasses.replace(calm(RANKS, "s3").scene, config=training(100_000, 20))
    ContainerJob.bridge = bridge
    job = ContainerJob(scene, Bucket(scene.seed, "told-to-go", moto.endpoint), tmp_path / "job")
    spec = {"component": scene.component, "stage": scene.component, "config": {**scene.config}}
    key, reached = node_key(spec, {**scene.inputs}, job.store), [0]
    for told in (1, 0):
        ranks = job.start()
        deadline = time.monotonic() + 180
        while newest_in_store(job, key) <= reached[-1]:
            assert time.monotonic() < deadline, job.printed()
            time.sleep(0.2)
        ranks[told].send("TERM")  # to process 1, as a kubelet does
        for rank in ranks:
            rank.join(120)
        assert [rank.exitcode for rank in ranks] == [143, 143], job.printed()
        reached.append(newest_in_store(job, key))
        time.sleep(LEASE_SECONDS)
    assert job.outcomes() == ["cancelled", "cancelled"]
    assert f"resumed at step {reached[1]} of" in job.printed(), "the second two went on from what the first two left"
    print(f"told to go at steps {reached[1:]}: both ranks end with 143, and the next two go on")
