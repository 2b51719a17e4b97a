"""A cluster's queues as its manifests say them, whether they are read from files or from the API server.

Field by field as in Kueue's apis/kueue/v1beta2 (clusterqueue_types.go, cohort_types.go, localqueue_types.go,
resourceflavor_types.go, topology_types.go) and, for its configuration, apis/config/v1beta2.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wfm.cluster.lint.quantity import amount, whole
from wfm.cluster.lint.seen import Thing, at, rows, table, word, words
from wfm.cluster.lint.templates import look
from wfm.cluster.quota.amounts import read
from wfm.errors import DataError

Share = tuple[str, str]
"""(flavour, resource): what a quota is of."""


@dataclass(frozen=True)
class Quota:
    """Of one resource in one flavour, at one queue or cohort; None is no limit."""

    nominal: int
    borrowing: int | None = None
    lending: int | None = None


@dataclass(frozen=True)
class Group:
    """Resources that get one flavour together, and the flavours in the order in which they are tried."""

    covered: tuple[str, ...]
    flavors: tuple[str, ...]


@dataclass(frozen=True)
class Pool:
    """A ClusterQueue or a Cohort: what of it counts for capacity."""

    name: str
    parent: str
    "Cohort; empty for none."
    quotas: Mapping[Share, Quota]
    weight: float = field(default=1.0, kw_only=True)
    "Of its share when shares are weighed (fairSharing.weight)."


@dataclass(frozen=True)
class Queue(Pool):
    """A ClusterQueue."""

    groups: tuple[Group, ...] = ()
    selector: Any = None
    "Of namespaces; None selects none."
    stop: str = "None"
    checks: tuple[str, ...] = ()
    strict: bool = False
    "StrictFIFO: who comes first holds up all others."
    within: str = "Never"
    reclaim: str = "Never"
    borrow: str = "Never"
    "Whom its workloads may preempt: ``preemption`` withinClusterQueue, reclaimWithinCohort, borrowWithinCohort."
    borrow_up_to: int | None = None
    "maxPriorityThreshold of the last."
    inactive: str = ""
    "What its status says when it admits nothing; empty where it is active, or says nothing."
    reserved: Mapping[Share, int] = field(default_factory=dict)
    "What its status says is in use, also by workloads that are not among the objects."
    by_usage: bool = False
    "admissionScope UsageBasedAdmissionFairSharing: LocalQueues that used less of late come first, whatever the priority."

    def group(self, resource: str) -> Group | None:
        """That covers a resource."""
        return next((each for each in self.groups if resource in each.covered), None)


@dataclass(frozen=True)
class Flavor:
    """A ResourceFlavor: the machines behind a quota."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Mapping[str, Any], ...] = ()
    tolerations: tuple[Mapping[str, Any], ...] = ()
    "That Kueue adds to the pods it admits."
    topology: str = ""


@dataclass(frozen=True)
class Local:
    """A LocalQueue."""

    queue: str
    stop: str = "None"


@dataclass(frozen=True)
class Cluster:
    """All that decides whether something is admitted."""

    queues: Mapping[str, Queue]
    cohorts: Mapping[str, Pool]
    flavors: Mapping[str, Flavor]
    locals: Mapping[tuple[str, str], Local]
    "By namespace and name."
    topologies: Mapping[str, tuple[str, ...]]
    "Levels, the widest first."
    checks: frozenset[str]
    priorities: Mapping[str, int]
    "WorkloadPriorityClasses."
    namespaces: Mapping[str, Mapping[str, str]]
    nodes: tuple[Thing, ...]
    limit_ranges: tuple[Thing, ...]
    resource_quotas: tuple[Thing, ...]
    workloads: tuple[Thing, ...]
    frameworks: tuple[str, ...] | None = None
    "Integrations of Kueue's configuration; None where it is not known."
    excluded: tuple[str, ...] = ()
    "excludeResourcePrefixes: resources that Kueue does not count."
    fair: tuple[str, ...] | None = ()
    "Strategies of fair sharing's preemption, in their order; none: it is off. None where Kueue's configuration is not known."
    partial: bool = True
    "Whether Jobs may be admitted with fewer pods (feature gate PartialAdmission, on by itself)."
    undeclared: bool = False
    "quotaCheckStrategy IgnoreUndeclared: what a queue does not cover is not counted either."

    def labels_of(self, namespace: str) -> Mapping[str, str]:
        """Labels of a namespace; the one that Kubernetes sets is always known."""
        return {"kubernetes.io/metadata.name": namespace, **self.namespaces.get(namespace, {})}


