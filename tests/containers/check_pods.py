"""The pod itself, as the launcher writes it, played by podman: its command under tini, its user, its folders, its signals.

``podman kube play`` reads the pod of `wfm.cluster.objects.indexed_job` unchanged but for the two things that a cluster adds, a
name and the machine's, and for its annotations, which this podman takes for labels. What it knows nothing of (Kueue, the
default seccomp profile, size limits) is for a cluster to show.
"""

import dataclasses
import functools
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.entrypoint import node_key
from pipelines.stages import stage
from tests.containers.podman import Bridge, image, podman
from tests.faults import stage_runs
from tests.faults.kills import Calm, newest_in_store
from tests.faults.stage_scenes import training
from tests.faults.test_crash_points import TRAIN
from wfm.cluster.objects import indexed_job
from wfm.cluster.request import JobRequest
from wfm.cluster.resources import Resources
from wfm.cluster.settings import ClusterSettings, Images

_numbers = itertools.count(1)


@dataclasses.dataclass
class Pod:
    """One pod of a scene's job, on a bridge where S3 answers."""

    job: stage_runs.Job
    bridge: Bridge
    folder: Path
    name: str = ""

    def __post_init__(self) -> None:
        self.name = f"{self.bridge.name}-pod-{next(_numbers)}"

    def play(self, changed: Callable[[dict[str, Any]], None] = lambda one: None) -> None:
        """Start it; ``changed`` spoils its container."""
        made = self.template()
        made["metadata"] = {"name": self.name, "labels": made["metadata"]["labels"]}
        (one,) = made["spec"]["containers"]
        for variable in one["env"]:
            if variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath") == "spec.nodeName":
                del variable["valueFrom"]  # this machine is no node
                variable["value"] = "here"
        changed(one)
        file = self.folder / f"{self.name}.json"
        file.write_text(json.dumps({"apiVersion": "v1", "kind": "Pod", **made}))
        configured = self.folder / "containers.conf"  # a played pod has no option for it
        configured.write_text('[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]\n')
        podman("kube", "play", "--network", self.bridge.name, str(file), CONTAINERS_CONF=str(configured))

    def template(self) -> dict[str, Any]:
        """Of the pods of the job that a launcher makes."""
        scene = self.job.scene
        role = stage(scene.component).image
        settings = ClusterSettings(
            images=Images(**{role: image(role)}),
            environment={
                "WFM_STORE_OPTIONS": json.dumps(dict(self.job.place.options)),
                "WFM_LEASE_SECONDS": str(stage_runs.LEASE_SECONDS),
            },
        )
        request = JobRequest(
            stage=scene.component, component=scene.component, node="node", kind="container", image=role, key="a" * 64,
            generation=1, run_id=self.job.run.id, spec_url=self.job.spec, inputs=scene.inputs,
            resources=Resources(cpu=1, memory_gib=3, shm_gib=0.25, ephemeral_gib=4, grace_seconds=20), retries=0,
        )  # fmt: skip
        found: dict[str, Any] = indexed_job.build(request, settings, 1, ())["spec"]["template"]
        found["spec"]["restartPolicy"] = "Never"
        return found

    @property
    def container(self) -> str:
        """Podman's name of the only one."""
        return f"{self.name}-{indexed_job.CONTAINER}"

    def wait(self, seconds: float = 300.0) -> int:
        """Its exit code."""
        self.until(lambda: podman("inspect", "--format", "{{.State.Status}}", self.container) == "exited", seconds)
        return int(podman("inspect", "--format", "{{.State.ExitCode}}", self.container))

    def printed(self) -> str:
        """The end of what it printed."""
        return podman("logs", self.container, check=False)[-4000:]

    def until(self, seen: Callable[[], bool], seconds: float = 180.0) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + seconds
        while not seen():
            assert time.monotonic() < deadline, self.printed()
            time.sleep(0.2)

    def remove(self) -> None:
        """Its containers, and the folders that were its own."""
        podman("pod", "rm", "--force", "--time", "0", self.name, check=False)


@pytest.fixture
def pods(calm: Callable[[str, str], Calm], bridge: Bridge, moto: Any, tmp_path: Path) -> Any:
    made: list[Pod] = []
    there = calm(TRAIN, "s3")

    def new(**config: Any) -> Pod:
        scene = dataclasses.replace(there.scene, **config)
        bucket = stage_runs.Bucket(scene.seed, f"pod-{next(_numbers)}", moto.endpoint)
        made.append(Pod(stage_runs.Job(scene, bucket, tmp_path / str(len(made))), bridge, tmp_path))
        return made[-1]

    yield there, new
    for pod in made:
        pod.remove()


def test_a_pod_as_it_is_written_makes_the_artifact(pods: Any) -> None:
    there, new = pods
    pod = new()
    pod.play()
    assert pod.wait() == 0, pod.printed()
    assert "root" not in podman("inspect", "--format", "{{.Config.User}}", pod.container)
    (attempt,) = pod.job.run.read_outcomes("node")
    outcome = attempt.outcome or {}
    assert (outcome["outcome"], outcome["key"]) == ("done", there.undisturbed.key)
    assert pod.job.store.artifact(outcome["key"]).manifest.digest == there.undisturbed.digest


def test_process_1_of_a_pod_passes_on_what_a_kubelet_sends(pods: Any) -> None:
    _, new = pods
    pod = new(config=training(100_000, 20))
    scene = pod.job.scene
    spec = {"component": scene.component, "stage": scene.component, "config": {**scene.config}}
    key = node_key(spec, {**scene.inputs}, pod.job.store)
    pod.play()
    pod.until(lambda: newest_in_store(pod.job, key) > 0)
    assert podman("exec", pod.container, "cat", "/proc/1/cmdline").split("\0")[:2] == ["tini", "--"]
    podman("kill", "--signal", "TERM", pod.container)
    assert pod.wait(40) == 143, pod.printed()
    assert pod.job.outcomes() == ["cancelled"]


def test_a_stage_as_process_1_would_not_hear_it_while_it_begins(pods: Any) -> None:
    """Why tini is there: the kernel gives process 1 no signal that it has no handler for."""
    _, new = pods

    def bare(one: dict[str, Any]) -> None:
        one["command"] = ["python", "-c", "import time; print('up', flush=True); time.sleep(6)"]

    def under_tini(one: dict[str, Any]) -> None:
        bare(one)
        one["command"] = ["tini", "--", *one["command"]]

    ends = []
    for how in (bare, under_tini):
        pod = new()
        pod.play(how)
        pod.until(functools.partial(says_it_is_up, pod))
        podman("kill", "--signal", "TERM", pod.container)
        ends.append(pod.wait(20))
    assert ends == [0, 143]


def says_it_is_up(pod: Pod) -> bool:
    return "up" in pod.printed()
