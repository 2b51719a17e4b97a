"""Whether machines could hold the pods, where Node objects are among the manifests: each pod lies on one machine.

Each set of pods is held against the empty machines by itself, so a refusal is certain; whether several find room beside each
other says `packing`, and beside what else runs nobody. Kueue counts so for topologies (concepts/topology_aware_scheduling.md,
"Capacity calculation"): machines that are ready, not cordoned, with the flavour's labels, whose taints are borne.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from wfm.cluster.lint.quantity import amount
from wfm.cluster.lint.seen import Thing, at, rows, table
from wfm.cluster.quota.amounts import PODS, shown, units
from wfm.cluster.quota.cluster import Cluster, Flavor
from wfm.cluster.quota.gangs import PodSet
from wfm.cluster.quota.matching import node_refusal, untolerated


def topology_refusal(pods: PodSet, flavor: Flavor, cluster: Cluster) -> str:
    """Why a flavour with a topology cannot hold a set; empty where it can, or no machines are known."""
    levels = cluster.topologies[flavor.topology]
    machines = [
        node for node in cluster.nodes if all(level in table(node.content, "metadata.labels") for level in levels)
    ]
    if not cluster.nodes:
        return ""
    held, why = _held(pods, flavor, machines)
    if pods.wish != "required":
        return "" if sum(held.values()) >= pods.count else _too_few(pods, sum(held.values()), why)
    depth = levels.index(pods.level) + 1
    domains: dict[tuple[Any, ...], int] = {}
    for node in machines:
        labels = table(node.content, "metadata.labels")
        where = tuple(labels[level] for level in levels[:depth])
        domains[where] = domains.get(where, 0) + held[node.name]
    most = max(domains.values(), default=0)
    if most >= pods.count:
        return ""
    if not most:
        return _too_few(pods, 0, why)
    return f"all {pods.count} pods must lie in one {pods.level}, and the largest holds {most}"


def placement_refusal(pods: PodSet, flavor: Flavor | None, cluster: Cluster, least: int) -> str:
    """Why the machines cannot hold ``least`` pods of a set at once, though its quota is given; empty where they can."""
    if not cluster.nodes:
        return ""
    held, why = _held(pods, flavor, cluster.nodes)
    total = sum(held.values())
    return "" if total >= least else _too_few(pods, total, why)


def held_on(pods: PodSet, flavor: Flavor | None, node: Thing) -> int:
    """How many pods of a set a machine holds when it is empty."""
    return _on(pods, flavor, node)[0]


def _too_few(pods: PodSet, most: int, why: str) -> str:
    if most:
        return f"the machines hold {most} of its {pods.count} pods at a time, each on one machine"
    return f"no machine can hold one of its pods: {why or 'there is none of this flavour'}"


def _held(pods: PodSet, flavor: Flavor | None, machines: Sequence[Thing]) -> tuple[dict[str, int], str]:
    """How many pods of a set each machine holds when it is empty, and why one holds none: the one that came nearest."""
    found, nearest = {}, (-1, "")
    for node in machines:
        found[node.name], passed, why = _on(pods, flavor, node)
        nearest = max(nearest, (passed, why)) if why else nearest
    return found, nearest[1]


def _on(pods: PodSet, flavor: Flavor | None, node: Thing) -> tuple[int, int, str]:
    """(pods that it holds, checks that it passed, why none)."""
    labels = {name: str(value) for name, value in table(node.content, "metadata.labels").items()}
    if at(node.content, "spec.unschedulable") is True:
        return 0, 1, f"{node.name} is cordoned"
    ready = [each for _, each in rows(node.content, "status.conditions") if each.get("type") == "Ready"]
    if ready and ready[0].get("status") != "True":
        return 0, 2, f"{node.name} is not ready"
    borne: list[Mapping[str, Any]] = [each for _, each in rows(pods.spec, "tolerations")]
    if flavor is not None:
        if any(labels.get(name) != value for name, value in flavor.labels.items()):
            return 0, 0, ""
        borne += flavor.tolerations
    taint = untolerated([each for _, each in rows(node.content, "spec.taints")], borne)
    if taint:
        return 0, 3, f"the taint {taint} of {node.name} is not borne"
    refusal = node_refusal(pods.spec, labels)
    if refusal:
        return 0, 4, refusal
    allocatable = table(node.content, "status.allocatable") or table(node.content, "status.capacity")
    most = units(PODS, amount(allocatable.get(PODS, 110)) or 0.0)
    why = ""
    for resource, wanted in pods.requests.items():
        if wanted:
            there = units(resource, amount(allocatable.get(resource, 0)) or 0.0)
            most = min(most, there // wanted)
            if there < wanted:
                why = f"{resource} {shown(resource, wanted)} is asked for, {node.name} has {shown(resource, there)}"
    return most, 5, why
