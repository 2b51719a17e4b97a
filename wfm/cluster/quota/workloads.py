"""Workload objects: who holds quota, who waits for it, who is put out (Kueue's apis/kueue/v1beta2/workload_types.go)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from wfm.cluster.lint.quantity import whole
from wfm.cluster.lint.seen import Thing, at, rows, table, word
from wfm.cluster.quota.amounts import read
from wfm.cluster.quota.cluster import Cluster, Share


@dataclass(frozen=True)
class Work:
    """A Workload."""

    name: str
    namespace: str
    job: str
    "That it stands for; empty where it does not say."
    queue: str
    "ClusterQueue; empty for one whose LocalQueue is not there."
    state: Literal["pending", "admitted", "deactivated", "over"]
    priority: int
    created: str
    reserved: str
    "When it got its quota; empty while it has none."
    usage: Mapping[Share, int]
    why: str = ""
    "What Kueue says of it."
    local: str = ""
    "LocalQueue that it stands in."

    def __str__(self) -> str:
        return self.job or self.name


def works(cluster: Cluster) -> list[Work]:
    """All Workloads of a cluster."""
    return [_work(thing, cluster) for thing in cluster.workloads]


def _work(thing: Thing, cluster: Cluster) -> Work:
    content = thing.content
    conditions = {word(each, "type"): each for _, each in rows(content, "status.conditions")}

    def true(name: str) -> bool:
        return word(conditions.get(name), "status") == "True"

    admission = table(content, "status.admission")
    holds = bool(admission) and true("QuotaReserved") and not true("Finished")
    local = cluster.locals.get((thing.namespace, word(content, "spec.queueName")))
    said = next((conditions[name] for name in ("Evicted", "QuotaReserved") if name in conditions), None)
    state: Literal["pending", "admitted", "deactivated", "over"] = "admitted" if holds else "pending"
    if true("Finished"):
        state = "over"
    elif at(content, "spec.active") is False:
        state = "deactivated"
    return Work(
        thing.name, thing.namespace, next((word(each, "name") for _, each in rows(content, "metadata.ownerReferences")), ""),
        word(admission, "clusterQueue") if holds else local.queue if local else "", state,
        whole(at(content, "spec.priority")) or 0, word(content, "metadata.creationTimestamp"),
        word(conditions.get("QuotaReserved"), "lastTransitionTime") if holds else "", _usage(thing) if holds else {},
        word(said, "message"), word(content, "spec.queueName"),
    )  # fmt: skip


def _usage(thing: Thing) -> dict[Share, int]:
    found: dict[Share, int] = {}
    for place, each in rows(thing.content, "status.admission.podSetAssignments"):
        used = table(each, "resourceUsage")
        for resource, flavor in table(each, "flavors").items():
            where = thing.where(f"status.admission.podSetAssignments.{place}.resourceUsage.{resource}")
            share = (str(flavor), resource)
            found[share] = found.get(share, 0) + read(resource, used.get(resource, 0), where)
    return found


def usage_of(held: Sequence[Work], cluster: Cluster, out: Sequence[Work] = ()) -> dict[tuple[str, Share], int]:
    """What each ClusterQueue has in use: by the workloads that hold quota, or by its own status where that says more (of other
    namespaces an account may see none). `out`: as if these were gone."""
    found: dict[tuple[str, Share], int] = {}
    for work in held:
        for share, amount in work.usage.items():
            found[work.queue, share] = found.get((work.queue, share), 0) + amount
    for queue in cluster.queues.values():
        for share, amount in queue.reserved.items():
            found[queue.name, share] = max(found.get((queue.name, share), 0), amount)
    for work in out:
        for share, amount in work.usage.items():
            found[work.queue, share] -= amount
    return found
