"""What a gang waits for now: quota that others hold, who comes first in its queue, and whom it could put out.

From Workload objects (apis/kueue/v1beta2/workload_types.go), read from the API server or from a file of them. Order in a queue:
concepts/cluster_queue.md, "Queueing strategy". Who may be put out: concepts/preemption.md, "Classic Preemption"; what fair
sharing adds (shares of whole cohorts) and what hierarchies reclaim is not reckoned.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from wfm.cluster.lint.quantity import whole
from wfm.cluster.lint.seen import Thing, at, rows, table, word
from wfm.cluster.quota.admission import Choice, Search, Verdict
from wfm.cluster.quota.amounts import read, shown
from wfm.cluster.quota.capacity import Tree
from wfm.cluster.quota.cluster import Cluster, Queue, Share
from wfm.cluster.quota.gangs import Gang

Place = Literal["waits", "free", "admitted", "deactivated", "over", "none"]
"""waits: for quota. free: there is room now. admitted: it holds its quota. deactivated: put out for good. over: it ended. none:
it stands in no queue, or can never be admitted."""
_MOST_NAMED = 5


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

    def __str__(self) -> str:
        return self.job or self.name


@dataclass(frozen=True)
class Waiting:
    """What of a cluster's present matters to a gang."""

    state: Place
    why: tuple[str, ...] = ()
    ahead: tuple[str, ...] = ()
    "Workloads that come before it in its ClusterQueue."
    holders: tuple[str, ...] = ()
    "Workloads that hold what it lacks."
    preempts: tuple[str, ...] = ()
    "Workloads that Kueue would put out for it."


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
        word(said, "message"),
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


def usage_of(several: Sequence[Work]) -> dict[tuple[str, Share], int]:
    """What each ClusterQueue has in use."""
    found: dict[tuple[str, Share], int] = {}
    for work in several:
        for share, amount in work.usage.items():
            found[work.queue, share] = found.get((work.queue, share), 0) + amount
    return found


def wait(verdict: Verdict, cluster: Cluster) -> Waiting:
    """Of one gang, as things stand."""
    gang = verdict.gang
    several = works(cluster)
    own = [each for each in several if each.namespace == gang.namespace and _is_of(each.job, gang)]
    alive = [each for each in own if each.state != "pending"]
    if alive and len(alive) >= gang.copies:
        work = alive[0]
        return Waiting(work.state, (_OF_ITS_OWN[work.state], *([work.why] if work.why else [])))
    if verdict.choice is None or verdict.state in ("ignored", "unplaceable"):
        return Waiting("none")
    queue = cluster.queues[verdict.queue]
    priority = own[0].priority if own else cluster.priorities.get(gang.workload_priority, 0)
    since = own[0].created if own else "~"  # after all that are there
    ahead = sorted(
        (each for each in several if each.state == "pending" and each.queue == queue.name and each not in own),
        key=lambda each: (-each.priority, each.created),
    )
    first = [each for each in ahead if (-each.priority, each.created) <= (-priority, since)]
    held = [each for each in several if each.state == "admitted"]
    search = Search(gang, queue, cluster, Tree(cluster, usage_of(held)))
    fits = search.choose(lambda share: search.tree.available(queue.name, share)) is not None
    why = [f"{len(alive)} of its {gang.copies} workloads have their quota"] if alive else []
    if first:
        rule = "none of its queue goes before them (StrictFIFO)" if queue.strict else "those that fit go before it"
        why.append(f"{len(first)} ahead in {queue.name}: {_named(first)}; {rule}")
    if fits:
        free = not (first and queue.strict)
        return Waiting("free" if free else "waits", (*why, "there is room now"), tuple(map(str, first)))
    lacking, shares = _lacking(search, verdict.choice)
    holders = sorted(
        (
            each
            for each in held
            if any(each.usage.get(share) for share in shares) and _kin(each, queue, search.tree, cluster)
        ),
        key=lambda each: -sum(each.usage.get(share, 0) for share in shares),
    )
    out = preempted(search, queue, priority, since, held, cluster)
    why += lacking
    why += [f"held by {_named(holders)}"] if holders else []
    why += [f"Kueue would put out {_named(out)} for it"] if out else []
    return Waiting("waits", tuple(why), tuple(map(str, first)), tuple(map(str, holders)), tuple(map(str, out)))


def _is_of(job: str, gang: Gang) -> bool:
    """Workloads of a DaskJob are those of its workers' pods, which are named after it."""
    return job == gang.job or (gang.kind == "DaskJob" and job.startswith(f"{gang.job}-"))


