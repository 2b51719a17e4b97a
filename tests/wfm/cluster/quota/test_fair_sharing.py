"""Whom Kueue would put out where shares are weighed: its own cases (pkg/scheduler/preemption/preemption_fair_test.go, 0.19)."""

from typing import Any

import pytest
import yaml

from wfm.cluster.quota import read_cluster
from wfm.cluster.quota.cluster import STRATEGIES
from wfm.cluster.quota.preemption import preempted
from wfm.cluster.quota.wish import Wish
from wfm.cluster.quota.workloads import Work
from wfm.errors import DataError

BASE = "a all 3 within any; b all 3 within any; c all 3 within any; preemptible all 0"
"""Of a queue or cohort: name, parent, quota, weight; whether it may put out its own, and others'."""
WEIGHTED = "a all 3 within any; b all 3 within any *{}; c all 3 within any"
TREE = "a LEFT 1 any *2; b LEFT 1; c ROOT 1; d RIGHT 1; e RIGHT 1 *0.99; ROOT - 5; LEFT ROOT 5 *2; RIGHT ROOT 5"
DEEP = (
    "a AAA 0 any; b BBB 0; ROOT - 0; A ROOT 0 *1.01; AA A 0; AAA AA 0; B ROOT 0 *0.99; BB B 0; BBB BB 0; "
    "C ROOT 0; CC C 0; CCC CC 0; CCCC CCC 1"
)
UNITS = "a1 a2 a3 b1 b2 b3 b4 b5"
CASES: dict[str, tuple[str, str, str, float, str]] = {
    # queues and cohorts; workloads (name:cpu@priority, its queue is its first letter); queue, cpu (of the wish); who goes
    "reclaim nominal from user using the most": (BASE, f"{UNITS} c1", "c", 1, "b1"),
    "can reclaim from queue using less": (BASE, "a1:3 a2 b1:2 b2:3", "c", 3, "a1"),
    "reclaim borrowable quota from user using the most": (BASE, f"{UNITS} c1", "a", 1, "b1"),
    "preempt one from each CQ borrowing": (BASE, "a1:.5 a2:.5 a3:3 b1:.5 b2:.5 b3:3", "c", 2, "a1 b1"),
    "can't preempt when everyone under nominal": (BASE, "a1 a2 a3 b1 b2 b3 c1 c2 c3", "c", 1, ""),
    "can't preempt when it would switch the imbalance": (BASE, UNITS, "a", 2, ""),
    "can preempt lower priority workloads from same CQ": (
        BASE, "a1_low@-1 a2_low@-1 a3 a4 b1 b2 b3 b4 b5", "a", 2, "a1_low a2_low",
    ),
    "can preempt a combination of same CQ and highest user": (
        BASE, "a_low@-1 a2 a3 b1 b2 b3 b4 b5 b6", "a", 2, "a_low b1",
    ),
    "preempt huge workload if there is no other option": (BASE, "b1:9", "a", 2, "b1"),
    "can't preempt huge workload if the incoming is also huge": (BASE, "a1:2 b1:7", "a", 5, ""),
    "can't preempt 2 smaller workloads if the incoming is huge": (BASE, "b1:2 b2:2 b3:3", "a", 6, ""),
    "preempt from target and others even if over nominal": (BASE, "a1_low:2@-1 a2_low@-1 b1:3 b2:3", "a", 4, "a1_low b1"),
    "prefer workloads that don't make the target CQ have the biggest share": (BASE, "b1:2 b2 b3:2 c1", "a", 3.5, "b2"),
    "different cluster queues if the end result has a smaller max share": (BASE, "b1:2 b2:2.5 c1:2 c2:2.5", "a", 3.5, "b1 c1"),
    "scenario above does not flap": (BASE, "a1:3.5 b2:2.5 c2:2.5", "b", 2, ""),
    "not if the candidate would go under nominal": (BASE, "b1:3 b2:3 c1:3", "a", 4, ""),
    "under priority threshold not capriciously preempted": (BASE, "a1 a2 a3 b1 b2 b3 p1@-3 p2@-3 p3@-3", "a", 2, ""),
    "CQ with higher weight can preempt more": (
        "a all 3 within any *2; b all 3 within any; c all 3 within any", f"{UNITS} b6", "a", 2, "b1 b2",
    ),
    "can preempt anything borrowing from CQ with 0 weight": (WEIGHTED.format(0), f"{UNITS} b6", "a", 3, "b1 b2 b3"),
    "can't preempt nominal from CQ with 0 weight": (WEIGHTED.format(0)[:-25], "a1 a2 a3 b1 b2 b3", "a", 1, ""),
    "can't preempt nominal from Cohort with 0 weight": (
        "left root 0 any; right right-cohort 0 any *0; right-cohort root 1 *0", "right1", "left", 1, "",
    ),
    "can preempt within cluster queue when no cohort": ("a - 1 within", "a1@-1", "a", 1, "a1"),
    "hierarchical preemption": (
        TREE, " ".join(f"{name}{number}@{number}" for name in "bcde" for number in range(1, 6)), "a", 5, "b1 b2 c1 c2 e1",
    ),
    "borrowing cq in non-borrowing cohort is protected": (
        "a ROOT 5 within any *10; b RIGHT 0 *0.1; ROOT - 0; RIGHT ROOT 1 *0.1", "a1@-1 a2@-1 a3@-1 b1@-1", "a", 5, "a1 a2 a3",
    ),
    "forced to preempt within as the borrowing workload is too important": (
        "a ROOT 5 within lower *10; b RIGHT 0 *0.1; ROOT - 0; RIGHT ROOT 3 *0.1", "a1@-1 a2@-1 a3@-1 b1:4@100", "a", 4,
        "a1 a2 a3",
    ),
    "deep preemption": (DEEP, "b1", "a", 1, "b1"),
    "cq with zero weight can reclaim nominal quota": ("a ROOT 1 any *0; b ROOT 0", "b1", "a", 1, "b1"),
    "cohort with zero weight can reclaim nominal quota": ("a A 0 any *0; b ROOT 0; A ROOT 1 *0", "b1", "a", 1, "b1"),
    "zero weight borrowing preemptor cannot from a non-zero weight": ("a all 1 any *0; b all 1", "a1 b1 b2", "a", 1, ""),
    "zero weight borrowing preemptor can preempt from zero weight": (
        "a all 1 any *0; b all 0 *0; all - 3", "b1 b2 b3", "a", 2, "b1",
    ),
    "non-zero weight borrowing preemptor preempts": ("a all 1 any; b all 0; all - 3", "b1 b2 b3", "a", 2, "b1"),
}  # fmt: skip


