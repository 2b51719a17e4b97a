"""What jobs will ask a queue for: workloads, each admitted as a whole or not at all, of sets of like pods.

A training is one workload (its ranks are a gang), and so is an Indexed Job with as many pods as run side by side. Workers of a
DaskJob are pods of Deployments, each of which is a workload for itself; its runner and scheduler stand in no queue. Kueue:
site/content/en/docs/concepts/workload.md ("Pod sets", "Resource requests"), tasks/run/deployment.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from wfm.cluster.lint.demand import demand
from wfm.cluster.lint.quantity import amount
from wfm.cluster.lint.seen import Pod, Seen, Thing, table, word
from wfm.cluster.lint.templates import look, replicas_at
from wfm.cluster.names import LABEL_NODE
from wfm.cluster.pod import QUEUE, WORKLOAD_PRIORITY
from wfm.cluster.quota.amounts import units
from wfm.cluster.settings import ClusterSettings

TOPOLOGY = "kueue.x-k8s.io/podset-{}-topology"
GROUP = "kueue.x-k8s.io/podset-group-name"
SLICES = "kueue.x-k8s.io/podset-slice-"
LEAST = "kueue.x-k8s.io/job-min-parallelism"
WISHES = ("required", "preferred", "unconstrained")
"""How a set wants to lie in a topology (concepts/topology_aware_scheduling.md, "User-facing APIs")."""
KINDS = ("PyTorchJob", "TrainJob", "JobSet", "Job", "DaskJob")
"""Jobs that are looked at."""


@dataclass(frozen=True)
class PodSet:
    """Like pods of one workload."""

    name: str
    count: int
    requests: Mapping[str, int]
    "Of one pod, in whole units (`amounts`)."
    limits: Mapping[str, int]
    "The same of its limits."
    containers: tuple[tuple[Mapping[str, int], Mapping[str, int]], ...]
    "Requests and limits of each container."
    spec: Mapping[str, Any]
    "The pod's own."
    wish: str = ""
    "One of `WISHES`, or none."
    level: str = ""
    "The label of the level that is wished for."
    group: str = ""
    "Sets of one group get one flavor, and lie in one domain."
    sliced: bool = False
    "Whether it wishes for a place of slices of itself, too."

    def total(self) -> dict[str, int]:
        """What all its pods ask for."""
        return {resource: value * self.count for resource, value in self.requests.items() if value}


@dataclass(frozen=True)
class Gang:
    """What is admitted together, or the like of it several times."""

    job: str
    kind: str
    node: str
    "Node of the pipeline; empty for a job of others."
    namespace: str
    queue: str
    "LocalQueue; empty for what stands in none."
    workload_priority: str
    sets: tuple[PodSet, ...]
    copies: int = 1
    "Workloads of this shape, each admitted for itself: the workers of a DaskJob."
    beside: tuple[PodSet, ...] = ()
    "Pods that stand in no queue, and count for quotas of the namespace all the same."
    whole: bool = True
    "Whether all its pods must be there at once; else they may take turns."
    least: int = 0
    "With so many pods it may be admitted where more do not fit (partial admission); 0: with all or not at all."

    def reduced(self, count: int) -> "Gang":
        """With fewer pods, of one that may have fewer: it has one set."""
        return replace(self, sets=tuple(replace(each, count=count) for each in self.sets))

    @property
    def pods(self) -> int:
        """All that stand side by side."""
        return sum(each.count for each in self.sets) * self.copies + sum(each.count for each in self.beside)

    def total(self) -> dict[str, int]:
        """What one workload asks for."""
        found: dict[str, int] = {}
        for each in self.sets:
            for resource, value in each.total().items():
                found[resource] = found.get(resource, 0) + value
        return found


def gangs(objects: Sequence[Any], settings: ClusterSettings | None) -> list[Gang]:
    """Of every job among the objects, in their order."""
    seen = look(objects, settings)
    return [_gang(seen, thing) for thing in seen.of(*KINDS) if seen.pods_of(thing)]


def _gang(seen: Seen, thing: Thing) -> Gang:
    pods = seen.pods_of(thing)
    labels = table(thing.content, "metadata.labels")
    beside: tuple[PodSet, ...] = ()
    copies = 1
    if thing.kind == "DaskJob":
        workers = [pod for pod in pods if pod.role == "worker"]
        beside = tuple(pod_set(pod, pod.role) for pod in pods if pod.role != "worker")
        sets = tuple(pod_set(pod, "worker", 1) for pod in workers)
        copies = workers[0].replicas if workers else 0
        labels = {**labels, **(table(workers[0].metadata, "labels") if workers else {})}
    elif thing.kind == "Job":
        side_by_side = min(pods[0].replicas, replicas_at(thing.content, "spec.completions", pods[0].replicas))
        sets = (pod_set(pods[0], "main", side_by_side),)
    else:
        sets = tuple(pod_set(pod, _name(pod)) for pod in pods if pod.replicas)
    return Gang(
        thing.name, thing.kind, word({"node": labels.get(LABEL_NODE)}, "node"),
        thing.namespace or seen.settings.namespace, word({"queue": labels.get(QUEUE)}, "queue"),
        word({"class": labels.get(WORKLOAD_PRIORITY)}, "class"), sets, copies, beside,
        whole=thing.kind not in ("Job", "DaskJob"), least=_least(thing, sets),
    )  # fmt: skip


def _least(thing: Thing, sets: Sequence[PodSet]) -> int:
    """``job-min-parallelism`` of a Job (tasks/run/jobs.md, "Partial admission"): above 0 and below its parallelism, else Kueue
    refuses the Job, or reads none."""
    told = table(thing.content, "metadata.annotations").get(LEAST) if thing.kind == "Job" else None
    count = int(told) if isinstance(told, str) and told.isdecimal() and len(told) < 10 else 0
    return count if sets and 0 < count < sets[0].count else 0


def _name(pod: Pod) -> str:
    """Of a set, by where its template stands: ``spec.pytorchReplicaSpecs.Worker.template.spec`` -> worker; of a JobSet as its
    job there is called."""
    words = pod.path.split(".")
    if words[1] == "pytorchReplicaSpecs":
        return words[2].lower()
    return word(pod.owner.content, f"spec.replicatedJobs.{words[2]}.name") if pod.owner.kind == "JobSet" else pod.role


def pod_set(pod: Pod, name: str, count: int | None = None) -> PodSet:
    """Pods of one template; `count`: where it is not the template's own."""
    containers = []
    for each in pod.lasting:
        most = table(each.content, "resources.limits")
        containers.append((_units({**most, **table(each.content, "resources.requests")}), _units(most)))
    limits: dict[str, int] = {}
    for _, more in containers:
        for resource, value in more.items():
            limits[resource] = limits.get(resource, 0) + value
    wish, level = "", ""
    for name_of in WISHES:
        said = table(pod.metadata, "annotations").get(TOPOLOGY.format(name_of))
        if said is not None and not wish:
            wish, level = name_of, str(said) if name_of != "unconstrained" else ""
    requests = {resource: units(resource, value) for resource, value in demand(pod).items()}
    annotations = table(pod.metadata, "annotations")
    return PodSet(
        name, pod.replicas if count is None else count, requests, limits, tuple(containers), pod.content, wish, level,
        group=str(annotations.get(GROUP) or ""), sliced=any(name.startswith(SLICES) for name in annotations),
    )  # fmt: skip


def _units(found: Mapping[str, Any]) -> dict[str, int]:
    return {resource: units(resource, amount(value) or 0.0) for resource, value in found.items()}