_OF_ITS_OWN = {
    "admitted": "it has its quota",
    "deactivated": "it is deactivated (spec.active false): never admitted until somebody activates it",
    "over": "it ended",
}


def _named(several: Sequence[Work]) -> str:
    more = f" and {len(several) - _MOST_NAMED} more" if len(several) > _MOST_NAMED else ""
    return ", ".join(map(str, several[:_MOST_NAMED])) + more


def _kin(work: Work, queue: Queue, tree: Tree, cluster: Cluster) -> bool:
    """Whether a workload's queue is in the same tree of cohorts."""
    if work.queue == queue.name:
        return True
    root = tree.root(queue.name)
    return bool(root) and work.queue in cluster.queues and not tree.circle(work.queue) and tree.root(work.queue) == root


def _lacking(search: Search, choice: Choice) -> tuple[list[str], list[Share]]:
    """What is missing for the choice that would be made of an empty cluster."""
    said, shares = [], []
    for (flavor, resource), amount in search.shares(choice).items():
        left = search.tree.available(search.queue.name, (flavor, resource))
        if amount > left:
            shares.append((flavor, resource))
            said.append(f"{resource} {shown(resource, amount - max(0, left))} is missing (flavor {flavor})")
    return said, shares


def preempted(
    search: Search, queue: Queue, priority: int, since: str, held: Sequence[Work], cluster: Cluster
) -> list[Work]:
    """Whom Kueue would put out so that the gang fits, the fewest it finds; none where its policies let it put out nobody.

    The ways of concepts/preemption.md, "Targets", in their order: own ones alone when there are no others; others while
    borrowing, up to a priority; all without borrowing; own ones alone."""
    tree = search.tree
    own = [each for each in held if each.queue == queue.name and _below(each, priority, since, queue.within)]
    reclaim = [
        each
        for each in held
        if each.queue != queue.name
        and _kin(each, queue, tree, cluster)
        and (queue.reclaim == "Any" or (queue.reclaim == "LowerPriority" and each.priority < priority))
    ]
    cheap = [
        each
        for each in reclaim
        if each.priority < priority and (queue.borrow_up_to is None or each.priority <= queue.borrow_up_to)
    ]
    borrows = queue.borrow == "LowerPriority"
    small = search.choose(lambda share: tree.own(queue.name, share)) is not None
    if not small and not borrows:
        return []
    ways: list[tuple[list[Work], bool]] = [(own, True)] if not reclaim else []
    ways += [([*cheap, *own], True)] if borrows else []
    ways += [([*reclaim, *own], False), (own, True)]
    for candidates, borrowing in ways:
        found = _targets(search, queue, held, candidates, borrowing, cluster)
        if found:
            return found
    return []


def _below(work: Work, priority: int, since: str, policy: str) -> bool:
    if policy == "Never":
        return False
    newer = policy == "LowerOrNewerEqualPriority" and work.priority == priority and work.created > since
    return work.priority < priority or newer


def _targets(
    search: Search, queue: Queue, held: Sequence[Work], candidates: Sequence[Work], borrowing: bool, cluster: Cluster
) -> list[Work]:
    """Put out one after the other until the gang fits, then take back in whoever need not go."""
    line = sorted(candidates, key=lambda each: (each.queue == queue.name, each.priority, _reverse(each.reserved)))
    out: list[Work] = []
    for work in line:
        tree = Tree(cluster, usage_of([each for each in held if each not in out]))
        over = any(tree.in_use(work.queue, share) > tree.own(work.queue, share) for share in work.usage)
        if work.queue != queue.name and not over:
            continue
        out.append(work)
        if _fits(search, queue, held, out, borrowing, cluster):
            break
    else:
        return []
    for work in reversed(out[:-1]):
        fewer = [each for each in out if each is not work]
        if _fits(search, queue, held, fewer, borrowing, cluster):
            out = fewer
    return out


def _fits(
    search: Search, queue: Queue, held: Sequence[Work], out: Sequence[Work], borrowing: bool, cluster: Cluster
) -> bool:
    tree = Tree(cluster, usage_of([each for each in held if each not in out]))

    def room(share: Share) -> int:
        left = tree.available(queue.name, share)
        return left if borrowing else min(left, tree.own(queue.name, share) - tree.in_use(queue.name, share))

    return search.choose(room) is not None


def _reverse(moment: str) -> tuple[int, ...]:
    """Of a time as text, a key by which the latest comes first."""
    return tuple(-ord(letter) for letter in moment)
