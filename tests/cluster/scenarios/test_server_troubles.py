"""What goes wrong between launcher and API server: in the model itself, or in a proxy in front of another server."""

import pytest

from tests.cluster.conftest import MakeWorld, finish, follow
from tests.cluster.invariants import Invariants
from tests.cluster.stage import End, Script
from tests.cluster.world import World, settings


@pytest.mark.parametrize("what", ["429", "500", "503", "504", "drop", "lost"])
def test_requests_that_fail_now_are_asked_again(world: World, what: str) -> None:
    asked = world.ask("node", retries=1, script=Script(200, ends=(End("try_again", 100), End())))
    for verb in ("list", "watch", "create", "delete", "get"):
        world.faults.plan(what, verb, times=3)
    assert follow(world, asked, lost=1)[asked.key].outcome == "done"
    assert world.outcomes(asked) == ["try_again", "done"]


@pytest.mark.parametrize("what", ["gone", "gone_event", "mute", "cut", "no_bookmark"])
def test_watches_end_in_every_way(world: World, what: str) -> None:
    asked = world.ask("node", script=Script(200, ends=(End("try_again", 100), End())))
    world.faults.plan(what, "watch", times=12)
    assert follow(world, asked, lost=1)[asked.key].outcome == "done"
    assert world.faults.met[what] == 12


def test_the_history_is_compacted_all_the_time(world: World) -> None:
    asked = world.ask("node", script=Script(300, ends=(End("crash", 100), End())))
    for at in range(0, 2000, 25):
        world.at(at, world.front.compact)
    assert follow(world, asked, lost=1)[asked.key].outcome == "done"


@pytest.mark.parametrize("down", [1, 100, 700])
def test_a_server_that_is_down_for_a_while(world: World, down: float) -> None:
    asked = world.ask("node", retries=0, script=Script(400))
    look = Invariants(world, [asked])
    launching = world.launcher(asked)
    world.until(lambda: world.running(asked.key), 300)
    world.front.stop()
    world.go(down)
    world.front.start()
    world.until(lambda: asked.key in launching.ended, 3600)
    finish(world, look, {asked: launching.ended[asked.key]})
    assert launching.ended[asked.key].outcome == "done"


def test_a_create_whose_answer_is_lost_makes_one_job(world: World) -> None:
    asked = world.ask("node")
    world.faults.plan("lost", "create", "pytorchjobs.kubeflow.org", times=1)
    assert follow(world, asked)[asked.key].outcome == "done"
    creates = [one for one in world.front.requests if one[:2] == ("create", "pytorchjobs.kubeflow.org")]
    assert len([one for one in creates if one[2] == 201]) <= 1
    assert world.outcomes(asked) == ["done"]


@pytest.mark.parametrize(("verb", "resource"), [
    ("create", "pytorchjobs.kubeflow.org"), ("list", "pods"), ("watch", "pods"), ("list", "workloads.kueue.x-k8s.io"),
])  # fmt: skip
def test_what_is_not_allowed_is_said(world: World, verb: str, resource: str) -> None:
    world.front.forbidden.add((verb, resource))
    asked = world.ask("node")
    launching = world.launcher(asked)
    world.until(lambda: asked.key in launching.ended, 1200)
    end = launching.ended[asked.key]
    assert end.outcome == "wrong_input"
    assert verb in end.reason
    assert resource.partition(".")[0] in end.reason


def test_a_cluster_without_the_crd_is_said(world: World) -> None:
    world.front.without("pytorchjobs.kubeflow.org")
    asked = world.ask("node")
    launching = world.launcher(asked)
    world.until(lambda: asked.key in launching.ended, 600)
    end = launching.ended[asked.key]
    assert end.outcome == "wrong_input"
    assert "pytorchjobs" in end.reason


def test_a_missing_crd_ends_the_requests_of_its_kind_alone(world: World) -> None:
    world.front.without("pytorchjobs.kubeflow.org")
    training, others = world.ask("train"), [world.ask("many", kind="container"), world.ask("split", kind="daskjob")]
    launching = world.launcher(training, *others)
    world.until(lambda: len(launching.ended) == 3, 3600)
    assert launching.ended[training.key].outcome == "wrong_input"
    assert "does not know PyTorchJob" in launching.ended[training.key].reason
    assert [launching.ended[one.key].outcome for one in others] == ["done", "done"]


def test_a_namespace_that_is_not_there_is_said(world: World) -> None:
    world.settings = settings(namespace="nowhere")
    asked = world.ask("node")
    launching = world.launcher(asked)
    world.until(lambda: asked.key in launching.ended, 600)
    assert "nowhere" in launching.ended[asked.key].reason


def test_slow_controllers_change_nothing(make_world: MakeWorld, world: World) -> None:
    """The garbage collector and the operator see everything minutes late (on another server: as late as they do there)."""
    asked = world.ask("node", script=Script(200, ends=(End("crash", 60), End())))
    rest = ("garbage collector", "pytorchjob", "kueue's jobs", "pod garbage collector")
    world.slow = lambda: rest if int(world.clock.now()) % 200 < 100 else ()
    assert follow(world, asked, lost=1)[asked.key].outcome == "done"
