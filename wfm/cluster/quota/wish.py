"""A wish for quota, and what both ways of making room for it ask: who may go, whether it fits, who need not have gone.

`preemption` is the classic way, `fair_sharing` the one by shares.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wfm.cluster.quota.capacity import Tree
from wfm.cluster.quota.cluster import Queue, Share
from wfm.cluster.quota.workloads import Work


@dataclass(frozen=True)
class Wish:
    """Who wants quota."""

    queue: Queue
    needs: Mapping[Share, int]
    priority: int
    since: str
    "When it came; later ones of its priority are newer."


def allowed(work: Work, wish: Wish, policy: str) -> bool:
    """Whether a policy lets a workload go for a wish."""
    newer = policy == "LowerOrNewerEqualPriority" and work.priority == wish.priority and work.created > wish.since
    return policy == "Any" or (policy != "Never" and (work.priority < wish.priority or newer))


def filled_back(wish: Wish, tree: Tree, out: Sequence[Work], borrowing: bool) -> list[Work]:
    """Without those that need not go, the last one first (fillBackWorkloads). `tree`: a copy, without all of them."""
    kept = list(out)
    for work in reversed(out[:-1]):
        tree.put(work.queue, work.usage)
        if fits(wish, tree, borrowing):
            kept = [each for each in kept if each is not work]
        else:
            tree.put(work.queue, work.usage, -1)
    return kept


def fits(wish: Wish, tree: Tree, borrowing: bool) -> bool:
    """Whether there is room now."""
    name = wish.queue.name
    return all(
        amount <= tree.available(name, share)
        and (borrowing or tree.in_use(name, share) + amount <= tree.own(name, share))
        for share, amount in wish.needs.items()
    )
