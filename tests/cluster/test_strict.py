"""The checker itself: a twin of a good object with one fault is refused, whatever kind of fault it is."""

import copy
import datetime
from collections.abc import Callable
from typing import Any

import pytest

from tests.cluster import field_names, strict
from tests.wfm.cluster.lint import good
from tests.wfm.cluster.requests import request, settings
from wfm.cluster.objects import build, trainjob

Json = dict[str, Any]


def job(kind: str) -> Json:
    if kind == "TrainingRuntime":
        return trainjob.runtime(settings())
    if kind.endswith(("Workflow", "WorkflowTemplate")):
        return good.cron() if kind == "CronWorkflow" else good.workflow(kind)
    stage = {"DaskJob": "embed_clips", "Job": "select_clips"}.get(kind, "train_world_model")
    return build(request(stage), settings(training_job="trainjob" if kind == "TrainJob" else "pytorchjob"))


def worker(made: Json) -> Json:
    found: Json = made["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]
    return found


def twice(values: list[Json]) -> None:
    values.append(copy.deepcopy(values[0]))


FAULTS: dict[str, tuple[str, Callable[[Json], Any], str]] = {
    "misspelt in the spec": (
        "PyTorchJob",
        lambda it: it["spec"].update(nProcPerNode="8"),
        "unknown field 'nProcPerNode'",
    ),
    "misspelt in a pod": ("PyTorchJob", lambda it: worker(it).update(volumeMount=[]), "unknown field 'volumeMount'"),
    "misspelt in a patch": (
        "TrainJob",
        lambda it: it["spec"]["runtimePatches"][0]["trainingRuntimeSpec"].update(templates={}),
        "unknown field 'templates'",
    ),
    "misspelt at the top": ("DaskJob", lambda it: it.update(specs={}), "unknown field 'specs'"),
    "misspelt metadata": ("DaskJob", lambda it: it["metadata"].update(label={}), "'label' was unexpected"),
    "what the schema drops": (
        "DaskJob",
        lambda it: it["spec"]["cluster"].update(metadata={}),
        "unknown field 'metadata'",
    ),
    "text for a number": ("PyTorchJob", lambda it: it["spec"]["elasticPolicy"].update(minReplicas="1"), "no integer"),
    "a number for text": ("PyTorchJob", lambda it: it["spec"].update(nprocPerNode=8), "no string"),
    "truth for a number": ("TrainJob", lambda it: it["spec"]["trainer"].update(numNodes=True), "no integer"),
    "an object for a list": ("DaskJob", lambda it: it["spec"]["job"]["spec"].update(containers={}), "no array"),
    "null": ("PyTorchJob", lambda it: it["spec"].update(nprocPerNode=None), "null"),
    "none of the choices": (
        "TrainingRuntime",
        lambda it: it["spec"]["template"]["spec"]["failurePolicy"].update(restartStrategy="Again"),
        "is none of",
    ),
    "missing": ("TrainJob", lambda it: it["spec"]["runtimeRef"].pop("name"), "'name' is missing"),
    "no quantity": (
        "PyTorchJob",
        lambda it: worker(it)["resources"]["limits"].update(memory="2 GiB"),
        "is not of the form",
    ),
    "beyond 32 bits": (
        "PyTorchJob",
        lambda it: it["spec"]["elasticPolicy"].update(maxReplicas=2**31),
        "no int32",
    ),
    "a name twice": ("TrainJob", lambda it: twice(it["spec"]["trainer"]["env"]), "stands there twice"),
    "a rule of the kind": ("TrainJob", lambda it: it["metadata"].update(name="9-lives"), "RFC 1035"),
    "a name too long": ("TrainJob", lambda it: it["metadata"].update(name="a" * 64), "63"),
    "a key in a label": ("PyTorchJob", lambda it: it["metadata"]["labels"].update(key="0" * 64), "no value of a label"),
    "a pod of the wrong type": (
        "PyTorchJob",
        lambda it: worker(it)["securityContext"].update(readOnlyRootFilesystem="yes"),
        "no boolean",
    ),
    "misspelt in a Job": ("Job", lambda it: it["spec"].update(backoffLimitPerIndexes=1), "unexpected"),
    "a Job of the wrong type": ("Job", lambda it: it["spec"].update(completions="1"), "is not of type 'integer'"),
    "a kind that is none": ("Job", lambda it: it.update(kind="Jobs"), "find schema"),
    "misspelt in a template": (
        "WorkflowTemplate",
        lambda it: it["spec"]["templates"][1].update(pendingTimeouts="1m"),
        "unknown field 'pendingTimeouts'",
    ),
    "misspelt in a container of Argo's": (
        "Workflow",
        lambda it: it["spec"]["templates"][1]["container"].update(volumeMount=[]),
        "unknown field 'volumeMount'",
    ),
    "the field of version 3": (
        "CronWorkflow",
        lambda it: it["spec"].update(schedule="0 3 * * *"),
        "unknown field 'schedule'",
    ),
    "two kinds of template": (
        "ClusterWorkflowTemplate",
        lambda it: it["spec"]["templates"][1].update(suspend={}),
        "at most one template type",
    ),
    "too many tasks": (
        "Workflow",
        lambda it: it["spec"]["templates"][0]["dag"]["tasks"].extend({"name": f"t{n}"} for n in range(201)),
        "(Items)",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_twin_is_refused(fault: str) -> None:
    kind, change, says = FAULTS[fault]
    made = job(kind)
    assert made["kind"] == kind
    assert strict.faults(made) == []
    change(made)
    found = strict.faults(made)
    assert any(says in one for one in found), found


def test_every_rule_of_every_schema_is_checked_or_named_as_not() -> None:
    assert strict.rules() == {*strict.RULES, *strict.NOT_CHECKED}


def test_the_lint_knows_every_field_by_name_and_no_other() -> None:
    assert field_names.FILE.read_text() == field_names.text(), "run python -m tests.cluster.field_names"


FLAVOR = {"name": "a", "resources": [{"name": "cpu"}]}
PAIRS: dict[str, tuple[Any, Any]] = {
    "self.metadata.name.matches": ({"metadata": {"name": "a-1"}}, {"metadata": {"name": "a-"}}),
    "size(self.metadata.name)": ({"metadata": {"name": "a" * 63}}, {"metadata": {"name": "a" * 64}}),
    "self == ''": ("s3://bucket", "bucket"),
    "trainjob-controller": ("kueue.x-k8s.io/multikueue", "somebody"),
    "self.lastUpdatedTime": ({"lastUpdatedTime": "now"}, {}),
    "has(self.torch), has(self.mpi)": ({"torch": {}}, {"torch": {}, "flux": {}}),
    "self >= 1": (1, 0),
    "c == 'node'": (["other"], ["node"]),
    "startupPolicyOrder": (
        {"startupPolicy": {"startupPolicyOrder": "AnyOrder"}, "replicatedJobs": [{"dependsOn": []}]},
        {"startupPolicy": {"startupPolicyOrder": "InOrder"}, "replicatedJobs": [{"dependsOn": []}]},
    ),
    "self.templates.all": ({"templates": [{"metadata": {}}]}, {"templates": [{"metadata": {"namespace": "a"}}]}),
    "has(self.priorityClassName) ?": ({"priorityClassName": "a", "priority": 1}, {"priorityClassName": "a"}),
    "self.minCount <= self.count": ({"count": 2, "minCount": 2}, {"count": 2, "minCount": 3}),
    "!has(x.key) ?": ([{"operator": "Exists"}], [{"operator": "Equal"}]),
    "x.tolerationSeconds": ([{"tolerationSeconds": 1, "effect": "NoExecute"}], [{"tolerationSeconds": 1}]),
    "x.operator in": ([{"operator": "Equal"}], [{"operator": "Like"}]),
    "!has(x.value) : true": ([{"operator": "Exists"}], [{"operator": "Exists", "value": "a"}]),
    "!has(x.effect) ||": ([{}], [{"effect": "Never"}]),
    "self.all(x, x.effect in": ([{"effect": "NoExecute"}], [{}]),
    "!has(self.priorityClassRef)": ({"priorityClassRef": {}, "priority": 1}, {"priorityClassRef": {}}),
    "== 'scheduling.k8s.io')": (
        {"group": "scheduling.k8s.io", "kind": "PriorityClass"},
        {"group": "scheduling.k8s.io", "kind": "WorkloadPriorityClass"},
    ),
    "== 'kueue.x-k8s.io')": (
        {"group": "kueue.x-k8s.io", "kind": "WorkloadPriorityClass"},
        {"group": "kueue.x-k8s.io", "kind": "PriorityClass"},
    ),
    "size(self.coveredResources)": (
        {"coveredResources": ["cpu"], "flavors": [FLAVOR]},
        {"coveredResources": ["cpu", "memory"], "flavors": [FLAVOR]},
    ),
    "j == i": ([{"nodeLabel": "a"}, {"nodeLabel": "b"}], [{"nodeLabel": "a"}, {"nodeLabel": "a"}]),
    "i.nodeLabel ==": (
        [{"nodeLabel": "rack"}, {"nodeLabel": "kubernetes.io/hostname"}],
        [{"nodeLabel": "kubernetes.io/hostname"}, {"nodeLabel": "rack"}],
    ),
    **{
        f"!has(self.{name}) && has(self.resourceGroups)": (
            {name: "all", "resourceGroups": [{"flavors": [{"resources": [{"borrowingLimit": 1}]}]}]},
            {"resourceGroups": [{"flavors": [{"resources": [{"borrowingLimit": 1}]}]}]},
        )
        for name in ("cohort", "cohortName")
    },
    "!has(self.preference)": (
        {"preference": "a", "whenCanBorrow": "TryNextFlavor", "whenCanPreempt": "TryNextFlavor"},
        {"preference": "a", "whenCanBorrow": "Borrow", "whenCanPreempt": "TryNextFlavor"},
    ),
    "self.reclaimWithinCohort": (
        {"reclaimWithinCohort": "Any", "borrowWithinCohort": {"policy": "LowerPriority"}},
        {"reclaimWithinCohort": "Never", "borrowWithinCohort": {"policy": "LowerPriority"}},
    ),
    "!has(self.topologyName) || self.nodeLabels": (
        {"topologyName": "a", "nodeLabels": {"b": "c"}},
        {"topologyName": "a"},
    ),
    "!has(self.clusterName) ||": (
        {"clusterName": "a", "nominatedClusterNames": []},
        {"clusterName": "a", "nominatedClusterNames": ["b"]},
    ),
    "has(t.container)": ([{"container": {}}, {"dag": {}}], [{"container": {}, "dag": {}}]),
    "has(self.s3)": ({"s3": {}}, {"s3": {}, "gcs": {}}),
    "has(t.activeDeadlineSeconds)": (
        [{"activeDeadlineSeconds": 1, "container": {}}],
        [{"activeDeadlineSeconds": 1, "dag": {}}],
    ),
    "has(t.timeout)": ([{"timeout": "", "steps": []}], [{"timeout": "1h", "steps": []}]),
    "!has(self.dependencies)": ({"depends": "a"}, {"depends": "a", "dependencies": ["a"]}),
    "!has(self.continueOn)": ({"continueOn": {}}, {"depends": "a", "continueOn": {}}),
    "matches('^[0-9]')": ({"name": "a1", "depends": "b"}, {"name": "1a", "depends": "b"}),
    "has(self.count)": ({"count": 1}, {"count": 1, "end": 2}),
    "!has(self.manifestFrom)": ({"manifest": ""}, {"manifest": "", "manifestFrom": {}}),
    "has(self.realtime)": (
        {"realtime": False, "value": "resourcesDuration.cpu"},
        {"realtime": True, "value": "resourcesDuration.cpu"},
    ),
}
"""Words of a rule -> what it lets pass, what it refuses."""


@pytest.mark.parametrize("words", PAIRS)
def test_a_rule_lets_one_pass_and_refuses_its_twin(words: str) -> None:
    (rule,) = [rule for rule in strict.RULES if words in rule]
    good, bad = PAIRS[words]
    assert strict.RULES[rule](good)
    assert not strict.RULES[rule](bad)


def test_every_rule_has_its_twins() -> None:
    assert all(any(words in rule for words in PAIRS) for rule in strict.RULES)


def test_the_rules_of_a_runtime_hold_and_are_broken_by_two_frameworks() -> None:
    made = trainjob.runtime(
        settings(secrets=["store"], pod_priority="high", image_pull_secrets=["pull"], service_account="a")
    )
    assert strict.faults(made) == []
    made["spec"]["mlPolicy"]["jax"] = {}
    assert len(strict.faults(made)) == 1


def test_formats_of_moments() -> None:
    schema = {"type": "string", "format": "date-time"}
    now = datetime.datetime.now(datetime.UTC).isoformat()
    assert list(strict._checked(schema, now, "at")) == []
    assert list(strict._checked(schema, "yesterday", "at")) == ["at: 'yesterday' is no date-time"]
