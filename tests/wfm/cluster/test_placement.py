"""Ranks lie together, workers apart, and on machines that may go only what says that it can take it."""

import json
from typing import Any

import pytest

from tests.cluster.strict import faults, pods
from tests.cluster.world import settings
from tests.wfm.cluster.requests import request
from wfm.cluster.entry import object_of
from wfm.cluster.lint import lint
from wfm.cluster.names import LABEL_JOB
from wfm.cluster.resources import Resources

SPOT = {"key": "karpenter.sh/capacity-type", "operator": "Equal", "value": "spot", "effect": "NoSchedule"}
CHOICES: dict[str, Any] = {
    "spot_tolerations": [SPOT], "gang_topology": "rack", "spread_topology": "topology.kubernetes.io/zone",
    "integrations": ["pytorchjob", "trainjob", "job", "jobset", "pod", "deployment"],
}  # fmt: skip


def specs(kind: str, training: str = "pytorchjob", queue: str = "", **resources: Any) -> list[dict[str, Any]]:
    """Pod specs (of a TrainJob: what it changes in one) of a node."""
    chosen = settings(**CHOICES, training_job=training, queue=queue)
    made = object_of(
        request(kind=kind, resources={"gpu": 1, "replicas": 4, "ephemeral_gib": 20.0, **resources}), chosen
    )
    assert faults(made) == []
    if not queue:
        assert lint([made], chosen) == []
    if training == "trainjob":
        (patch,) = made["spec"]["runtimePatches"]
        (job,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
        return [job["template"]["spec"]["template"]["spec"]]
    return [pod["spec"] for _, pod in pods(made)]


@pytest.mark.parametrize("training", ["pytorchjob", "trainjob"])
def test_ranks_lie_together(training: str) -> None:
    (spec,) = specs("torchjob", training)
    (wish,) = spec["affinity"]["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert wish["podAffinityTerm"]["topologyKey"] == "rack"
    assert list(wish["podAffinityTerm"]["labelSelector"]["matchLabels"]) == [LABEL_JOB]
    assert "topologySpreadConstraints" not in spec


@pytest.mark.parametrize("training", ["pytorchjob", "trainjob"])
def test_in_a_queue_kueue_is_told_and_no_affinity_contradicts_it(training: str) -> None:
    chosen = settings(**CHOICES, training_job=training, queue="research")
    made = object_of(request(kind="torchjob", resources={"gpu": 1, "replicas": 4, "ephemeral_gib": 20.0}), chosen)
    assert '"kueue.x-k8s.io/podset-preferred-topology": "rack"' in json.dumps(made)
    assert "podAffinity" not in str(made)


def test_workers_and_ranges_are_spread_and_runner_and_scheduler_are_not() -> None:
    spread = [spec for spec in specs("daskjob") if "topologySpreadConstraints" in spec]
    assert [spec["containers"][0]["name"] for spec in spread] == ["worker"]
    chosen = settings(**CHOICES, queue="")
    ranged = object_of(request(kind="container", parts=8, resources={"replicas": 4}), chosen)
    assert ranged["spec"]["completions"] == 8
    ranges = next(pods(ranged))[1]["spec"]
    (constraint,) = ranges["topologySpreadConstraints"]
    assert constraint["whenUnsatisfiable"] == "ScheduleAnyway", "a full zone keeps nobody waiting"
    assert "topologySpreadConstraints" not in specs("container")[0]


def test_what_can_be_lost_bears_spot_and_nothing_else() -> None:
    def bears(spec: dict[str, Any]) -> bool:
        return SPOT in spec.get("tolerations", [])

    assert [spec["containers"][0]["name"] for spec in specs("daskjob", spot=True) if bears(spec)] == ["worker"]
    assert all(bears(spec) for spec in specs("torchjob", spot=True))
    assert not any(bears(spec) for kind in ("daskjob", "torchjob", "container") for spec in specs(kind))
    assert Resources(spot=True).runner().spot is False


def test_without_these_settings_nothing_is_said() -> None:
    made = object_of(request(kind="torchjob", resources={"gpu": 1, "replicas": 4, "spot": True}), settings(queue=""))
    assert not {"affinity", "topologySpreadConstraints", "tolerations"} & set(next(pods(made))[1]["spec"])