def cluster(told: str) -> list[dict[str, Any]]:
    """Objects of a short form; what is somebody's parent is a cohort."""
    rows = [row.split() for row in told.split("; ")]
    parents = {row[1] for row in rows}
    found = []
    for name, parent, nominal, *more in rows:
        quota = [{"name": "cpu", "nominalQuota": nominal}]
        groups = [{"coveredResources": ["cpu"], "flavors": [{"name": "default", "resources": quota}]}]
        weights = [each[1:] for each in more if each.startswith("*")]
        weight = {"fairSharing": {"weight": weights[0]}} if weights else {}
        inside = {} if parent == "-" else {"parentName" if name in parents else "cohortName": parent}
        policy = {
            "withinClusterQueue": "LowerPriority" if "within" in more else "Never",
            "reclaimWithinCohort": "Any" if "any" in more else "LowerPriority" if "lower" in more else "Never",
        }
        spec = {"resourceGroups": groups, **inside, **weight, **({} if name in parents else {"preemption": policy})}
        kind = "Cohort" if name in parents else "ClusterQueue"
        found.append({"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": kind, "metadata": {"name": name}, "spec": spec})
    return found


def works(told: str, queues: str, flavor: str = "default") -> list[Work]:
    names = [row.split()[0] for row in queues.split("; ")]
    found = []
    for each in told.split():
        rest, _, priority = each.partition("@")
        name, _, cpu = rest.partition(":")
        queue = next(one for one in names if one[0] == name[0])
        usage = {(flavor, "cpu"): round(float(cpu or 1) * 1000)}
        since = "2026-11-30T01:00:00Z"
        found.append(Work(name, "wfm", name, queue, "admitted", int(priority or 0), since, since, usage))
    return found


def out(queues: str, held: str, queue: str, cpu: float, strategies: tuple[str, ...] = STRATEGIES) -> str:
    there = read_cluster(cluster(queues))
    wish = Wish(there.queues[queue], {("default", "cpu"): round(cpu * 1000)}, 0, "2026-11-30T09:00:00Z")
    return " ".join(sorted(map(str, preempted(wish, there, works(held, queues), strategies))))


@pytest.mark.parametrize("case", CASES)
def test_its_own_cases(case):
    queues, held, queue, cpu, expected = CASES[case]
    assert out(queues, held, queue, cpu) == expected


def test_each_strategy_for_itself():
    held = "a1:3 b_low:5 b_high:1@1"
    assert out(BASE, held, "a", 1, ("LessThanInitialShare",)) == "b_low", "even if big"
    assert out(BASE, held, "a", 1, ("LessThanOrEqualToFinalShare",)) == "b_high", (
        "which does not transfer the imbalance"
    )


def test_classic_preemption_says_other_things():
    """So the one does not stand for the other."""
    several = [case for case, (*asked, expected) in CASES.items() if out(*asked, strategies=()) != expected]
    assert len(several) > 5


def test_what_is_its_own_comes_back_though_it_borrows_of_another_flavor():
    """ "nominal first: workload fitting within nominal can preempt despite high aggregate DRS"."""
    objects = cluster("a all 3 any; b all 0")
    for each, cheap in zip(objects, (0, 6), strict=True):
        flavors = each["spec"]["resourceGroups"][0]["flavors"]
        flavors.append({"name": "cheap", "resources": [{"name": "cpu", "nominalQuota": cheap}]})
    held = [
        *works("a1 a2", "a -"), *works("a3 a4 a5 a6 a7", "a -", "cheap"), *works("b1", "b -"),
    ]  # fmt: skip
    there = read_cluster(objects)
    wish = Wish(there.queues["a"], {("default", "cpu"): 1000}, 0, "2026-11-30T09:00:00Z")
    assert [str(each) for each in preempted(wish, there, held, STRATEGIES)] == ["b1"]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({}, ()),
        ({"fairSharing": {}}, STRATEGIES),
        ({"fairSharing": {"preemptionStrategies": ["LessThanInitialShare"]}}, ("LessThanInitialShare",)),
        ({"fairSharing": {"enable": False, "preemptionStrategies": ["LessThanInitialShare"]}}, ()),
    ],
)
def test_what_the_configuration_says(told, expected):
    configuration = {"apiVersion": "config.kueue.x-k8s.io/v1beta2", "kind": "Configuration", **told}
    assert read_cluster([configuration]).fair == expected
    text = {"controller_manager_config.yaml": yaml.safe_dump(configuration)}
    installed = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kueue-manager-config"}, "data": text}
    assert read_cluster([installed]).fair == expected
    assert read_cluster([]).fair is None, "nobody said"


def test_a_weight_that_is_none_is_refused_by_name():
    (one,) = cluster("a - 1 *heavy")
    with pytest.raises(DataError, match=r"spec\.fairSharing\.weight = 'heavy' is no weight"):
        read_cluster([one])
