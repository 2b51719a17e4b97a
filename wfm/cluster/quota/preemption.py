"""Whom Kueue would put out for a gang: its classic preemption, step by step.

After pkg/scheduler/preemption/preemption.go (classicalPreemptions, fillBackWorkloads), preemption/classical
(hierarchical_preemption.go, candidate_generator.go) and preemption/common (ordering): who uses what is missing and may be put
out by policy; others' before the own queue's, those first over whom the queue has the nearer claim, then the least important,
then the latest; one after the other until the gang fits, and back in with whoever need not go. The flavors are those that an
empty cluster would give. Where shares are weighed: `fair_sharing`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from wfm.cluster.quota import fair_sharing
from wfm.cluster.quota.capacity import Tree
from wfm.cluster.quota.cluster import Cluster, Pool, Share
from wfm.cluster.quota.wish import Wish, allowed, filled_back, fits
from wfm.cluster.quota.workloads import Work, usage_of


@dataclass(frozen=True)
class Candidate:
    """A workload that policies let go."""

    work: Work
    between: tuple[Pool, ...]
    """Its queue and the cohorts above it, up to where its way and that of the wish meet: each must use more than its own. Empty
    for the own queue of the wish."""
    nearer: bool = False
    "Whether the quota it uses is the wish's by the tree, whatever priority either has."
    borrowing: bool = True
    "Whether it may go although the wish's queue would borrow then."


def preempted(wish: Wish, cluster: Cluster, held: Sequence[Work], strategies: Sequence[str] = ()) -> list[Work]:
    """The workloads of ``held`` (those that have quota) that would be put out; none where nothing allowed makes room.
    `strategies`: of fair sharing, where it is on."""
    tree = Tree(cluster, usage_of(held, cluster))
    short = [share for share, amount in wish.needs.items() if amount > tree.available(wish.queue.name, share)]
    fair = bool(strategies)
    if not all(_may(wish, share, tree, fair) for share in short):
        return []
    if fair:
        return fair_sharing.targets(wish, short, tree, held, strategies)
    candidates = _candidates(wish, short, tree, held)
    others = [each for each in candidates if each.between]
    forbidden = wish.queue.borrow == "Never"
    under = all(tree.in_use(wish.queue.name, share) < tree.own(wish.queue.name, share) for share in short)
    ways: tuple[bool, ...] = (True, False)
    if not others or (forbidden and not under):
        ways = (True,)
    elif forbidden and not any(each.nearer for each in others):
        ways = (False, True)
    for borrowing in ways:
        found = _targets(wish, short, tree.beside(), candidates, borrowing)
        if found:
            return found
    return []


def _may(wish: Wish, share: Share, tree: Tree, fair: bool) -> bool:
    """Whether it may put out anybody for this: it asks for no more than its own, its queue or a cohort below the root has room
    for it by quota, or it may do so while borrowing (flavorassigner.go, fitsResourceQuota, canPreemptWhileBorrowing)."""
    amount = wish.needs[share]
    borrowing = wish.queue.borrow != "Never" or (fair and wish.queue.reclaim != "Never")
    if borrowing or tree.own(wish.queue.name, share) >= amount:
        return True
    fits, rest = tree.claims(wish.queue, {share: amount})
    for cohort in tree.above(wish.queue):
        if fits:
            return True
        fits, rest = tree.claims(cohort, rest)
        if fits and not cohort.parent:
            return False
    return False


def _candidates(wish: Wish, short: Sequence[Share], tree: Tree, held: Sequence[Work]) -> list[Candidate]:
    path = tree.above(wish.queue)
    nearer: dict[str, bool] = {}
    claim, rest = tree.claims(wish.queue, wish.needs)
    for cohort in path:
        nearer[cohort.name] = claim
        fits, rest = tree.claims(cohort, rest)
        claim = claim or fits
    found = []
    for work in held:
        if not any(work.usage.get(share) for share in short):
            continue
        if work.queue == wish.queue.name:
            if allowed(work, wish, wish.queue.within):
                found.append(Candidate(work, ()))
            continue
        between = tree.below_meeting(work.queue, path)
        if between and allowed(work, wish, wish.queue.reclaim) and all(tree.exceeds(each, short) for each in between):
            meets = nearer[between[-1].parent]
            most = wish.queue.borrow_up_to
            cheap = work.priority < wish.priority and (most is None or work.priority <= most)
            found.append(Candidate(work, between, meets, meets or (wish.queue.borrow != "Never" and cheap)))
    latest = sorted(found, key=lambda each: each.work.reserved, reverse=True)
    return sorted(latest, key=lambda each: (not each.between, not each.nearer, each.work.priority))


def _targets(
    wish: Wish, short: Sequence[Share], tree: Tree, candidates: Sequence[Candidate], borrowing: bool
) -> list[Work]:
    """`tree`: a copy, from which they are taken."""
    out: list[Work] = []
    for each in candidates:
        if each.between and not (
            (each.borrowing or not borrowing) and all(tree.exceeds(pool, short) for pool in each.between)
        ):
            continue
        tree.put(each.work.queue, each.work.usage, -1)
        out.append(each.work)
        if fits(wish, tree, borrowing):
            return filled_back(wish, tree, out, borrowing)
    return []
