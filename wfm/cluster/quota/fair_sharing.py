"""Whom Kueue would put out where fair sharing is on: who uses most beyond its own, weighed, goes first.

After pkg/scheduler/preemption/preemption.go (fairPreemptions, runFirstFsStrategy, runSecondFsStrategy, findCandidates),
preemption/fairsharing (ordering.go, target.go, least_common_ancestor.go, strategy.go) and pkg/cache/scheduler/fair_sharing.go
(dominantResourceShare, CompareDRS). In words: from the root of the cohorts down to the child with the highest share, to a queue
and its least important workload; it goes where the wish's side, with the wish, has no higher share than the other side has
without that workload (LessThanOrEqualToFinalShare), or a lower one than it has now (LessThanInitialShare). Sides are the two
subtrees below the nearest common cohort. Of two cohorts with one share Kueue does not say which comes first; here it is the
last by name.
"""

from collections.abc import Iterator, Sequence

from wfm.cluster.quota.capacity import Tree
from wfm.cluster.quota.cluster import Pool, Queue, Share
from wfm.cluster.quota.wish import Wish, allowed, filled_back, fits
from wfm.cluster.quota.workloads import Work

FinalShare, InitialShare = "LessThanOrEqualToFinalShare", "LessThanInitialShare"
Weighed = tuple[bool, float]
"""To be compared: (whether it borrows with a weight of zero, the share)."""
_NONE: Weighed = (False, -1.0)


def targets(
    wish: Wish, short: Sequence[Share], tree: Tree, held: Sequence[Work], strategies: Sequence[str]
) -> list[Work]:
    """The workloads that would go for a wish that lacks ``short``; none where nothing allowed makes room."""
    tree = tree.beside()
    candidates = _candidates(wish, short, tree, held)
    tree.put(wish.queue.name, wish.needs)  # shares are those with it
    search = _Search(wish, tree)
    done, rest = search.first(candidates, short, strategies[0])
    if not done and len(strategies) > 1:
        done = search.second(rest)
    if not done:
        return []
    tree.put(wish.queue.name, wish.needs, -1)
    return filled_back(wish, tree, search.out, True)


def _candidates(wish: Wish, short: Sequence[Share], tree: Tree, held: Sequence[Work]) -> list[Work]:
    """findCandidates: of the own queue and of those that borrow what is short, as the policies let; others' first, then the
    least important, then the latest."""
    path = tree.above(wish.queue)
    kin = tree.queues_below(path[-1]) if path else []
    borrowing = {queue.name for queue in kin if queue is not wish.queue and tree.exceeds(queue, short)}
    found = [
        work
        for work in held
        if any(work.usage.get(share) for share in short)
        and (
            (work.queue == wish.queue.name and allowed(work, wish, wish.queue.within))
            or (work.queue in borrowing and allowed(work, wish, wish.queue.reclaim))
        )
    ]
    latest = sorted(found, key=lambda work: work.reserved, reverse=True)
    return sorted(latest, key=lambda work: (work.queue == wish.queue.name, work.priority))


class _Search:
    """One try to make room; `out` are those that go."""

    def __init__(self, wish: Wish, tree: Tree) -> None:
        self._wish, self._tree = wish, tree
        self._path = tree.above(wish.queue)
        self.out: list[Work] = []

    def first(self, candidates: Sequence[Work], short: Sequence[Share], strategy: str) -> tuple[bool, list[Work]]:
        """(whether it fits, those that the strategy did not let go)."""
        entitled = not any(self._beyond_own(share) for share in short)
        order = _Order(self._wish, self._tree, self._path, candidates)
        rest: list[Work] = []
        for queue in order:
            if queue is self._wish.queue or entitled:
                if self._puts_out(order.pop(queue)):
                    return True, []
                continue
            mine, before = self._shares(queue)
            while order.left(queue):
                work = order.pop(queue)
                if self._passes(strategy, mine, before, queue, work):
                    if self._puts_out(work):
                        return True, []
                    break
                rest.append(work)
        return False, rest

    def second(self, candidates: Sequence[Work]) -> bool:
        """LessThanInitialShare for those that are left, one of each queue."""
        order = _Order(self._wish, self._tree, self._path, candidates)
        for queue in order:
            mine, before = self._shares(queue)
            work = order.pop(queue)
            if mine < before and self._puts_out(work):
                return True
            order.drop(queue)
        return False

    def _passes(self, strategy: str, mine: Weighed, before: Weighed, queue: Queue, work: Work) -> bool:
        if strategy == InitialShare:
            return mine < before
        self._tree.put(work.queue, work.usage, -1)
        after = self._shares(queue)[1]
        self._tree.put(work.queue, work.usage)
        return mine <= after

    def _puts_out(self, work: Work) -> bool:
        """Whether the wish fits without it."""
        self._tree.put(work.queue, work.usage, -1)
        self.out.append(work)
        self._tree.put(self._wish.queue.name, self._wish.needs, -1)
        found = fits(self._wish, self._tree, True)
        self._tree.put(self._wish.queue.name, self._wish.needs)
        return found

    def _beyond_own(self, share: Share) -> bool:
        name = self._wish.queue.name
        return self._tree.in_use(name, share) > self._tree.own(name, share)

    def _shares(self, queue: Queue) -> tuple[Weighed, Weighed]:
        """Of the two sides below the nearest cohort of both: the wish's, the other's."""
        theirs = self._tree.below_meeting(queue.name, self._path)[-1]
        ours: Pool = self._wish.queue
        for cohort in self._path:
            if cohort.name == theirs.parent:
                break
            ours = cohort
        return weighed(self._tree, ours), weighed(self._tree, theirs)


