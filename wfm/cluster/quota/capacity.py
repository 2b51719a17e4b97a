"""How much of a flavour a ClusterQueue can get: its own quota, and what its tree of cohorts lends it.

The sums are those of Kueue's pkg/cache/scheduler/resource_node.go, under the same names: SubtreeQuota, localQuota, available,
potentialAvailable. In words: a node of the tree has its nominal quota and what its children lend (their subtree's up to
``lendingLimit``); what lies above ``lendingLimit`` it keeps to itself; from above it gets ``borrowingLimit`` at most.
"""

import copy
from collections.abc import Mapping, Sequence

from wfm.cluster.quota.cluster import Cluster, Pool, Queue, Quota, Share

_NONE = Quota(0)


class Tree:
    """The queues and cohorts of a cluster, with what is in use."""

    def __init__(self, cluster: Cluster, usage: Mapping[tuple[str, Share], int] | None = None) -> None:
        """`usage`: what the admitted workloads of each ClusterQueue hold."""
        named = {pool.parent for pool in (*cluster.queues.values(), *cluster.cohorts.values()) if pool.parent}
        # a cohort is there when somebody names it, with or without an object (concepts/cluster_queue.md, "Cohort")
        implied = {name: Pool(name, "", {}) for name in named if name not in cluster.cohorts}
        self._queues, self._cohorts = cluster.queues, {**implied, **cluster.cohorts}
        self._children: dict[str, list[Pool]] = {name: [] for name in self._cohorts}
        for pool in (*self._queues.values(), *self._cohorts.values()):
            if pool.parent:
                self._children[pool.parent].append(pool)
        self._usage = dict(usage or {})
        self._subtrees: dict[tuple[int, Share], int] = {}

    def beside(self) -> "Tree":
        """The same, for workloads to be taken out of it and put into it; what was summed up of quotas is shared."""
        other = copy.copy(self)
        other._usage = dict(self._usage)
        return other

    def put(self, queue: str, usage: Mapping[Share, int], times: int = 1) -> None:
        """Let a queue use more; with -1 as its `times`, less."""
        for share, amount in usage.items():
            self._usage[queue, share] = self._usage.get((queue, share), 0) + times * amount

    def circle(self, queue: str) -> list[str]:
        """The cohorts above a queue when they go round: nothing of such a tree is admitted (snapshot.go, HasCycle)."""
        found: list[str] = []
        name = self._queues[queue].parent
        while name:
            if name in found:
                return [*found, name]
            found.append(name)
            name = self._cohorts[name].parent
        return []

    def root(self, queue: str) -> str:
        """The cohort at the top of a queue's tree; empty where it is in none."""
        name = self._queues[queue].parent
        while name and self._cohorts[name].parent:
            name = self._cohorts[name].parent
        return name

    def potential(self, queue: str, share: Share) -> int:
        """The most that one workload of a queue could get when nothing else runs: potentialAvailable."""
        return self._potential(self._queues[queue], share)

    def available(self, queue: str, share: Share) -> int:
        """What is left for a queue now; below zero where more is in use than there is."""
        return self._available(self._queues[queue], share)

    def in_use(self, queue: str, share: Share) -> int:
        """What the workloads of a queue hold."""
        return self._usage.get((queue, share), 0)

    def own(self, queue: str, share: Share) -> int:
        """Its nominal quota: above it, it borrows."""
        return self._queues[queue].quotas.get(share, _NONE).nominal

    def above(self, queue: Queue) -> list[Pool]:
        """The cohorts above a queue, the nearest first."""
        found: list[Pool] = []
        name = queue.parent
        while name:
            found.append(self._cohorts[name])
            name = found[-1].parent
        return found

    def parent(self, pool: Pool) -> Pool:
        """The cohort that one is in."""
        return self._cohorts[pool.parent]

    def children(self, cohort: Pool) -> list[Pool]:
        """Queues and cohorts directly below one."""
        return self._below(cohort)

    def queues_below(self, pool: Pool) -> list[Queue]:
        """A queue itself; of a cohort all in its tree."""
        if isinstance(pool, Queue):
            return [pool]
        return [queue for child in self._below(pool) for queue in self.queues_below(child)]

    def below_meeting(self, queue: str, path: Sequence[Pool]) -> tuple[Pool, ...]:
        """Another queue and the cohorts above it, without the first one that is in ``path``; empty where none is."""
        if queue not in self._queues or self.circle(queue):
            return ()
        found: list[Pool] = [self._queues[queue]]
        for cohort in self.above(self._queues[queue]):
            if any(cohort is each for each in path):
                return tuple(found)
            found.append(cohort)
        return ()

    def exceeds(self, pool: Pool, shares: Sequence[Share]) -> bool:
        """Whether more of one of these is in use than the quota of its subtree: not IsWithinNominalInResources."""
        return any(self._used(pool, share) > self._subtree(pool, share) for share in shares)

    def claims(self, pool: Pool, needs: Mapping[Share, int]) -> tuple[bool, dict[Share, int]]:
        """(whether needs fit into the quota of a subtree beside what it uses, what of them its parent would have to hold):
        QuantitiesFitInQuota."""
        fits = all(self._subtree(pool, share) >= self._used(pool, share) + need for share, need in needs.items())
        local = {share: max(0, self._local(pool, share) - self._used(pool, share)) for share in needs}
        return fits, {share: max(0, need - local[share]) for share, need in needs.items()}

    def borrowed(self, pool: Pool) -> dict[str, int]:
        """Resource -> what a queue or cohort uses beyond the quota of its subtree, over all flavors (dominantResourceShare)."""
        found: dict[str, int] = {}
        for share in self._shares(pool):
            more = self._used(pool, share) - self._subtree(pool, share)
            if more > 0:
                found[share[1]] = found.get(share[1], 0) + more
        return found

    def lendable(self, cohort: Pool) -> dict[str, int]:
        """Resource -> the most that a cohort could get, over all flavors of its tree (calculateLendable)."""
        root = cohort
        while root.parent:
            root = self._cohorts[root.parent]
        found: dict[str, int] = {}
        for share in self._shares(root):
            found[share[1]] = found.get(share[1], 0) + self._potential(cohort, share)
        return found

    def _shares(self, pool: Pool) -> set[Share]:
        """That a subtree has quota of."""
        return set(pool.quotas).union(*(self._shares(child) for child in self._below(pool)))

    def _subtree(self, pool: Pool, share: Share) -> int:
        known = self._subtrees.get((id(pool), share))
        if known is None:
            known = pool.quotas.get(share, _NONE).nominal
            for child in self._below(pool):
                known += self._subtree(child, share) - self._local(child, share)
            self._subtrees[id(pool), share] = known
        return known

    def _below(self, pool: Pool) -> list[Pool]:
        return self._children[pool.name] if self._cohorts.get(pool.name) is pool else []

    def _local(self, pool: Pool, share: Share) -> int:
        """What it lends to nobody."""
        lending = pool.quotas.get(share, _NONE).lending
        return 0 if lending is None else max(0, self._subtree(pool, share) - lending)

    def _used(self, pool: Pool, share: Share) -> int:
        """Of a queue what its workloads hold; of a cohort what its children use beyond their own."""
        if self._cohorts.get(pool.name) is not pool:
            return self.in_use(pool.name, share)
        return sum(max(0, self._used(child, share) - self._local(child, share)) for child in self._below(pool))

    def _potential(self, pool: Pool, share: Share) -> int:
        if not pool.parent:
            return self._subtree(pool, share)
        most = self._local(pool, share) + self._potential(self._cohorts[pool.parent], share)
        borrowing = pool.quotas.get(share, _NONE).borrowing
        return most if borrowing is None else min(most, self._subtree(pool, share) + borrowing)

    def _available(self, pool: Pool, share: Share) -> int:
        subtree, used = self._subtree(pool, share), self._used(pool, share)
        if not pool.parent:
            return subtree - used
        local = self._local(pool, share)
        above = self._available(self._cohorts[pool.parent], share)
        borrowing = pool.quotas.get(share, _NONE).borrowing
        if borrowing is not None:
            above = min(above, subtree - local - max(0, used - local) + borrowing)
        return max(0, local - used) + above