def read_cluster(objects: Sequence[Any]) -> Cluster:
    """From objects of any kinds; of what is no part of it nothing is read. Raises DataError for an amount that is none."""
    things = look(objects, None).things
    by_kind: dict[str, list[Thing]] = {}
    for thing in things:
        by_kind.setdefault(_kind(thing), []).append(thing)

    def of(kind: str) -> list[Thing]:
        return by_kind.get(kind, [])

    configuration = [thing.content for thing in of("Configuration")] + [
        each for thing in of("ConfigMap") for each in _in_map(thing)
    ]
    frameworks = [
        words(each, "integrations.frameworks") for each in configuration if at(each, "integrations.frameworks")
    ]
    return Cluster(
        queues={thing.name: _queue(thing) for thing in of("ClusterQueue")},
        cohorts={thing.name: _cohort(thing) for thing in of("Cohort")},
        flavors={thing.name: _flavor(thing) for thing in of("ResourceFlavor")},
        locals={
            (thing.namespace, thing.name): Local(
                word(thing.content, "spec.clusterQueue"), word(thing.content, "spec.stopPolicy") or "None"
            )
            for thing in of("LocalQueue")
        },
        topologies={
            thing.name: tuple(word(each, "nodeLabel") for _, each in rows(thing.content, "spec.levels"))
            for thing in of("Topology")
        },
        checks=frozenset(thing.name for thing in of("AdmissionCheck")),
        priorities=_values(of("WorkloadPriorityClass")),
        namespaces={thing.name: _strings(table(thing.content, "metadata.labels")) for thing in of("Namespace")},
        nodes=tuple(of("Node")),
        limit_ranges=tuple(of("LimitRange")),
        resource_quotas=tuple(of("ResourceQuota")),
        workloads=tuple(of("Workload")),
        frameworks=tuple(frameworks[0]) if frameworks else None,
        fair=tuple(_strategies(configuration[0])) if configuration else None,
        partial=all(at(each, "featureGates.PartialAdmission") is not False for each in configuration),
        excluded=tuple(each for one in configuration for each in words(one, "resources.excludeResourcePrefixes")),
        undeclared=any(word(each, "resources.quotaCheckStrategy") == "IgnoreUndeclared" for each in configuration),
    )  # fmt: skip


STRATEGIES = ("LessThanOrEqualToFinalShare", "LessThanInitialShare")
"""Of fair sharing's preemption where its configuration names none (preemption.go, parseStrategies)."""


def _strategies(configuration: Mapping[str, Any]) -> Sequence[str]:
    """``fairSharing`` of Kueue's configuration: to be there is to be on (v1beta2); v1beta1 says ``enable`` too."""
    told = configuration.get("fairSharing")
    if not isinstance(told, Mapping) or told.get("enable") is False:
        return ()
    return [
        each for each in words(configuration, "fairSharing.preemptionStrategies") if each in STRATEGIES
    ] or STRATEGIES


_GROUPS = {
    "ClusterQueue": "kueue.x-k8s.io", "Cohort": "kueue.x-k8s.io", "ResourceFlavor": "kueue.x-k8s.io",
    "LocalQueue": "kueue.x-k8s.io", "Topology": "kueue.x-k8s.io", "AdmissionCheck": "kueue.x-k8s.io",
    "WorkloadPriorityClass": "kueue.x-k8s.io", "Workload": "kueue.x-k8s.io", "Configuration": "config.kueue.x-k8s.io",
}  # fmt: skip
"""Kinds whose name others use too."""


def _kind(thing: Thing) -> str:
    group = _GROUPS.get(thing.kind)
    return thing.kind if group in (None, word(thing.content, "apiVersion").partition("/")[0]) else ""


