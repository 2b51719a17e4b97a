"""What containers ask for, and whether the cluster could ever give it."""

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from wfm.cluster.lint.fault import Found, rule
from wfm.cluster.lint.quantity import amount
from wfm.cluster.lint.seen import STAGE_ROLES, Pod, Seen, Thing, rows, table, word, words
from wfm.cluster.pod import QUEUE

_GIB = 2.0**30
_FOREIGN = re.compile(
    r"^(amd|gpu\.intel|habana|google|aws\.amazon|huawei|cambricon|furiosa|rebellions)[\w.]*(\.com|\.ai)/"
)
"""Makers of devices that know no CUDA."""


@rule("cpu-request", "every container asks for processor time")
def cpu_request(seen: Seen) -> Iterator[Found]:
    """Without it the pod may land on a machine that has none left, and no queue counts it."""
    for pod in seen.furnished:
        for each in pod.containers:
            given = each.amount_of("requests", "cpu")
            if not amount(given):
                given = each.amount_of("limits", "cpu") if given is None else given
            if not amount(given):
                yield Found(f"{each.where}.resources.requests.cpu", given, "give cores, such as 4 or 500m")


@rule("memory-limit", "every container asks for memory and is bounded by it")
def memory_limit(seen: Seen) -> Iterator[Found]:
    """A limit, and a request (which is the limit where none stands)."""
    for pod in seen.furnished:
        for each in pod.containers:
            limit = each.amount_of("limits", "memory")
            request = each.amount_of("requests", "memory")
            if not amount(limit):
                says = "without a limit the machine's other pods pay for a leak: give one, such as 16Gi"
                yield Found(f"{each.where}.resources.limits.memory", limit, says)
            elif request is not None and not amount(request):
                yield Found(f"{each.where}.resources.requests.memory", request, "give bytes, such as 16Gi")


@rule("request-above-limit", "nothing is asked for beyond its own limit")
def request_above_limit(seen: Seen) -> Iterator[Found]:
    """The API server refuses such a pod long after the job was made."""
    for pod in seen.furnished:
        for each in pod.containers:
            for name in table(each.content, "resources.requests"):
                request, limit = (amount(each.amount_of(kind, name)) for kind in ("requests", "limits"))
                if request is not None and limit is not None and request > limit and not _is_device(name):
                    says = f"it is above its limit of {each.amount_of('limits', name)}: no pod is made from it"
                    yield Found(f"{each.where}.resources.requests.{name}", each.amount_of("requests", name), says)


@rule("device-limit", "devices are asked for whole, and the request is the limit")
def device_limit(seen: Seen) -> Iterator[Found]:
    """GPUs, RDMA devices and the like are never shared: a limit stands, and a request is the same number."""
    for pod in seen.furnished:
        for each in pod.containers:
            requests, limits = (table(each.content, f"resources.{kind}") for kind in ("requests", "limits"))
            for name in sorted({*requests, *limits}):
                if not _is_device(name):
                    continue
                limit, request = amount(limits.get(name)), amount(requests.get(name, limits.get(name)))
                if limit is None or limit != request or limit != int(limit):
                    says = f"devices are whole, and request and limit are one number (request {requests.get(name)})"
                    yield Found(f"{each.where}.resources.limits.{name}", limits.get(name), says)


@rule("device-name", "devices are those that the images can use")
def device_name(seen: Seen) -> Iterator[Found]:
    """``gpu_resource`` and ``rdma_resource`` of the settings: another vendor's device runs nothing of CUDA, and no queue and no
    quota of ours counts it."""
    ours = (seen.settings.gpu_resource, seen.settings.rdma_resource)
    for pod in seen.furnished:
        for each in pod.containers if pod.role != "other" else ():
            for name in {**table(each.content, "resources.requests"), **table(each.content, "resources.limits")}:
                known = name in ours or (not seen.known and not _FOREIGN.search(name))
                if _is_device(name) and not known:
                    says = (
                        f"the images use {ours[0]} (and {ours[1]}): ask for those, or set gpu_resource in the settings"
                    )
                    yield Found(f"{each.where}.resources.limits.{name}", each.amount_of("limits", name), says)


@rule("quota", "what is asked for could be given")
def quota(seen: Seen) -> Iterator[Found]:
    """Demand times replicas against the settings' quota, and against the ClusterQueue where it is among the objects."""
    bounds = seen.settings.quota.limits()
    for thing in seen.things:
        pods = [pod for pod in seen.pods_of(thing) if pod.role in STAGE_ROLES]
        if not pods or thing.kind in ("TrainingRuntime", "ClusterTrainingRuntime"):
            continue
        total = _sum(pods)
        for name, resource, unit in _named(seen):
            if name in bounds and total[resource] / unit > bounds[name] * (1 + 1e-9):
                says = (
                    f"{_count(pods)} pods ask for {total[resource] / unit:.6g} together, the quota is {bounds[name]:.6g}: it "
                    "would wait for ever. Ask for less or for fewer replicas, or have the quota raised"
                )
                yield Found(thing.where("spec"), f"{name} {total[resource] / unit:.6g}", says)
        yield from _against_queues(seen, thing, pods, total)


