"""Several sets of pods on one machine: whether they find room beside each other, against trying every place for every pod."""

import itertools
import random
from typing import Any

import pytest
import yaml

from tests.wfm.cluster.quota.jobs import job
from tests.wfm.cluster.quota.test_ten_clusters import FILES
from wfm.cluster.quota import gangs, judge, packing, read_cluster

RACKS: list[dict[str, Any]] = yaml.safe_load((FILES[0].parent / "09_topology.yaml").read_text())["objects"]


def node(name: str, rack: str = "r", **room: int) -> dict[str, Any]:
    labels = {"rack": rack, "kubernetes.io/hostname": name}
    status = {
        "allocatable": {"pods": 110, **{resource.replace("gpu", "nvidia.com/gpu"): n for resource, n in room.items()}}
    }
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "status": status}


def queue(topology: bool) -> list[dict[str, Any]]:
    def thing(kind: str, name: str, spec: dict[str, Any], **metadata: str) -> dict[str, Any]:
        return {
            "apiVersion": "kueue.x-k8s.io/v1beta2",
            "kind": kind,
            "metadata": {"name": name, **metadata},
            "spec": spec,
        }

    quotas = [{"name": each, "nominalQuota": 1000} for each in ("cpu", "nvidia.com/gpu")]
    groups = [{"coveredResources": ["cpu", "nvidia.com/gpu"], "flavors": [{"name": "f", "resources": quotas}]}]
    levels = [{"nodeLabel": "rack"}, {"nodeLabel": "kubernetes.io/hostname"}]
    return [
        thing("Topology", "t", {"levels": levels}),
        thing("ResourceFlavor", "f", {"topologyName": "t"} if topology else {}),
        thing("ClusterQueue", "q", {"namespaceSelector": {}, "resourceGroups": groups}),
        thing("LocalQueue", "q", {"clusterQueue": "q"}, namespace="wfm"),
    ]


def jobset(*sets: tuple[int, dict[str, int], dict[str, str]]) -> dict[str, Any]:
    """(pods, requests of each, annotations) of each set."""
    several = []
    for place, (count, requests, annotations) in enumerate(sets):
        one = job({"name": "s", "queue": "q", "pods": count, "requests": requests})
        one["spec"]["template"]["metadata"] = {"annotations": annotations}
        several.append({"name": f"set{place}", "template": {"spec": one["spec"]}})
    made = job({"name": "s", "queue": "q", "pods": 1, "requests": {}})
    return {**made, "apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "spec": {"replicatedJobs": several}}


def verdict(objects: list[dict[str, Any]], *sets: tuple[int, dict[str, int], dict[str, str]]) -> Any:
    (gang,) = gangs([jobset(*sets)], None)
    return judge(gang, read_cluster(objects))


GPU8 = {"nvidia.com/gpu": 8}
RACK = {"kueue.x-k8s.io/podset-required-topology": "rack"}
ANYWHERE = {"kueue.x-k8s.io/podset-unconstrained-topology": "true"}


@pytest.mark.parametrize(("topology", "state"), [(True, "never"), (False, "unplaceable")])
def test_sets_that_fit_one_by_one_and_not_together(topology: bool, state: str) -> None:
    """In a topology Kueue itself places them; else it admits, and the scheduler finds no machine."""
    wish = ANYWHERE if topology else {}
    small = (2, {"cpu": 5, "nvidia.com/gpu": 1}, wish)
    machines = [node("a", cpu=8, gpu=8), node("b", cpu=8, gpu=8)]
    assert verdict([*queue(topology), *machines], (1, GPU8, wish), (1, GPU8, wish)).state == "fits"
    assert verdict([*queue(topology), *machines], small).state == "fits"
    found = verdict([*queue(topology), *machines], (1, GPU8, wish), small)
    assert found.state == state
    assert "not all beside each other: 1 x set0 and 2 x set1" in " ".join(found.reasons)


def test_each_set_has_its_own_rack_and_what_it_takes_is_gone() -> None:
    machines = [node(f"{rack}{number}", rack, cpu=8, gpu=8) for rack in "ab" for number in range(2)]
    pair = (2, GPU8, RACK)
    assert verdict([*queue(True), *machines], pair, pair).state == "fits"
    assert verdict([*queue(True), *machines], pair, pair, (1, GPU8, ANYWHERE)).state == "never"
    assert verdict([*queue(True), *machines], pair, (1, GPU8, ANYWHERE), (1, GPU8, RACK)).state == "fits"
    assert verdict([*queue(True), *machines], (1, GPU8, RACK), pair, (2, GPU8, ANYWHERE)).state == "never"


@pytest.mark.parametrize("annotation", ["kueue.x-k8s.io/podset-group-name", "kueue.x-k8s.io/podset-slice-size"])
def test_what_is_not_reckoned_is_named_instead_of_a_verdict(annotation: str) -> None:
    one = (1, GPU8, {**RACK, annotation: "2"})
    found = verdict([*queue(True), node("a", gpu=8)], one)
    assert found.state == "unknown"
    assert "not reckoned here" in found.reasons[0]
    assert annotation.removeprefix("kueue.x-k8s.io/")[:12] in found.reasons[0]
    assert verdict([*queue(False), node("a", gpu=8)], (1, GPU8, {annotation: "2"})).state == "fits", (
        "no topology is asked"
    )


def test_too_many_ways_are_named_instead_of_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "MOST_STATES", 5)
    machines = [node(f"n{number}", cpu=7 + number, gpu=8) for number in range(8)]
    found = verdict(
        [*queue(False), *machines], (6, {"cpu": 5, "nvidia.com/gpu": 1}, {}), (9, {"cpu": 4}, {}), (9, {"cpu": 3}, {})
    )
    assert (found.state, "too many ways" in found.reasons[0]) == ("unknown", True)


def places(machines: list[dict[str, Any]], sets: list[tuple[int, dict[str, int]]]) -> bool:
    """By trying every machine for every pod."""
    pods = [requests for count, requests in sets for _ in range(count)]
    rooms = [each["status"]["allocatable"] for each in machines]
    for choice in itertools.product(range(len(machines)), repeat=len(pods)):
        if all(
            sum(pods[pod].get(name, 0) for pod, at in enumerate(choice) if at == place) <= room.get(name, 0)
            for place, room in enumerate(rooms)
            for name in ("cpu", "nvidia.com/gpu")
        ):
            return True
    return False


@pytest.mark.parametrize("seed", range(3))
def test_the_twin_says_the_same(seed: int) -> None:
    rng = random.Random(seed)
    said = []
    for _ in range(60):
        machines = [node(f"n{n}", cpu=rng.randint(2, 6), gpu=rng.randint(0, 3)) for n in range(rng.randint(2, 3))]
        sets = [
            (rng.randint(1, 3), {"cpu": rng.randint(1, 3), "nvidia.com/gpu": rng.randint(0, 1)}) for _ in range(2)
        ]  # fmt: skip
        said.append(places(machines, sets))
        found = verdict([*queue(False), *machines], *((count, requests, {}) for count, requests in sets))
        assert (found.state == "fits") == said[-1], (machines, sets, found)
    assert 10 < sum(said) < 50, "neither all nor nothing"
