"""Whom Kueue would put out: cases from its pages, and what holds of any."""

import random
from collections.abc import Sequence
from typing import Any

import pytest

from tests.wfm.cluster.quota.test_twin import a_cluster
from wfm.cluster.quota import read_cluster
from wfm.cluster.quota.capacity import Tree
from wfm.cluster.quota.cluster import Cluster
from wfm.cluster.quota.preemption import preempted
from wfm.cluster.quota.wish import Wish
from wfm.cluster.quota.workloads import Work, usage_of

GPU = ("gpu", "nvidia.com/gpu")


def queue(name: str, nominal: int, cohort: str = "all", **preemption: Any) -> dict[str, Any]:
    quotas = [{"name": GPU[1], "nominalQuota": nominal}]
    groups = [{"coveredResources": [GPU[1]], "flavors": [{"name": GPU[0], "resources": quotas}]}]
    spec = {"cohortName": cohort, "preemption": preemption, "resourceGroups": groups}
    return {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "ClusterQueue", "metadata": {"name": name}, "spec": spec}


def cohort(name: str, parent: str) -> dict[str, Any]:
    return {
        "apiVersion": "kueue.x-k8s.io/v1beta2",
        "kind": "Cohort",
        "metadata": {"name": name},
        "spec": {"parentName": parent},
    }


def work(name: str, of: str, gpus: int, priority: int = 0, hour: int = 1) -> Work:
    since = f"2026-11-30T{hour:02}:00:00Z"
    return Work(name, "wfm", name, of, "admitted", priority, since, since, {GPU: gpus})


def out(cluster: Cluster, held: Sequence[Work], gpus: int, priority: int = 0) -> list[str]:
    wish = Wish(cluster.queues["mine"], {GPU: gpus}, priority, "2026-11-30T09:00:00Z")
    return sorted(map(str, preempted(wish, cluster, held)))


def test_who_wants_to_borrow_puts_out_others_only_where_that_is_allowed():
    """concepts/preemption.md, "Classic Preemption" and "Targets" 2: borrowWithinCohort, and its threshold."""
    held = [work("low", "theirs", 6, -10), work("middle", "theirs", 6, 50, 2)]
    for policy, threshold, expected in (
        ("Never", None, []),
        ("LowerPriority", None, ["low"]),
        ("LowerPriority", -20, []),
    ):
        borrow = {"policy": policy, **({} if threshold is None else {"maxPriorityThreshold": threshold})}
        mine = queue("mine", 4, reclaimWithinCohort="LowerPriority", borrowWithinCohort=borrow)
        assert out(read_cluster([mine, queue("theirs", 8)]), held, 6, 100) == expected, (policy, threshold)


def test_of_ones_own_goes_the_less_important_and_the_newer_where_that_is_allowed():
    """concepts/cluster_queue.md, "Preemption": withinClusterQueue."""
    held = [work("old", "mine", 4, 0, 1), work("new", "mine", 4, 0, 10)]
    for policy, priority, expected in (
        ("Never", 100, []),
        ("LowerPriority", 0, []),
        ("LowerPriority", 1, ["new"]),
        ("LowerOrNewerEqualPriority", 0, ["new"]),
    ):
        cluster = read_cluster([queue("mine", 8, withinClusterQueue=policy)])
        assert out(cluster, held, 4, priority) == expected, (policy, priority)


def test_the_nearer_claim_goes_before_priority():
    """hierarchical_preemption.go: what an organisation lends to another comes back to any of its queues."""
    objects = [
        queue("mine", 2, "org", reclaimWithinCohort="LowerPriority"), queue("sister", 6, "org"), queue("far", 2, "other"),
        cohort("org", "root"), cohort("other", "root"),
    ]  # fmt: skip
    held = [work("borrower", "far", 8, -1)]
    cluster = read_cluster(objects)
    assert out(cluster, held, 6) == ["borrower"], "6 are more than its own 2, and within the 8 of its organisation"
    assert out(cluster, [work("borrower", "far", 8, 7)], 6) == [], "which LowerPriority still forbids"
    flat = [each for each in objects if each["kind"] == "ClusterQueue"]
    for each in flat:
        each["spec"]["cohortName"] = "root"
    assert out(read_cluster(flat), held, 6) == [], "without organisations it would borrow"


@pytest.mark.parametrize("seed", range(4))
def test_who_goes_makes_room_is_needed_and_was_allowed_to(seed):
    rng = random.Random(seed)
    share = ("a", "nvidia.com/gpu")
    policies = ("Never", "LowerPriority", "Any")
    somebody = 0
    for _ in range(150):
        objects = a_cluster(rng)
        for each in objects:
            if each["kind"] == "ClusterQueue":
                each["spec"]["preemption"] = {
                    "withinClusterQueue": rng.choice(("Never", "LowerPriority", "LowerOrNewerEqualPriority")),
                    "reclaimWithinCohort": rng.choice(policies),
                    "borrowWithinCohort": {"policy": rng.choice(("Never", "LowerPriority"))},
                }
        cluster = read_cluster(objects)
        held: list[Work] = []
        for number in range(8):
            name = rng.choice(list(cluster.queues))
            left = Tree(cluster, usage_of(held, cluster)).available(name, share)
            if left > 0:
                since = f"2026-11-30T0{number}:00:00Z"
                more = {share: rng.randint(1, min(left, 3))}
                held.append(Work(str(number), "wfm", "", name, "admitted", rng.randint(-2, 2), since, since, more))
        mine = rng.choice(list(cluster.queues.values()))
        most = Tree(cluster).potential(mine.name, share)
        if most <= 0:
            continue
        wish = Wish(mine, {share: rng.randint(1, most)}, rng.randint(-2, 2), "2026-11-30T05:30:00Z")
        full = Tree(cluster, usage_of(held, cluster))
        gone = preempted(wish, cluster, held)
        somebody += bool(gone)

        def room(without: Sequence[Work], mine=mine, held=held, cluster=cluster) -> int:
            return Tree(cluster, usage_of(held, cluster, without)).available(mine.name, share)

        assert not gone or room(gone) >= wish.needs[share] > room([])
        for each in gone:
            fewer = [other for other in gone if other is not each]
            kept = Tree(cluster, usage_of(held, cluster, fewer)).in_use(mine.name, share) + wish.needs[share]
            assert room(fewer) < wish.needs[share] or kept > full.own(mine.name, share), "it could have stayed"
            if each.queue == mine.name:
                assert mine.within != "Never"
                assert each.priority < wish.priority or (each.priority == wish.priority and each.created > wish.since)
            else:
                assert mine.reclaim == "Any" or (mine.reclaim == "LowerPriority" and each.priority < wish.priority)
                assert full.in_use(each.queue, share) > full.own(each.queue, share), "it borrowed nothing"
                assert full.root(each.queue) == full.root(mine.name) != ""
    assert somebody > 15


def test_one_tree_serves_for_any_number_of_candidates(monkeypatch):
    """To add up all queues anew for each who may go took minutes at some thousand workloads."""
    made: list[int] = []
    begin = Tree.__init__
    monkeypatch.setattr(Tree, "__init__", lambda self, *words: made.append(1) or begin(self, *words))
    cluster = read_cluster([queue("mine", 400, withinClusterQueue="LowerPriority")])
    held = [work(f"w{number}", "mine", 1, -1) for number in range(400)]
    assert len(out(cluster, held, 400)) == 400
    assert len(made) == 1
