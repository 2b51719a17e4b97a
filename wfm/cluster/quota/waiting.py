"""What a gang waits for now: quota that others hold, who comes first in its queue, and whom it could put out.

From Workload objects and the status of ResourceQuotas, read from the API server or from a file of them. Order in a queue:
concepts/cluster_queue.md, "Queueing strategy".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from wfm.cluster.quota.admission import FAILED, Choice, Search, Verdict, fewer
from wfm.cluster.quota.amounts import shown
from wfm.cluster.quota.capacity import Tree
from wfm.cluster.quota.cluster import STRATEGIES, Cluster, Queue, Share
from wfm.cluster.quota.gangs import Gang
from wfm.cluster.quota.namespace import quota_short
from wfm.cluster.quota.preemption import preempted
from wfm.cluster.quota.wish import Wish
from wfm.cluster.quota.workloads import Work, usage_of, works

Place = Literal["waits", "free", "admitted", "deactivated", "over", "none"]
"""waits: for quota of its queue, or of its namespace where it stands in none. free: there is room now. admitted: it holds its
quota. deactivated: put out for good. over: it ended. none: nothing is told of what it stands in, or it never can be."""
_MOST_NAMED = 5


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


def wait(verdict: Verdict, cluster: Cluster) -> Waiting:
    """Of one gang, as things stand."""
    gang = verdict.gang
    several = works(cluster)
    # of a job that was made again under its name the workloads of the one before may still be there: the latest count
    own = sorted(
        (each for each in several if each.namespace == gang.namespace and _is_of(each.job, gang)),
        key=lambda each: each.created,
    )[-gang.copies :]
    alive = [each for each in own if each.state != "pending"]
    if alive and len(alive) >= gang.copies:
        return _of_its_own(alive)
    if not gang.queue:
        short = None if verdict.state in FAILED else quota_short(gang, cluster)
        if short is None:
            return Waiting("none")
        return Waiting("waits", tuple(short)) if short else Waiting("free", ("there is room now",))
    if verdict.choice is None or verdict.state in ("ignored", "unplaceable"):
        return Waiting("none")
    why = [f"{count} of its {gang.copies} workloads {says}" for count, says in _counted(alive)] if alive else []
    queue = cluster.queues[verdict.queue]
    priority = own[0].priority if own else cluster.priorities.get(gang.workload_priority, 0)
    since = own[0].created if own else "~"  # after all that are there
    ahead = sorted(
        (each for each in several if each.state == "pending" and each.queue == queue.name and each not in own),
        key=lambda each: (-each.priority, each.created),
    )
    first = [each for each in ahead if (-each.priority, each.created) <= (-priority, since)]
    if queue.by_usage and any(each.local != gang.queue for each in ahead):
        first = [each for each in first if each.local == gang.queue]
        why.append(
            f"whether those of other LocalQueues of {queue.name} come before it is not known: by what each queue used of late "
            "(UsageBasedAdmissionFairSharing)"
        )
    if first:
        rule = "none of its queue goes before them (StrictFIFO)" if queue.strict else "those that fit go before it"
        why.append(f"{len(first)} ahead in {queue.name}: {_named(first)}; {rule}")
    held = [each for each in several if each.state == "admitted"]
    return _by_quota(verdict, Present(cluster, queue, held, priority, since), why, first)


@dataclass(frozen=True)
class Present:
    """What a gang meets in its queue."""

    cluster: Cluster
    queue: Queue
    held: Sequence[Work]
    priority: int
    since: str


def _by_quota(verdict: Verdict, now: Present, why: list[str], first: Sequence[Work]) -> Waiting:
    """Whether there is room, now or once others are put out; with fewer pods only where there is none for all."""
    gang = verdict.gang.reduced(verdict.pods) if verdict.pods else verdict.gang
    search = Search(gang, now.queue, now.cluster, Tree(now.cluster, usage_of(now.held, now.cluster)))
    ahead = tuple(map(str, first))
    assert verdict.choice is not None
    free: Place = "waits" if first and now.queue.strict else "free"
    if _fits(search):
        return Waiting(free, (*why, "there is room now"), ahead)
    out, unsure = _put_out(search, verdict.choice, now)
    if not out and not unsure:
        count = fewer(gang, now.cluster, lambda part: _comes_in(search.of(part), now))
        if count:
            part = search.of(gang.reduced(count))
            out = [] if _fits(part) else _put_out(part, verdict.choice, now)[0]
            room = f"for {count} of its {verdict.gang.pods} pods, which may be {gang.least} at least"
            if not out:
                return Waiting(free, (*why, f"there is room now {room}"), ahead)
            why.append(f"there would be room {room}, once others are put out")
    lacking, shares = _lacking(search, verdict.choice)
    holders = sorted(
        (
            each
            for each in now.held
            if any(each.usage.get(share) for share in shares) and _kin(each, now.queue, search.tree, now.cluster)
        ),
        key=lambda each: -sum(each.usage.get(share, 0) for share in shares),
    )
    why += lacking
    why += [f"held by {_named(holders)}"] if holders else []
    why += [f"Kueue would put out {_named(out)} for it"] if out else []
    why += [unsure] if unsure else []
    return Waiting("waits", tuple(why), ahead, tuple(map(str, holders)), tuple(map(str, out)))


def _fits(search: Search) -> bool:
    return search.choose(lambda share: search.tree.available(search.queue.name, share)) is not None


def _comes_in(search: Search, now: Present) -> bool:
    """Whether a gang is admitted, others put out for it or not."""
    if _fits(search):
        return True
    choice = search.choose(lambda share: search.tree.potential(now.queue.name, share))
    return choice is not None and bool(_put_out(search, choice, now)[0])


def _put_out(search: Search, choice: Choice, now: Present) -> tuple[list[Work], str]:
    """(who would be put out; where that hangs on what is not known, nobody, and words for it)."""
    wish = Wish(now.queue, search.shares(choice), now.priority, now.since)
    fair = now.cluster.fair
    if fair is not None:
        return preempted(wish, now.cluster, now.held, fair), ""
    classic = preempted(wish, now.cluster, now.held)
    shared = preempted(wish, now.cluster, now.held, STRATEGIES)
    if {id(each) for each in classic} == {id(each) for each in shared}:
        return classic, ""
    ways = [
        f"{_named(several) if several else 'nobody'} {how}" for several, how in ((classic, "without"), (shared, "with"))
    ]
    return [], (
        f"whom Kueue would put out hangs on fairSharing, which its configuration says, and that is not known here: "
        f"{ways[0]} it, {ways[1]} it (give the ConfigMap kueue-manager-config with --manifests)"
    )


def _of_its_own(alive: Sequence[Work]) -> Waiting:
    """Where all its workloads have been taken up: the worst of them tells."""
    for state in ("deactivated", "over", "admitted"):
        several = [each for each in alive if each.state == state]
        if several and (state != "over" or len(several) == len(alive)):
            place, says = _OF_ITS_OWN[state]
            if len(several) < len(alive):
                says = "; ".join(f"{count} of its {len(alive)} workloads {words}" for count, words in _counted(alive))
            reasons = dict.fromkeys(each.why for each in several if each.why)
            return Waiting(place, (says, *list(reasons)[:_MOST_NAMED]))
    raise AssertionError(alive)


def _counted(alive: Sequence[Work]) -> list[tuple[int, str]]:
    """(how many, what they are)."""
    counts = [(sum(each.state == state for each in alive), says) for state, says in _SEVERAL.items()]
    return [(count, says) for count, says in counts if count]


_SEVERAL = {"admitted": "have their quota", "deactivated": "are deactivated", "over": "ended"}


def _is_of(job: str, gang: Gang) -> bool:
    """Workloads of a DaskJob are those of its workers' pods, which are named after it."""
    return job == gang.job or (gang.kind == "DaskJob" and job.startswith(f"{gang.job}-"))


_OF_ITS_OWN: dict[str, tuple[Place, str]] = {
    "admitted": ("admitted", "it has its quota"),
    "deactivated": (
        "deactivated",
        "it is deactivated (spec.active false): never admitted until somebody activates it",
    ),
    "over": ("over", "it ended"),
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
