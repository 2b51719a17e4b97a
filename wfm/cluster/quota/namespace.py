"""What a namespace lets in, with or without Kueue: LimitRange for each pod, ResourceQuota for all of them together.

Kubernetes: docs/concepts/policy/limit-range, docs/concepts/policy/resource-quotas ("Quota scopes"). Kueue takes a workload for
inadmissible whose pods a LimitRange refuses (concepts/workload.md, "Requests values validation").
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from wfm.cluster.lint.seen import Thing, rows, table, word, words
from wfm.cluster.quota.amounts import PODS, read, shown
from wfm.cluster.quota.cluster import Cluster
from wfm.cluster.quota.gangs import Gang, PodSet
from wfm.cluster.quota.matching import holds

_PLAIN = ("cpu", "memory", "ephemeral-storage")
"""Resources that a quota may name without ``requests.``."""


def limit_faults(gang: Gang, cluster: Cluster) -> Iterator[str]:
    """Every bound of a LimitRange that a pod of a gang breaks."""
    for thing in cluster.limit_ranges:
        if thing.namespace not in ("", gang.namespace):
            continue
        for _, limit in rows(thing.content, "spec.limits"):
            for pods in (*gang.sets, *gang.beside):
                kind = word(limit, "type")
                several = pods.containers if kind == "Container" else [(pods.requests, pods.limits)]
                for requests, limits in several if kind in ("Container", "Pod") else ():
                    yield from _bounds(thing, kind, limit, pods.name, requests, limits)


def _bounds(
    thing: Thing, kind: str, limit: Mapping[str, Any], name: str, requests: Mapping[str, int], limits: Mapping[str, int]
) -> Iterator[str]:
    for resource, bound in table(limit, "max").items():
        most = read(resource, bound, thing.where("spec.limits.max"))
        asked = max(limits.get(resource, 0), requests.get(resource, 0))
        if asked > most:
            yield (
                f"LimitRange {thing.name} lets a {kind.lower()} have {resource} {shown(resource, most)} at most, and one of "
                f"{name} asks for {shown(resource, asked)}"
            )
    for resource, bound in table(limit, "min").items():
        least = read(resource, bound, thing.where("spec.limits.min"))
        if resource in requests and requests[resource] < least:
            yield (
                f"LimitRange {thing.name} wants {resource} {shown(resource, least)} of a {kind.lower()} at least, and one of "
                f"{name} asks for {shown(resource, requests[resource])}"
            )


@dataclass(frozen=True)
class Line:
    """A line of a ResourceQuota, against a gang."""

    thing: Thing
    key: str
    resource: str
    most: int
    used: int | None
    "By its status; None where it says nothing."
    least: int
    "What must be there at once: all pods of a training, one of those that may take turns."
    at_once: int
    "All pods side by side."

    def says(self) -> str:
        """What the quota has."""
        return f"ResourceQuota {self.thing.name} has {self.key} {shown(self.resource, self.most)}"


def quota_lines(gang: Gang, cluster: Cluster) -> Iterator[Line]:
    """Each line of the ResourceQuotas of its namespace that counts pods or what they ask for."""
    for thing in cluster.resource_quotas:
        if thing.namespace not in ("", gang.namespace):
            continue
        for key, bound in table(thing.content, "spec.hard").items():
            resource = _resource(key)
            if not resource:
                continue
            beside = sum(_asks(each, key, each.count, thing) for each in gang.beside)
            at_once = sum(_asks(each, key, each.count * gang.copies, thing) for each in gang.sets) + beside
            one = sum(_asks(each, key, 1, thing) for each in gang.sets) + beside
            used = table(thing.content, "status.used").get(key)
            yield Line(
                thing, key, resource, read(resource, bound, thing.where(f"spec.hard.{key}")),
                None if used is None else read(resource, used, thing.where(f"status.used.{key}")),
                at_once if gang.whole else one, at_once,
            )  # fmt: skip


def quota_faults(gang: Gang, cluster: Cluster) -> tuple[list[str], list[str]]:
    """(why ResourceQuotas of the namespace never let the gang run, what they slow down)."""
    never, slower = [], []
    for line in quota_lines(gang, cluster):
        if line.least > line.most:
            never.append(f"{line.says()}; at least {shown(line.resource, line.least)} is asked for at once")
        elif line.at_once > line.most:
            slower.append(
                f"{line.says()}; all its pods would need {shown(line.resource, line.at_once)}: they take turns"
            )
    return never, slower


def quota_short(gang: Gang, cluster: Cluster) -> list[str] | None:
    """What of the ResourceQuotas others use that the gang needs; None where no quota tells what is used."""
    told = [line for line in quota_lines(gang, cluster) if line.used is not None]
    if not told:
        return None
    return [
        f"{line.says()}, {shown(line.resource, line.used or 0)} of it in use; {shown(line.resource, line.least)} is asked for"
        for line in told
        if line.least and line.least + (line.used or 0) > line.most
    ]


def _resource(key: str) -> str:
    """The resource of a line of ``hard``; empty for lines that count other objects."""
    if key in (PODS, "count/pods"):
        return PODS
    for prefix in ("requests.", "limits."):
        if key.startswith(prefix) and key != "requests.storage":
            return key.removeprefix(prefix)
    return key if key in _PLAIN or key.startswith("hugepages-") else ""


def _asks(pods: PodSet, key: str, count: int, thing: Thing) -> int:
    if not _applies(thing, pods):
        return 0
    resource = _resource(key)
    if resource == PODS:
        return count
    return (pods.limits if key.startswith("limits.") else pods.requests).get(resource, 0) * count


def _applies(thing: Thing, pods: PodSet) -> bool:
    """Whether a quota counts these pods, by its scopes."""
    labels = {"PriorityClass": word(pods.spec, "priorityClassName")}
    labels = {name: value for name, value in labels.items() if value}
    scopes = [{"scopeName": each, "operator": "Exists"} for each in words(thing.content, "spec.scopes")]
    scopes += [each for _, each in rows(thing.content, "spec.scopeSelector.matchExpressions")]
    ends = "activeDeadlineSeconds" in pods.spec
    nothing = not any(pods.requests.get(name) or pods.limits.get(name) for name in ("cpu", "memory"))
    plain = {"Terminating": ends, "NotTerminating": not ends, "BestEffort": nothing, "NotBestEffort": not nothing}
    for scope in scopes:
        name = word(scope, "scopeName")
        if name == "PriorityClass":
            if not holds({**scope, "key": name}, labels):
                return False
        elif not plain.get(name, False):
            return False
    return True