def weighed(tree: Tree, pool: Pool) -> Weighed:
    """The share of a queue or cohort: what it borrows of what its parent could get, of the resource of which that is most, by
    its weight."""
    found = 0.0
    borrowed = tree.borrowed(pool) if pool.parent else {}
    if borrowed:
        lendable = tree.lendable(tree.parent(pool))
        found = max(
            (1000.0 * more / lendable[name] for name, more in borrowed.items() if lendable.get(name, 0) > 0),
            default=0.0,
        )
    if pool.weight == 0:
        return found > 0, found
    return False, found / pool.weight


class _Order:
    """Queues in the order in which they are looked at (TargetClusterQueueOrdering): one comes again while its share is the
    highest. Between two of them `pop` or `drop` is called."""

    def __init__(self, wish: Wish, tree: Tree, path: Sequence[Pool], candidates: Sequence[Work]) -> None:
        self._wish, self._tree, self._path = wish, tree, path
        self._of: dict[str, list[Work]] = {}
        self._rank = {id(work): place for place, work in enumerate(candidates)}
        for work in candidates:
            self._of.setdefault(work.queue, []).append(work)
        self._pruned: set[str] = set()
        self._closed: set[str] = set()
        "Names of queues and of cohorts in which nothing is left."

    def left(self, queue: Queue) -> bool:
        """Whether a queue has candidates."""
        return bool(self._of.get(queue.name))

    def pop(self, queue: Queue) -> Work:
        """Its next one."""
        return self._of[queue.name].pop(0)

    def drop(self, queue: Queue) -> None:
        """It comes no more."""
        self._pruned.add(queue.name)

    def __iter__(self) -> Iterator[Queue]:
        if not self._path:
            while self.left(self._wish.queue) and self._wish.queue.name not in self._pruned:
                yield self._wish.queue
            return
        root = self._path[-1]
        while root.name not in self._closed:
            found = self._next(root)
            if found is not None:
                yield found

    def _next(self, cohort: Pool) -> Queue | None:
        queue, of_queue = self._best_queue(cohort)
        inner, of_inner = self._best_cohort(cohort)
        if queue is None and inner is None:
            self._closed.add(cohort.name)
            return None
        return self._next(inner) if inner is not None and of_inner >= of_queue else queue

    def _best_queue(self, cohort: Pool) -> tuple[Queue | None, Weighed]:
        best, highest = None, _NONE
        for queue in self._tree.children(cohort):
            if not isinstance(queue, Queue) or queue.name in self._pruned:
                continue
            if not self.left(queue) or (queue is not self._wish.queue and not self._tree.borrowed(queue)):
                self._pruned.add(queue.name)
                continue
            share = weighed(self._tree, queue)
            if share > highest or (share == highest and best is not None and self._first(queue) < self._first(best)):
                best, highest = queue, share
        return best, highest

    def _best_cohort(self, cohort: Pool) -> tuple[Pool | None, Weighed]:
        best, highest = None, _NONE
        for inner in sorted(self._tree.children(cohort), key=lambda each: each.name):
            if isinstance(inner, Queue) or inner.name in self._closed:
                continue
            if not any(inner is each for each in self._path) and not self._tree.borrowed(inner):
                self._closed.add(inner.name)
                continue
            share = weighed(self._tree, inner)
            if share >= highest:
                best, highest = inner, share
        return best, highest

    def _first(self, queue: Queue) -> int:
        return self._rank[id(self._of[queue.name][0])]
