"""What launchers ask of the API server is what their Role gives them, verb by verb, and no more is given."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.conftest import MakeWorld, finish, follow
from tests.cluster.invariants import Invariants
from tests.cluster.stage import End, Script
from tests.cluster.world import NAMESPACE, World
from tests.contracts.test_cluster_guide import objects as of_the_guide
from wfm.cluster.api import Api
from wfm.cluster.kinds import Resource

Right = tuple[str, str, str]
"""(group, plural, verb)"""
BASE = Path(__file__).parents[2] / "manifests" / "base"
HELD = ("launcher", "scaler")
"""Roles whose verbs are held against the requests of tests: here, and in test_captioning."""
KINDS = (("torchjob", "pytorchjob"), ("torchjob", "trainjob"), ("daskjob", "pytorchjob"), ("container", "pytorchjob"))


def rights(role: dict[str, Any]) -> set[Right]:
    """What a Role gives."""
    return {
        (group, plural, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for plural in rule["resources"]
        for verb in rule["verbs"]
    }


def manifests() -> list[dict[str, Any]]:
    """Everything below `manifests/base`."""
    return [one for file in BASE.rglob("*.yaml") for one in yaml.safe_load_all(file.read_text())]


def role(name: str) -> dict[str, Any]:
    """A Role of `manifests/base`."""
    (found,) = [one for one in manifests() if one.get("kind") == "Role" and one["metadata"]["name"] == name]
    return dict(found)


def _two_runs_share_a_job(world: World, kind: str) -> None:
    """The first try fails, the second run notes itself on the job of the next."""
    one = world.ask("node", kind=kind, script=Script(ends=(End("crash", 70), End())))
    other = world.ask("node", kind=kind, key=one.key)
    look = Invariants(world, [one, other])
    first = world.launcher(one)
    world.go(60)
    second = world.launcher(other)
    world.until(lambda: one.key in first.ended and one.key in second.ended, 7200)
    finish(world, look, {one: first.ended[one.key], other: second.ended[one.key]}, lost=1)


def _a_machine_is_lost(world: World) -> None:
    """Its pod is Terminating for ever: the launcher ends it."""
    asked = world.ask("node")
    look = Invariants(world, [asked])
    launching = world.launcher(asked)
    world.until(lambda: world.running(asked.key), 900)
    world.go(130)
    world.kubelet.die(world.holding(asked.key)[0]["spec"]["nodeName"])
    world.until(lambda: asked.key in launching.ended, 7200)
    finish(world, look, {asked: launching.ended[asked.key]}, lost=1)


def _an_operator_leaves_a_cluster_behind(world: World) -> None:
    asked = world.ask("node", kind="daskjob", gpu=1)
    launching = world.launcher(asked)
    world.until(lambda: world.running(asked.key), 600)
    world.go(100)
    for resource in ("daskclusters.kubernetes.dask.org", "deployments.apps", "services"):
        for one in world.door.all(resource, NAMESPACE):
            world.door.patch(resource, NAMESPACE, one["metadata"]["name"], {"metadata": {"ownerReferences": None}})
    world.delete_job(asked.key)
    world.until(lambda: asked.key in launching.ended, 7200)


def _a_job_goes_while_no_launcher_lives(world: World) -> None:
    """That its pod is gone is all that tells of the end of its try."""
    asked = world.ask("node", script=Script(heeds=False))
    first = world.launcher(asked)
    world.until(lambda: world.running(asked.key), 600)
    world.crash(first)
    world.delete_job(asked.key)
    world.pass_time(200)
    again = world.launcher(asked)
    world.until(lambda: asked.key in again.ended, 7200)


def _a_controller_is_late(world: World) -> None:
    """A job without pods: why is told in events alone."""
    late = ["indexed job"]
    world.slow = lambda: late
    world.at(200, late.clear)
    assert follow(world, asked := world.ask("node", kind="container"))[asked.key].outcome == "done"


STORIES: tuple[Callable[[World], None], ...] = (
    _a_machine_is_lost, _an_operator_leaves_a_cluster_behind, _a_job_goes_while_no_launcher_lives, _a_controller_is_late,
)  # fmt: skip


def test_the_role_of_launchers_is_what_they_use(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    used: set[Right] = set()
    right = Api._call

    def noted(self: Api, method: str, verb: str, resource: Resource, *rest: Any, **more: Any) -> Any:
        used.add((resource.group, resource.plural, verb))
        return right(self, method, verb, resource, *rest, **more)

    monkeypatch.setattr(Api, "_call", noted)
    for kind, training in KINDS:
        _two_runs_share_a_job(make_world(training_job=training), kind)
    for story in STORIES:
        story(make_world(machines=3))
    given = rights(role("launcher"))
    assert sorted(used - given) == [], "asked for, and not given"
    assert sorted(given - used) == [], "given, and never asked for"


def test_the_guide_gives_the_same_role() -> None:
    (told,) = [one for one in of_the_guide() if one["kind"] == "Role"]
    assert told["rules"] == role("launcher")["rules"]


def test_every_role_is_held_against_requests() -> None:
    """That of argoexec is compiled with each flow: tests/pipelines/engines/argo/test_executor_rights.py."""
    names = [one["metadata"]["name"] for one in manifests() if one.get("kind") == "Role"]
    assert sorted(names) == sorted(HELD)
    wide = {one["metadata"]["name"]: one for one in manifests() if one.get("kind") == "ClusterRole"}
    assert set(wide) == {"wfm-quota-reader"}, "of people who ask `wfm quota --online`, bound by whoever may"
    assert {verb for _, _, verb in rights(wide["wfm-quota-reader"])} == {"list"}
