"""Whom Kueue would put out for a gang: its classic preemption, step by step.

After pkg/scheduler/preemption/preemption.go (classicalPreemptions, fillBackWorkloads), preemption/classical
(hierarchical_preemption.go, candidate_generator.go) and preemption/common (ordering): who uses what is missing and may be put
out by policy; others' before the own queue's, those first over whom the queue has the nearer claim, then the least important,
then the latest; one after the other until the gang fits, and back in with whoever need not go. The flavors are those that an
empty cluster would give. Fair sharing's own preemption, which weighs shares of whole cohorts, is not reckoned.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wfm.cluster.quota.capacity import Tree
from wfm.cluster.quota.cluster import Cluster, Pool, Queue, Share
from wfm.cluster.quota.workloads import Work, usage_of


@dataclass(frozen=True)
class Wish:
    """Who wants quota."""

    queue: Queue
    needs: Mapping[Share, int]
    priority: int
    since: str
    "When it came; later ones of its priority are newer."


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


def preempted(wish: Wish, cluster: Cluster, held: Sequence[Work]) -> list[Work]:
    """The workloads of ``held`` (those that have quota) that would be put out; none where nothing allowed makes room."""
    tree = Tree(cluster, usage_of(held, cluster))
    short = [share for share, amount in wish.needs.items() if amount > tree.available(wish.queue.name, share)]
    if not all(_may(wish, share, tree) for share in short):
        return []
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
        found = _targets(wish, short, cluster, held, candidates, borrowing)
        if found:
            return found
    return []


def _may(wish: Wish, share: Share, tree: Tree) -> bool:
    """Whether it may put out anybody for this: it asks for no more than its own, its queue or a cohort below the root has room
    for it by quota, or it may do so while borrowing (flavorassigner.go, fitsResourceQuota)."""
    amount = wish.needs[share]
    if wish.queue.borrow != "Never" or tree.own(wish.queue.name, share) >= amount:
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
            if _allowed(work, wish, wish.queue.within):
                found.append(Candidate(work, ()))
            continue
        between = tree.below_meeting(work.queue, path)
        if between and _allowed(work, wish, wish.queue.reclaim) and all(tree.exceeds(each, short) for each in between):
            meets = nearer[between[-1].parent]
            most = wish.queue.borrow_up_to
            cheap = work.priority < wish.priority and (most is None or work.priority <= most)
            found.append(Candidate(work, between, meets, meets or (wish.queue.borrow != "Never" and cheap)))
    latest = sorted(found, key=lambda each: each.work.reserved, reverse=True)
    return sorted(latest, key=lambda each: (not each.between, not each.nearer, each.work.priority))


def _allowed(work: Work, wish: Wish, policy: str) -> bool:
    newer = policy == "LowerOrNewerEqualPriority" and work.priority == wish.priority and work.created > wish.since
    return policy == "Any" or (policy != "Never" and (work.priority < wish.priority or newer))


def _targets(
    wish: Wish,
    short: Sequence[Share],
    cluster: Cluster,
    held: Sequence[Work],
    candidates: Sequence[Candidate],
    borrowing: bool,
) -> list[Work]:
    out: list[Work] = []
    for each in candidates:
        tree = Tree(cluster, usage_of(held, cluster, out))
        if each.between and not (
            (each.borrowing or not borrowing) and all(tree.exceeds(pool, short) for pool in each.between)
        ):
            continue
        out.append(each.work)
        if _fits(wish, cluster, held, out, borrowing):
            break
    else:
        return []
    for work in reversed(out[:-1]):
        fewer = [each for each in out if each is not work]
        if _fits(wish, cluster, held, fewer, borrowing):
            out = fewer
    return out


def _fits(wish: Wish, cluster: Cluster, held: Sequence[Work], out: Sequence[Work], borrowing: bool) -> bool:
    tree = Tree(cluster, usage_of(held, cluster, out))
    name = wish.queue.name
    return all(
        amount <= tree.available(name, share)
        and (borrowing or tree.in_use(name, share) + amount <= tree.own(name, share))
        for share, amount in wish.needs.items()
    )