def _named(seen: Seen) -> list[tuple[str, str, float]]:
    """(name in the settings, resource of Kubernetes, size of the settings' unit)."""
    return [
        ("cpu", "cpu", 1.0),
        ("memory_gib", "memory", _GIB),
        ("ephemeral_gib", "ephemeral-storage", _GIB),
        ("gpu", seen.settings.gpu_resource, 1.0),
        ("rdma", seen.settings.rdma_resource, 1.0),
    ]


def _against_queues(seen: Seen, thing: Thing, pods: list[Pod], total: dict[str, float]) -> Iterator[Found]:
    """Against the quota of the ClusterQueue behind the object's queue, with what it may borrow from its cohort."""
    labels = [table(thing.content, "metadata.labels"), *(table(pod.metadata, "labels") for pod in pods)]
    queue = next((each[QUEUE] for each in labels if QUEUE in each), None)
    local = next((each for each in seen.of("LocalQueue") if each.name == queue), None)
    name = word(local.content, "spec.clusterQueue") if local else ""
    cluster = next((each for each in seen.of("ClusterQueue") if each.name == name), None)
    if cluster is None:
        return
    own = [pod for pod in pods if thing.kind != "DaskJob" or QUEUE in table(pod.metadata, "labels")]
    for resource, wanted in sorted((_sum(own) if own else total).items()):
        most, known = most_of(seen, cluster, resource)
        if not wanted:
            continue
        if not known:
            says = (
                f"ClusterQueue {cluster.name} has no quota of {resource}, so nothing that asks for it is ever admitted"
            )
            yield Found(thing.where("spec"), f"{resource} {wanted:.6g}", says)
        elif wanted > most * (1 + 1e-9):
            says = (
                f"{_count(own)} pods ask for {wanted:.6g} together; ClusterQueue {cluster.name} has {most:.6g} with "
                "all that it may borrow: it would wait for ever. Ask for less or for fewer replicas, or have the quota raised"
            )
            yield Found(thing.where("spec"), f"{resource} {wanted:.6g}", says)


def most_of(seen: Seen, cluster: Thing, resource: str) -> tuple[float, bool]:
    """The most of a resource that one workload of a ClusterQueue could get in one flavour, and whether it is covered at all."""
    best, known = 0.0, False
    cohort = word(cluster.content, "spec.cohortName")
    others = [each for each in seen.of("ClusterQueue") if each is not cluster and cohort]
    lent: dict[str, float] = defaultdict(float)
    for other in others:
        if word(other.content, "spec.cohortName") == cohort:
            for flavour, quotas in _flavours(other, resource):
                nominal = amount(quotas.get("nominalQuota")) or 0.0
                limit = amount(quotas.get("lendingLimit"))
                lent[flavour] += nominal if limit is None else min(nominal, limit)
    for flavour, quotas in _flavours(cluster, resource):
        known = True
        borrowing = amount(quotas.get("borrowingLimit"))
        borrowed = lent[flavour] if borrowing is None else min(lent[flavour], borrowing)
        best = max(best, (amount(quotas.get("nominalQuota")) or 0.0) + (borrowed if cohort else 0.0))
    return best, known


def _flavours(cluster: Thing, resource: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for _, group in rows(cluster.content, "spec.resourceGroups"):
        if resource in words(group, "coveredResources"):
            for _, flavour in rows(group, "flavors"):
                for _, quotas in rows(flavour, "resources"):
                    if word(quotas, "name") == resource:
                        yield word(flavour, "name"), quotas


def demand(pod: Pod) -> dict[str, float]:
    """What the scheduler counts for one pod: its containers together, or an init container that asks for more."""
    found: dict[str, float] = defaultdict(float)
    before: dict[str, float] = defaultdict(float)
    for each in pod.containers:
        limits, requests = table(each.content, "resources.limits"), table(each.content, "resources.requests")
        for name in {*limits, *requests}:
            value = amount(requests.get(name, limits.get(name))) or 0.0
            if each.kind == "init":
                before[name] = max(before[name], value)
            else:
                found[name] += value
    return {name: max(found[name], before[name]) for name in {*found, *before}}


def has_devices(pod: Pod) -> bool:
    """Whether any of its containers asks for devices, whosever they are."""
    return any(_is_device(name) for each in pod.containers for name in table(each.content, "resources.limits"))


def _sum(pods: list[Pod]) -> dict[str, float]:
    total: dict[str, float] = defaultdict(float)
    for pod in pods:
        for name, value in demand(pod).items():
            total[name] += value * pod.replicas
    return total


def _count(pods: list[Pod]) -> int:
    return sum(pod.replicas for pod in pods)


def _is_device(name: str) -> bool:
    """Extended resources have a domain; those of Kubernetes itself have none, but for huge pages."""
    return "/" in name and not name.startswith("kubernetes.io/")
