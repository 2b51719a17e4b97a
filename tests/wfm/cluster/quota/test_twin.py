"""What can be admitted, against a plain twin: quota as tokens that are carried through the tree of cohorts, one by one.

A token lies where its quota is nominal. It goes up out of a queue or cohort at most ``lendingLimit`` times, and down into one
at most ``borrowingLimit`` times; a workload fits when every token it needs reaches its queue. That is said in
concepts/cohort.md and cluster_queue.md, and shares nothing with the sums in `wfm.cluster.quota.capacity`.
"""

import itertools
import math
import random
from collections.abc import Mapping
from typing import Any

import pytest

from tests.wfm.cluster.quota.jobs import job
from wfm.cluster.quota import gangs, judge, read_cluster
from wfm.cluster.quota.capacity import Tree

RESOURCES = ("cpu", "nvidia.com/gpu")
FLAVORS = ("a", "b", "c")


def a_cluster(rng: random.Random) -> list[dict[str, Any]]:
    """Two to four queues below up to three cohorts, quotas of up to six."""

    def groups() -> list[dict[str, Any]]:
        names = rng.sample(FLAVORS, rng.randint(1, 3))
        split = rng.random() < 0.3  # a group for each resource, and no flavour of both
        parts = (
            [(list(RESOURCES), names)]
            if not split or len(names) < 2
            else [([RESOURCES[0]], names[:1]), ([RESOURCES[1]], names[1:])]
        )
        return [
            {
                "coveredResources": covered,
                "flavors": [{"name": name, "resources": [quota(each) for each in covered]} for name in several],
            }
            for covered, several in parts
        ]

    def quota(resource: str) -> dict[str, Any]:
        found: dict[str, Any] = {"name": resource, "nominalQuota": rng.randint(0, 6)}
        if rng.random() < 0.4:
            found["borrowingLimit"] = rng.randint(0, 4)
        if rng.random() < 0.4:
            found["lendingLimit"] = rng.randint(0, 4)
        return found

    def thing(kind: str, name: str, spec: dict[str, Any], **metadata: str) -> dict[str, Any]:
        metadata = {"name": name, **metadata}
        return {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": kind, "metadata": metadata, "spec": spec}

    found = [thing("ResourceFlavor", name, {"nodeTaints": [{"key": name, "effect": "NoSchedule"}]}) for name in FLAVORS]
    cohorts = [f"cohort-{number}" for number in range(rng.randint(0, 3))]
    for place, name in enumerate(cohorts):
        parent = {"parentName": rng.choice(cohorts[:place])} if place and rng.random() < 0.7 else {}
        found.append(thing("Cohort", name, {**parent, "resourceGroups": groups() if rng.random() < 0.5 else []}))
    for number in range(rng.randint(2, 4)):
        inside = {"cohortName": rng.choice(cohorts)} if cohorts and rng.random() < 0.9 else {}
        spec = {"namespaceSelector": {}, **inside, "resourceGroups": groups()}
        found += [
            thing("ClusterQueue", f"queue-{number}", spec),
            thing("LocalQueue", f"queue-{number}", {"clusterQueue": f"queue-{number}"}, namespace="wfm"),
        ]
    return found


def a_job(rng: random.Random) -> dict[str, Any]:
    requests = {resource: rng.randint(0, 3) for resource in RESOURCES}
    borne = [{"key": name, "operator": "Exists"} for name in FLAVORS if rng.random() < 0.8]
    sets = {"masters": rng.randint(1, 2)} if rng.random() < 0.4 else {}
    return {
        "name": "job", "kind": "PyTorchJob", "queue": f"queue-{rng.randint(0, 1)}", "pods": rng.randint(1, 4),
        "requests": requests, "tolerations": borne, **sets,
    }  # fmt: skip


class Tokens:
    """The tokens of one resource in one flavour."""

    def __init__(self, objects: list[dict[str, Any]], flavor: str, resource: str) -> None:
        self.parent: dict[str, str] = {}
        self.up: dict[str, float] = {}
        self.down: dict[str, float] = {}
        self.here: dict[str, int] = {}
        for each in objects:
            if each["kind"] not in ("ClusterQueue", "Cohort"):
                continue
            name, spec = each["metadata"]["name"], each["spec"]
            self.parent[name] = spec.get("cohortName") or spec.get("parentName") or ""
            told = [
                quota
                for group in spec["resourceGroups"]
                for row in group["flavors"]
                if row["name"] == flavor
                for quota in row["resources"]
                if quota["name"] == resource
            ]
            said = told[0] if told else {}
            self.here[name] = said.get("nominalQuota", 0)
            self.up[name] = said.get("lendingLimit", math.inf)
            self.down[name] = said.get("borrowingLimit", math.inf)

    def _edges(self, name: str) -> list[tuple[str, str, dict[str, float], dict[str, float]]]:
        """(neighbour, whose limit, the limit that is used, the one that is given back)."""
        above = [(self.parent[name], name, self.up, self.down)] if self.parent[name] else []
        return above + [(child, child, self.down, self.up) for child, parent in self.parent.items() if parent == name]

    def fetch(self, queue: str) -> bool:
        """Carry one more token to a queue, if there is a way; a token on its way down takes back one on its way up."""
        before: dict[str, tuple[str, str, dict[str, float], dict[str, float]] | None] = {}
        for start in [name for name, count in self.here.items() if count]:
            before = {start: None}
            line = [start]
            for name in line:
                for there, whose, used, back in self._edges(name):
                    if there not in before and used[whose] > 0:
                        before[there] = (name, whose, used, back)
                        line.append(there)
            if queue in before:
                step = before[queue]
                while step is not None:
                    name, whose, used, back = step
                    used[whose] -= 1
                    back[whose] += 1
                    step = before[name]
                self.here[start] -= 1
                return True
        return False


def fits(objects: list[dict[str, Any]], told: Mapping[str, Any]) -> bool:
    """By trying every choice of flavours, and carrying every token."""
    queue = next(
        each for each in objects if each["kind"] == "ClusterQueue" and each["metadata"]["name"] == told["queue"]
    )
    borne = {each["key"] for each in told["tolerations"]}
    covering = {each: group for group in queue["spec"]["resourceGroups"] for each in group["coveredResources"]}
    counts = [told["pods"], *([told["masters"]] if "masters" in told else [])]
    wanted = {each: amount for each, amount in told["requests"].items() if amount}
    groups = [group for group in queue["spec"]["resourceGroups"] if any(covering[each] is group for each in wanted)]
    places = [(count, group) for count in counts for group in groups]
    for choice in itertools.product(*([flavor["name"] for flavor in group["flavors"]] for _, group in places)):
        need: dict[tuple[str, str], int] = {}
        for (count, group), flavor in zip(places, choice, strict=True):
            for resource in group["coveredResources"]:
                key = (flavor, resource)
                need[key] = need.get(key, 0) + wanted.get(resource, 0) * count
        if not set(choice) <= borne:
            continue
        if all(_all(Tokens(objects, *key), told["queue"], count) for key, count in need.items()):
            return True
    return False


def _all(tokens: Tokens, queue: str, count: int) -> bool:
    return all(tokens.fetch(queue) for _ in range(count))


@pytest.mark.parametrize("seed", range(8))
def test_the_twin_says_the_same(seed):
    rng = random.Random(seed)
    said = []
    for _ in range(60):
        objects, told = a_cluster(rng), a_job(rng)
        (gang,) = gangs([job(told)], None)
        verdict = judge(gang, read_cluster(objects))
        said.append(fits(objects, told))
        assert (verdict.state == "fits") == said[-1], (objects, told, verdict)
    assert 10 < sum(said) < 50, "neither all nor nothing"


@pytest.mark.parametrize("seed", range(4))
def test_what_is_left_beside_others(seed):
    """What a queue may still get while all hold something: carried token by token, with the others' kept."""
    rng = random.Random(100 + seed)
    looked_at = 0
    for _ in range(40):
        objects = a_cluster(rng)
        cluster = read_cluster(objects)
        share = ("a", "nvidia.com/gpu")
        usage: dict[tuple[str, tuple[str, str]], int] = {}
        for _ in range(4):
            name = rng.choice(list(cluster.queues))
            left = Tree(cluster, usage).available(name, share)
            assert left >= 0
            more = rng.randint(0, left)
            usage[name, share] = usage.get((name, share), 0) + more
            looked_at += more > 0
        for name in cluster.queues:
            tokens = Tokens(objects, *share)
            assert all(_all(tokens, other, usage.get((other, share), 0)) for other in cluster.queues), (
                "all that is held fits"
            )
            more = 0
            while tokens.fetch(name):
                more += 1
            assert Tree(cluster, usage).available(name, share) == more, (objects, usage, name)
    assert looked_at > 30


def test_a_twin_that_forgets_lending_limits_disagrees(monkeypatch):
    monkeypatch.setattr(Tree, "_local", lambda *_: 0)
    rng = random.Random(0)
    wrong = 0
    for _ in range(200):
        objects, told = a_cluster(rng), a_job(rng)
        (gang,) = gangs([job(told)], None)
        wrong += (judge(gang, read_cluster(objects)).state == "fits") != fits(objects, told)
    assert wrong