def _in_map(thing: Thing) -> Iterable[dict[str, Any]]:
    """Kueue's configuration as it is installed: text in the ConfigMap kueue-manager-config."""
    text = table(thing.content, "data").get("controller_manager_config.yaml")
    if not isinstance(text, str):
        return []
    import yaml

    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise DataError(f"ConfigMap/{thing.name}: data[controller_manager_config.yaml] is no YAML: {error}") from None
    return [found] if isinstance(found, dict) else []


def _queue(thing: Thing) -> Queue:
    content = thing.content
    groups = tuple(
        Group(tuple(words(group, "coveredResources")), tuple(word(each, "name") for _, each in rows(group, "flavors")))
        for _, group in rows(content, "spec.resourceGroups")
    )
    return Queue(
        thing.name, word(content, "spec.cohortName"), _quotas(thing), groups, at(content, "spec.namespaceSelector"),
        word(content, "spec.stopPolicy") or "None",
        tuple(word(each, "name") for _, each in rows(content, "spec.admissionChecksStrategy.admissionChecks")),
        word(content, "spec.queueingStrategy") == "StrictFIFO",
        word(content, "spec.preemption.withinClusterQueue") or "Never",
        word(content, "spec.preemption.reclaimWithinCohort") or "Never",
        word(content, "spec.preemption.borrowWithinCohort.policy") or "Never",
        whole(at(content, "spec.preemption.borrowWithinCohort.maxPriorityThreshold")), _inactive(thing),
        _reserved(thing),
        word(content, "spec.admissionScope.admissionMode") == "UsageBasedAdmissionFairSharing", weight=_weight(thing),
    )  # fmt: skip


def _weight(thing: Thing) -> float:
    told = at(thing.content, "spec.fairSharing.weight")
    if told is None:
        return 1.0
    found = amount(told)
    if found is None or found < 0:
        raise DataError(
            f"{thing.where('spec.fairSharing.weight')} = {str(told)[:80]!r} is no weight: give one such as 1 or 500m"
        )
    return found


def _inactive(thing: Thing) -> str:
    active = [each for _, each in rows(thing.content, "status.conditions") if word(each, "type") == "Active"]
    return word(active[0], "message") if active and word(active[0], "status") == "False" else ""


def _reserved(thing: Thing) -> dict[Share, int]:
    """``status.flavorsReservation``: totals, what is borrowed included."""
    found = {}
    for place, flavor in rows(thing.content, "status.flavorsReservation"):
        for row, each in rows(flavor, "resources"):
            where = thing.where(f"status.flavorsReservation.{place}.resources.{row}.total")
            found[word(flavor, "name"), word(each, "name")] = read(word(each, "name"), each.get("total", 0), where)
    return found


def _cohort(thing: Thing) -> Pool:
    return Pool(thing.name, word(thing.content, "spec.parentName"), _quotas(thing), weight=_weight(thing))


def _quotas(thing: Thing) -> dict[Share, Quota]:
    found = {}
    for place, group in rows(thing.content, "spec.resourceGroups"):
        for number, flavor in rows(group, "flavors"):
            for row, each in rows(flavor, "resources"):
                where = thing.where(f"spec.resourceGroups.{place}.flavors.{number}.resources.{row}")
                name = word(each, "name")
                limits = [
                    read(name, each[limit], f"{where}.{limit}") if each.get(limit) is not None else None
                    for limit in ("borrowingLimit", "lendingLimit")
                ]
                nominal = read(name, each.get("nominalQuota", 0), f"{where}.nominalQuota")
                found[word(flavor, "name"), name] = Quota(nominal, *limits)
    return found


def _flavor(thing: Thing) -> Flavor:
    spec = table(thing.content, "spec")
    return Flavor(
        thing.name, _strings(table(spec, "nodeLabels")), tuple(each for _, each in rows(spec, "nodeTaints")),
        tuple(each for _, each in rows(spec, "tolerations")), word(spec, "topologyName"),
    )  # fmt: skip


def _values(things: Sequence[Thing]) -> dict[str, int]:
    return {thing.name: whole(at(thing.content, "value")) or 0 for thing in things}


def _strings(found: Mapping[str, Any]) -> dict[str, str]:
    return {name: each for name, each in found.items() if isinstance(each, str)}
