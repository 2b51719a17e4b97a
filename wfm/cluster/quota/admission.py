"""Whether something could ever be admitted: when nothing else runs, and nobody comes first.

The steps are those of Kueue: a queue that is there, active and lets the namespace in (pkg/cache/scheduler/clusterqueue.go,
inactiveReason); every resource covered; for each set of pods and each group of resources the flavours in their order, by
taints, labels and topology (pkg/scheduler/flavorassigner/flavorassigner.go, checkFlavorForPodSets) and by the most that the
tree of cohorts could give (fitsResourceQuota, potentialAvailable). Kueue settles one set after the other, and goes on with the
next flavour when it is asked again; here all choices are looked through, so "never" holds whatever else runs.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from wfm.cluster.quota.amounts import PODS, shown
from wfm.cluster.quota.capacity import Tree
from wfm.cluster.quota.cluster import Cluster, Flavor, Group, Local, Queue, Share
from wfm.cluster.quota.gangs import Gang, PodSet
from wfm.cluster.quota.machines import placement_refusal, topology_refusal
from wfm.cluster.quota.matching import node_refusal, selects, untolerated
from wfm.cluster.quota.namespace import limit_faults, quota_faults
from wfm.cluster.quota.packing import NotReckoned, together_refusal
from wfm.errors import DataError

State = Literal["fits", "held", "never", "unplaceable", "ignored", "unknown"]
"""fits: admitted when it is its turn. held: it would be, and the queue is stopped or not active. never: no quota, flavor or
queue takes it. unplaceable: admitted, and no machines hold it. ignored: Kueue does not take up this kind, so it runs past the
queue. unknown: quota takes it, and whether machines do is not reckoned here; the reasons say why."""
FAILED: tuple[State, ...] = ("never", "unplaceable", "ignored")
"""What no waiting helps."""
INTEGRATIONS = {
    "PyTorchJob": ("pytorchjob",), "TrainJob": ("trainjob",), "JobSet": ("jobset",), "Job": ("job",),
    "DaskJob": ("pod", "deployment"),
}  # fmt: skip
"""Kind -> the integrations of Kueue, of which one takes it up (reference/kueue-config.v1beta2.md, Integrations)."""
MOST_WAYS = 100_000
"""Of spreading the sets of a gang over flavours, that are looked through."""
Choice = Mapping[tuple[str, str], str]
"""(set, resource) -> flavour."""


@dataclass(frozen=True)
class Verdict:
    """What becomes of a gang, in words."""

    gang: Gang
    state: State
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    queue: str = ""
    "ClusterQueue."
    choice: Choice | None = None
    pods: int = 0
    "With so many of its pods, where all are never admitted (partial admission); 0: with all."


def judge(gang: Gang, cluster: Cluster, integrations: Sequence[str] | None = None) -> Verdict:
    """One gang against a cluster. `integrations`: what Kueue takes up, where its configuration is not among the manifests."""
    refused, notes = quota_faults(gang, cluster)
    refused = [*limit_faults(gang, cluster), *refused]
    if not gang.queue:
        try:
            placed = [] if refused else _placed_anywhere(gang, cluster)
            state: State = "never" if refused else "unplaceable" if placed else "fits"
        except NotReckoned as error:
            state, placed = "unknown", [f"whether machines hold it is not known: {error}"]
        return Verdict(gang, state, tuple(refused or placed), ("it stands in no queue", *notes))
    taken = _names(cluster.frameworks) if cluster.frameworks is not None else integrations
    wanted = INTEGRATIONS[gang.kind]
    if taken is not None and not set(wanted) & set(taken):
        says = (
            f"Kueue takes up {', '.join(taken) or 'nothing'}: name {' or '.join(wanted)} in its integrations.frameworks"
        )
        return Verdict(gang, "ignored", (says,), tuple(notes))
    local = cluster.locals.get((gang.namespace, gang.queue))
    if local is None or local.queue not in cluster.queues:
        return Verdict(gang, "never", (*refused, _no_queue(gang, cluster)), tuple(notes))
    queue = cluster.queues[local.queue]
    search = Search(gang, queue, cluster)
    refused += [*_shut(queue, gang, cluster, search.tree), *search.uncovered()]
    try:
        return _in_queue(gang, search, local, refused, notes)
    except NotReckoned as error:
        return Verdict(gang, "unknown", (f"whether machines hold it is not known: {error}",), tuple(notes), queue.name)


def _in_queue(gang: Gang, search: "Search", local: Local, refused: list[str], notes: list[str]) -> Verdict:
    """The verdict on what stands in a queue. Raises NotReckoned."""
    queue, cluster, count = search.queue, search.cluster, 0

    def most(share: Share) -> int:
        return search.tree.potential(queue.name, share)

    choice = None if refused else search.choose(most)
    if not refused and choice is None:
        refused = search.why_not()
        count = fewer(gang, cluster, lambda part: search.of(part).choose(most) is not None)
        if count:
            search = search.of(gang.reduced(count))
            choice = search.choose(most)
            notes += [
                f"admitted with {count} of its {gang.pods} pods, which may be {gang.least} at least: {refused[0]}"
            ]
    if choice is None:
        return Verdict(gang, "never", tuple(refused), tuple(notes), queue.name)
    held = search.choose(most, on_machines=True)
    notes += search.borrowed(held or choice) + search.at_a_time()
    notes += [f"AdmissionCheck {name} has its say, too: what it says is not known here" for name in queue.checks]
    if held is None:
        return Verdict(gang, "unplaceable", tuple(search.why_not_placed()), tuple(notes), queue.name, choice, count)
    stopped = [
        f"{kind} is held (stopPolicy {stop}): nothing is admitted until that is taken back"
        for kind, stop in ((f"LocalQueue {gang.queue}", local.stop), (f"ClusterQueue {queue.name}", queue.stop))
        if stop != "None"
    ]
    if queue.inactive and not stopped:
        stopped = [f"ClusterQueue {queue.name} is not active: {queue.inactive}"]
    return Verdict(gang, "held" if stopped else "fits", tuple(stopped), tuple(notes), queue.name, held, count)


def fewer(gang: Gang, cluster: Cluster, takes: Callable[[Gang], bool]) -> int:
    """The most pods, fewer than it asks for, with which a gang that may have fewer is taken; 0 where it is not (PodSetReducer:
    by halves, as what takes more takes fewer)."""
    if not gang.least or not cluster.partial or not takes(gang.reduced(gang.least)):
        return 0
    low, high = gang.least, gang.pods
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if takes(gang.reduced(middle)) else (low, middle)
    return low


def _names(frameworks: Sequence[str]) -> list[str]:
    """``kubeflow.org/pytorchjob`` -> pytorchjob."""
    return [each.rpartition("/")[2] for each in frameworks]


def _no_queue(gang: Gang, cluster: Cluster) -> str:
    local = cluster.locals.get((gang.namespace, gang.queue))
    if local is None:
        there = sorted(name for namespace, name in cluster.locals if namespace == gang.namespace)
        none = "there is none: make it, or, without Kueue, leave queue out of the settings"
        known = f"there are {', '.join(there)}" if there else none
        return f"there is no LocalQueue {gang.queue} in the namespace {gang.namespace}: {known}"
    known = ", ".join(sorted(cluster.queues)) or "none"
    return f"LocalQueue {gang.queue} is of the ClusterQueue {local.queue}, which is not there: there is {known}"


def _shut(queue: Queue, gang: Gang, cluster: Cluster, tree: Tree) -> Iterator[str]:
    """Why a queue takes nothing from the namespace, or nothing at all, until somebody mends it."""
    if queue.selector is None or not selects(queue.selector, cluster.labels_of(gang.namespace)):
        yield f"the namespaceSelector of ClusterQueue {queue.name} does not let the namespace {gang.namespace} in"
    for name in sorted({flavor for group in queue.groups for flavor in group.flavors}):
        flavor = cluster.flavors.get(name)
        if flavor is None:
            yield f"ClusterQueue {queue.name} is not active: there is no ResourceFlavor {name}"
        elif flavor.topology and flavor.topology not in cluster.topologies:
            yield f"ClusterQueue {queue.name} is not active: there is no Topology {flavor.topology} (ResourceFlavor {name})"
    for check in queue.checks:
        if check not in cluster.checks:
            yield f"ClusterQueue {queue.name} is not active: there is no AdmissionCheck {check}"
    circle = tree.circle(queue.name)
    if circle:
        yield f"its cohorts go in a circle ({' -> '.join(circle)}): nothing of them is admitted"


def _placed_anywhere(gang: Gang, cluster: Cluster) -> list[str]:
    found = [
        placement_refusal(pods, None, cluster, pods.count if gang.whole else 1) for pods in (*gang.sets, *gang.beside)
    ]
    together = together_refusal([(pods, ()) for pods in gang.sets], cluster) if gang.whole and not any(found) else ""
    return [each for each in (*found, together) if each]


class Search:
    """The choices of flavours that a gang has in a queue."""

    def __init__(self, gang: Gang, queue: Queue, cluster: Cluster, tree: Tree | None = None) -> None:
        self.gang, self.queue, self.cluster = gang, queue, cluster
        self.tree = tree or Tree(cluster)
        self.asks = {pods.name: self._counted(pods) for pods in gang.sets}
        "Set -> resource -> what all its pods ask for, as far as Kueue counts it."
        self._refusals: dict[tuple[str, str], str] = {}
        self._apart = ""
        "Why the last choice that had quota had no machines for all sets."
        flavors = [cluster.flavors.get(name) for group in queue.groups for name in group.flavors]
        self._only_topologies = all(flavor and flavor.topology for flavor in flavors)

    def of(self, gang: Gang) -> "Search":
        """The same for another gang of the queue."""
        return Search(gang, self.queue, self.cluster, self.tree)

    def _counted(self, pods: PodSet) -> dict[str, int]:
        found = {
            resource: amount
            for resource, amount in pods.total().items()
            if not any(resource.startswith(prefix) for prefix in self.cluster.excluded)
            and (self.queue.group(resource) or not self.cluster.undeclared)
        }
        return {**found, PODS: pods.count} if self.queue.group(PODS) else found

    def uncovered(self) -> list[str]:
        """Resources that no group of the queue covers: nothing that asks for one is admitted (findFlavorForPodSets)."""
        missing = {name for asks in self.asks.values() for name in asks if self.queue.group(name) is None}
        return [
            f"ClusterQueue {self.queue.name} has no quota of {name}: nothing that asks for it is ever admitted"
            for name in sorted(missing)
        ]

    def choose(self, room: Callable[[Share], int], on_machines: bool = False) -> Choice | None:
        """The first choice, in the order of sets and flavours, with which all fits into ``room``; None where there is none.
        Raises DataError where there are too many ways to look through."""
        steps = [
            (pods, group, {name: amount for name, amount in self.asks[pods.name].items() if name in group.covered})
            for pods in self.gang.sets
            for group in self.queue.groups
        ]
        steps = [step for step in steps if step[2]]
        chosen: dict[tuple[str, str], str] = {}
        used: dict[Share, int] = {}
        # however it came to that: like sets need no second look, unless it matters who lies where
        dead: set[tuple[int, frozenset[tuple[Share, int]], frozenset[tuple[tuple[str, str], str]]]] = set()

        def takes(name: str, pods: PodSet, asks: Mapping[str, int]) -> bool:
            if self.refusal(pods, name) or (on_machines and self._unplaced(pods, name)):
                return False
            return all(used.get((name, each), 0) + amount <= room((name, each)) for each, amount in asks.items())

        several = len(self.gang.sets) > 1 and bool(self.cluster.nodes)

        def settle(place: int) -> bool:
            if place == len(steps):
                return not self.apart(chosen, on_machines)
            state = (
                place,
                frozenset(each for each in used.items() if each[1]),
                frozenset(chosen.items() if several else ()),
            )
            if state in dead:
                return False
            if len(dead) > MOST_WAYS:
                raise DataError(
                    f"{self.gang.kind} {self.gang.job} has {len(steps)} sets, which ClusterQueue {self.queue.name} could "
                    f"spread over its flavors in more than {MOST_WAYS} ways: ask for fewer unlike sets, or fewer flavors"
                )
            pods, group, asks = steps[place]
            for name in group.flavors:
                if not takes(name, pods, asks):
                    continue
                for each, amount in asks.items():
                    used[name, each] = used.get((name, each), 0) + amount
                    chosen[pods.name, each] = name
                if settle(place + 1):
                    return True
                for each, amount in asks.items():
                    used[name, each] -= amount
                    del chosen[pods.name, each]
            dead.add(state)
            return False

        # a set that fits nowhere by itself spares looking at the others
        alone = all(any(takes(name, pods, asks) for name in group.flavors) for pods, group, asks in steps)
        return dict(chosen) if alone and settle(0) else None

    def apart(self, choice: Choice, on_machines: bool) -> str:
        """Why machines do not hold all sets beside each other with a choice; empty where they do. Kueue itself asks that of
        sets in a topology alone; `on_machines`: of all. Raises NotReckoned."""
        flavors = {
            pods.name: tuple(
                self.cluster.flavors[name]
                for name in dict.fromkeys(of for (each, _), of in choice.items() if each == pods.name)
            )
            for pods in self.gang.sets
        }
        placed = [
            (pods, flavors[pods.name])
            for pods in self.gang.sets
            if (on_machines and self.gang.whole)
            or any(each.topology in self.cluster.topologies for each in flavors[pods.name])
        ]
        found = together_refusal(placed, self.cluster)
        self._apart = found or self._apart
        return found

    def refusal(self, pods: PodSet, name: str) -> str:
        """Why a flavour cannot be given to a set, whatever its quota; empty where it can."""
        key = (pods.name, name)
        if key not in self._refusals:
            flavor = self.cluster.flavors.get(name)
            self._refusals[key] = self._refusal(pods, flavor) if flavor else "there is no such ResourceFlavor"
        return self._refusals[key]

    def _refusal(self, pods: PodSet, flavor: Flavor) -> str:
        implied = self._only_topologies and not pods.wish
        if not implied:
            if pods.wish and not flavor.topology:
                return f"it has no topology, and {pods.name} wishes for one ({pods.wish})"
            if not pods.wish and flavor.topology:
                return f"it is for pods that wish for a place in a topology alone, and {pods.name} wishes for none"
            levels = self.cluster.topologies.get(flavor.topology, ())
            if pods.level and pods.level not in levels:
                return f"its topology has no level {pods.level}: {', '.join(levels)}"
        borne = [*(pods.spec.get("tolerations") or ()), *flavor.tolerations]
        taint = untolerated(flavor.taints, [each for each in borne if isinstance(each, Mapping)])
        if taint:
            return f"its taint {taint} is not borne by {pods.name}"
        mismatch = node_refusal(pods.spec, flavor.labels, set(flavor.labels))
        if mismatch:
            return mismatch
        return topology_refusal(pods, flavor, self.cluster) if flavor.topology in self.cluster.topologies else ""

    def _unplaced(self, pods: PodSet, name: str) -> str:
        return placement_refusal(pods, self.cluster.flavors[name], self.cluster, pods.count if self.gang.whole else 1)

    def why_not(self) -> list[str]:
        """For each flavour what keeps the gang out of it: what its pods lack, or what all sets together ask for beyond it."""
        found = []
        for group in self.queue.groups:
            asks = self._of_group(group)
            for name in group.flavors if asks else ():
                refusals = [self.refusal(pods, name) for pods in self.gang.sets]
                refusals = [each for each in refusals if each] or list(self._beyond(name, asks))
                found += [f"flavor {name}: {each}" for each in dict.fromkeys(refusals)]
        return found or [self._apart]

    def _of_group(self, group: Group) -> dict[str, int]:
        found: dict[str, int] = {}
        for asks in self.asks.values():
            for resource in group.covered:
                if resource in asks:
                    found[resource] = found.get(resource, 0) + asks[resource]
        return found

    def _beyond(self, name: str, asks: Mapping[str, int]) -> Iterator[str]:
        for resource, amount in asks.items():
            most, own = (
                self.tree.potential(self.queue.name, (name, resource)),
                self.tree.own(self.queue.name, (name, resource)),
            )
            if amount > most:
                lent = f"its own {shown(resource, own)}" + (
                    f" and {shown(resource, most - own)} that it could borrow" if most > own else ", nothing to borrow"
                )
                yield f"{resource} {shown(resource, amount)} is asked for at once, {shown(resource, most)} is the most ({lent})"

    def why_not_placed(self) -> list[str]:
        """For each flavour why machines do not hold the gang."""
        found = [
            f"flavor {name}: {why}"
            for group in self.queue.groups
            if self._of_group(group)
            for name in group.flavors
            for why in {self._unplaced(pods, name): None for pods in self.gang.sets if not self.refusal(pods, name)}
            if why
        ]
        return found or [self._apart or "no flavor has both quota and machines for it"]

    def shares(self, choice: Choice) -> dict[Share, int]:
        """What the gang would hold with a choice."""
        found: dict[Share, int] = {}
        for (pods, resource), flavor in choice.items():
            found[flavor, resource] = found.get((flavor, resource), 0) + self.asks[pods][resource]
        return found

    def borrowed(self, choice: Choice) -> list[str]:
        """What of it is not the queue's own."""
        return [
            f"borrows {resource} {shown(resource, amount - own)} (flavor {flavor}) from its cohort"
            for (flavor, resource), amount in self.shares(choice).items()
            if amount > (own := self.tree.own(self.queue.name, (flavor, resource)))
        ]

    def at_a_time(self) -> list[str]:
        """How many of several like workloads the queue holds side by side."""
        if self.gang.copies < 2:
            return []
        pods = self.gang.sets[0]
        most = self.gang.copies
        for group in self.queue.groups:
            asks = {name: amount for name, amount in self.asks[pods.name].items() if name in group.covered}
            held = [
                min(self.tree.potential(self.queue.name, (flavor, name)) // amount for name, amount in asks.items())
                for flavor in group.flavors
                if asks and not self.refusal(pods, flavor)
            ]
            most = min(most, sum(held)) if asks else most
        return [f"{most} of its {self.gang.copies} {pods.name}s at a time"] if most < self.gang.copies else []
