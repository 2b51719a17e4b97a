"""Whether machines hold several sets of pods beside each other, each pod on one machine.

Kueue places the sets of a workload one after the other, each beside what the ones before it took
(pkg/cache/scheduler/tas_flavor_snapshot.go, FindTopologyAssignmentsForFlavor: assumedUsage). Here it is asked whether there is
any way at all, on machines on which nothing else runs: where there is none, no order helps. Where the ways are too many to be
looked through, or a set wishes for what is not reckoned here, that is said instead of a verdict.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence

from wfm.cluster.lint.quantity import amount
from wfm.cluster.lint.seen import Thing, table
from wfm.cluster.quota.amounts import PODS, units
from wfm.cluster.quota.cluster import Cluster, Flavor
from wfm.cluster.quota.gangs import PodSet
from wfm.cluster.quota.machines import held_on

MOST_STATES = 100_000
"""Of partly filled machines, that are looked at."""
MOST_DOMAINS = 10_000
"""Ways to choose a domain for each set that must lie in one."""
Placed = tuple[PodSet, tuple[Flavor, ...]]
"""A set, and the flavours that it gets."""


class NotReckoned(Exception):
    """What cannot be told, and why."""


def together_refusal(sets: Sequence[Placed], cluster: Cluster) -> str:
    """Why machines cannot hold all sets at once; empty where they can, or none are known. Raises NotReckoned."""
    if not cluster.nodes or not sets:
        return ""
    for pods, flavors in sets:
        if (pods.group or pods.sliced) and any(flavor.topology for flavor in flavors):
            what = f"podset-group-name {pods.group}" if pods.group else "podset-slice-…"
            raise NotReckoned(f"{pods.name} wishes for a place by {what}, which is not reckoned here")
    if len(sets) < 2:
        return ""
    domains = [_domains(pods, flavors, cluster) for pods, flavors in sets]
    ways = 1
    for each in domains:
        ways *= max(len(each), 1)
    if ways > MOST_DOMAINS:
        raise NotReckoned(f"there are {ways} ways to choose domains for its sets, too many to look through")
    states = [0]
    for choice in itertools.product(*(each or [()] for each in domains)):
        if _packed(sets, choice, cluster, states):
            return ""
    names = " and ".join(f"{pods.count} x {pods.name}" for pods, _ in sets)
    return f"the machines hold each of its sets by itself, and not all beside each other: {names}"


def _domains(pods: PodSet, flavors: Sequence[Flavor], cluster: Cluster) -> list[tuple[tuple[str, str], ...]]:
    """Labels of each domain that a set may lie in; none where it may lie anywhere."""
    topology = next((flavor.topology for flavor in flavors if flavor.topology in cluster.topologies), "")
    levels = cluster.topologies.get(topology, ())
    if pods.wish != "required" or pods.level not in levels:
        return []
    names = levels[: levels.index(pods.level) + 1]
    found = {
        tuple((name, str(labels[name])) for name in names): None
        for labels in (table(node.content, "metadata.labels") for node in cluster.nodes)
        if all(name in labels for name in levels)
    }
    return list(found)


def _packed(
    sets: Sequence[Placed], choice: Sequence[tuple[tuple[str, str], ...]], cluster: Cluster, states: list[int]
) -> bool:
    """Whether all find room with a choice of domains. `states`: how many were looked at until now."""
    resources = sorted({name for pods, _ in sets for name, wanted in pods.requests.items() if wanted})
    asks = [(*(pods.requests.get(name, 0) for name in resources), 1) for pods, _ in sets]
    machines = sorted(
        (
            tuple(_most(pods, flavors, domain, node) for (pods, flavors), domain in zip(sets, choice, strict=True)),
            _room(node, resources),
        )
        for node in cluster.nodes
    )
    machines = [each for each in machines if any(each[0])]
    later = [
        tuple(sum(most[place] for most, _ in machines[start:]) for place in range(len(sets)))
        for start in range(len(machines) + 1)
    ]
    dead: set[tuple[int, tuple[int, ...]]] = set()

    def fill(at: int, left: tuple[int, ...]) -> bool:
        if not any(left):
            return True
        if (at, left) in dead or any(need > most for need, most in zip(left, later[at], strict=True)):
            return False
        states[0] += 1
        if states[0] > MOST_STATES:
            raise NotReckoned("its sets could lie beside each other in too many ways to look through")
        most, room = machines[at]
        bound = tuple(map(min, most, left))
        for some in _full(asks, bound, room):
            if fill(at + 1, tuple(need - here for need, here in zip(left, some, strict=True))):
                return True
        dead.add((at, left))
        return False

    return fill(0, tuple(pods.count for pods, _ in sets))


def _most(pods: PodSet, flavors: Sequence[Flavor], domain: tuple[tuple[str, str], ...], node: Thing) -> int:
    """How many pods of a set an empty machine holds."""
    labels = table(node.content, "metadata.labels")
    if any(str(labels.get(name)) != value for name, value in domain):
        return 0
    return min(held_on(pods, flavor, node) for flavor in (flavors or (None,)))


def _room(node: Thing, resources: Sequence[str]) -> tuple[int, ...]:
    there: Mapping[str, object] = table(node.content, "status.allocatable") or table(node.content, "status.capacity")
    pods = units(PODS, amount(there.get(PODS, 110)) or 0.0)
    return (*(units(name, amount(there.get(name, 0)) or 0.0) for name in resources), pods)


def _full(asks: Sequence[tuple[int, ...]], bound: tuple[int, ...], room: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Numbers of pods of each set that one machine holds, to which none can be added."""

    def fit(left: tuple[int, ...], ask: tuple[int, ...]) -> int:
        return min((have // want for have, want in zip(left, ask, strict=True) if want), default=0)

    def rest(place: int, left: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        most = min(bound[place], fit(left, asks[place]))
        if place == len(asks) - 1:
            yield (most,)
            return
        for count in range(most, -1, -1):
            after = tuple(have - count * want for have, want in zip(left, asks[place], strict=True))
            for others in rest(place + 1, after):
                yield (count, *others)

    for some in rest(0, room):
        left = tuple(
            have - sum(count * ask[place] for count, ask in zip(some, asks, strict=True))
            for place, have in enumerate(room)
        )
        if not any(count < most and fit(left, ask) for count, most, ask in zip(some, bound, asks, strict=True)):
            yield some
