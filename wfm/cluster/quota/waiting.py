"""What a gang waits for now: quota that others hold, who comes first in its queue, and whom it could put out.

From Workload objects and the status of ResourceQuotas, read from the API server or from a file of them. Order in a queue:
concepts/cluster_queue.md, "Queueing strategy".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from wfm.cluster.quota.admission import FAILED, Choice, Search, Verdict
from wfm.cluster.quota.amounts import shown
from wfm.cluster.quota.capacity import Tree
from wfm.cluster.quota.cluster import Cluster, Queue, Share
from wfm.cluster.quota.gangs import Gang
from wfm.cluster.quota.namespace import quota_short
from wfm.cluster.quota.preemption import Wish, preempted
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
    own = [each for each in several if each.namespace == gang.namespace and _is_of(each.job, gang)]
    alive = [each for each in own if each.state != "pending"]
    if alive and len(alive) >= gang.copies:
        state, says = _OF_ITS_OWN[alive[0].state]
        return Waiting(state, (says, *([alive[0].why] if alive[0].why else [])))
    if not gang.queue:
        short = None if verdict.state in FAILED else quota_short(gang, cluster)
        if short is None:
            return Waiting("none")
        return Waiting("waits", tuple(short)) if short else Waiting("free", ("there is room now",))
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
    search = Search(gang, queue, cluster, Tree(cluster, usage_of(held, cluster)))
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
    out = preempted(Wish(queue, search.shares(verdict.choice), priority, since), cluster, held)
    why += lacking
    why += [f"held by {_named(holders)}"] if holders else []
    why += [f"Kueue would put out {_named(out)} for it"] if out else []
    return Waiting("waits", tuple(why), tuple(map(str, first)), tuple(map(str, holders)), tuple(map(str, out)))


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
