"""Waiting in Kueue's queue, being let in, and being put out again."""

import pytest

from tests.cluster.conftest import MakeWorld, finish, follow
from tests.cluster.controllers import Options
from tests.cluster.invariants import Invariants
from tests.cluster.server.storage import Json
from tests.cluster.stage import Script
from tests.cluster.world import NAMESPACE, World


def _others(world: World, name: str = "others", *, gpus: int = 8, priority: str = "") -> None:
    """A job of another team that holds its part of the quota."""
    labels = {"kueue.x-k8s.io/queue-name": "research"}
    labels |= {"kueue.x-k8s.io/priority-class": priority} if priority else {}
    container = {
        "name": "c",
        "image": "registry.example/other:1",
        "resources": {"limits": {"nvidia.com/gpu": str(gpus)}},
    }
    spec: Json = {
        "completions": 2, "parallelism": 2, "completionMode": "Indexed",
        "template": {"spec": {"containers": [container], "restartPolicy": "Never"}},
    }  # fmt: skip
    world.door.create("jobs.batch", NAMESPACE, {"metadata": {"name": name, "labels": labels}, "spec": spec})
    world.pass_time(5)


def _leave(world: World, name: str = "others") -> None:
    world.door.delete("jobs.batch", NAMESPACE, name, propagationPolicy="Background")


@pytest.mark.parametrize("kind", ["torchjob", "container"])
def test_time_in_the_queue_is_no_running_time(world: World, kind: str) -> None:
    """An hour in the queue of a job that may run ten minutes."""
    _others(world)
    asked = world.ask("node", kind=kind, timeout=600, script=Script(seconds=300))
    world.at(3600, lambda: _leave(world))
    assert follow(world, asked, limit=9000)[asked.key].outcome == "done"
    assert world.outcomes(asked) == ["done"]


@pytest.mark.parametrize(
    ("kind", "training"), [("torchjob", "pytorchjob"), ("torchjob", "trainjob"), ("container", "pytorchjob")]
)
def test_who_is_preempted_comes_back_and_loses_an_interval_at_most(
    make_world: MakeWorld, kind: str, training: str
) -> None:
    world = make_world(training_job=training)
    asked = world.ask("node", kind=kind, retries=0, timeout=700, script=Script(seconds=600, heeds=False))
    world.at(200, lambda: _others(world, priority="urgent"))
    world.at(1500, lambda: _leave(world))
    assert follow(world, asked, lost=1)[asked.key].outcome == "done"
    assert len(world.records(asked)) == 2, "a preempted job goes on, by another try"
    assert "try_again" in world.outcomes(asked)[0] or "cancelled" in world.outcomes(asked)[0]


@pytest.mark.parametrize("heeds", [True, False])
def test_a_preempted_job_keeps_its_place(world: World, heeds: bool) -> None:
    """It is suspended and resumed, not made anew: a new one would wait behind all others."""
    asked = world.ask("node", script=Script(heeds=heeds))
    look = Invariants(world, [asked])
    launching = world.launcher(asked)
    world.until(lambda: world.running(asked.key), 600)
    world.go(100)
    job = world.jobs(asked.key)[0]["metadata"]["uid"]
    _others(world, priority="urgent")
    world.go(600)
    world.kubelet.start_seconds = 40.0  # for a while it is let in, and has no pods yet
    _leave(world)
    world.until(lambda: world.running(asked.key), 600)
    world.go(40)
    assert [one["metadata"]["uid"] for one in world.jobs(asked.key)] == [job]
    world.until(lambda: asked.key in launching.ended, 3600)
    finish(world, look, {asked: launching.ended[asked.key]}, lost=1)


def test_a_training_that_is_suspended_and_resumed_has_its_whole_time_again(world: World) -> None:
    """The operator sets StartTime anew, and so does our own bound: 500 s before and 400 s after, with 600 s allowed."""
    asked = world.ask("node", timeout=600, retries=0, script=Script(seconds=800))
    world.at(500, lambda: _others(world, priority="urgent"))
    world.at(900, lambda: _leave(world))
    assert follow(world, asked, lost=1)[asked.key].outcome == "done"


def test_a_workload_that_is_deactivated_ends_the_wait_in_plain_words(world: World) -> None:
    asked = world.ask("node")
    look = Invariants(world, [asked], excused={asked.key})
    launching = world.launcher(asked)
    world.until(lambda: world.running(asked.key), 600)
    world.go(100)
    world.change_workload(asked.key, {"spec": {"active": False}})
    world.until(lambda: asked.key in launching.ended, 900)
    end = launching.ended[asked.key]
    assert end.outcome not in ("done", "cached")
    assert "deactivated" in end.reason.lower()
    finish(world, look, {asked: end}, lost=1)
    assert not world.holding(asked.key)


@pytest.mark.set_up("pods_ready_timeout=100", "requeue_limit=1")
def test_pods_that_are_not_ready_in_time_go_back_to_the_queue_until_they_are_deactivated(make_world: MakeWorld) -> None:
    world = make_world(options=Options(pods_ready_timeout=100, requeue_limit=1), patience={"image_pull_seconds": 3000})
    world.kubelet.no_config = True
    asked = world.ask("node")
    look = Invariants(world, [asked], excused={asked.key})
    launching = world.launcher(asked)
    world.until(lambda: asked.key in launching.ended, 3000)
    end = launching.ended[asked.key]
    assert end.outcome not in ("done", "cached")
    finish(world, look, {asked: end}, lost=2)


@pytest.mark.set_up("pods_ready_timeout=100", "requeue_limit=5")
def test_pods_that_were_late_once_get_another_turn(make_world: MakeWorld) -> None:
    world = make_world(options=Options(pods_ready_timeout=100, requeue_limit=5), patience={"image_pull_seconds": 3000})
    world.kubelet.no_config = True
    world.at(150, lambda: setattr(world.kubelet, "no_config", False))
    asked = world.ask("node")
    assert follow(world, asked)[asked.key].outcome == "done"


@pytest.mark.set_up("integrations=()")
@pytest.mark.parametrize("kind", ["torchjob", "container"])
def test_an_integration_that_is_off_is_noticed(
    make_world: MakeWorld, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The label says research, and nobody takes it up: the job runs beside the queue."""
    world = make_world(options=Options(integrations=()))
    asked = world.ask("node", kind=kind)
    assert follow(world, asked)[asked.key].outcome == "done"
    assert world.workload(asked.key) is None
    assert "queue label is ignored" in caplog.text


def test_a_queue_that_does_not_exist_is_noticed(world: World) -> None:
    world.door.delete("localqueues.kueue.x-k8s.io", NAMESPACE, "research")
    asked = world.ask("node")
    look = Invariants(world, [asked], excused={asked.key})
    launching = world.launcher(asked)
    world.until(lambda: asked.key in launching.ended, 1200)
    assert "research" in launching.ended[asked.key].reason
    finish(world, look, {asked: launching.ended[asked.key]})
    assert not world.jobs(asked.key)


def test_a_queue_that_is_stopped_and_drained_goes_on_later(world: World) -> None:
    asked = world.ask("node", retries=0, script=Script(seconds=400))

    def stop(policy: str) -> None:
        world.door.patch("clusterqueues.kueue.x-k8s.io", "", "all", {"spec": {"stopPolicy": policy}})

    world.at(150, lambda: stop("HoldAndDrain"))
    world.at(2000, lambda: stop("None"))
    assert follow(world, asked, lost=1)[asked.key].outcome == "done"


def test_workers_of_a_daskjob_wait_alone(world: World) -> None:
    """Scheduler and runner do not queue; a worker that is preempted comes back."""
    asked = world.ask("node", kind="daskjob", replicas=2, gpu=8, script=Script(seconds=900))
    world.at(200, lambda: _others(world, gpus=4, priority="urgent"))
    world.at(600, lambda: _leave(world))
    assert follow(world, asked, lost=1)[asked.key].outcome == "done"
    assert len(world.records(asked)) == 1


def test_no_quota_for_objects_is_waited_for(world: World) -> None:
    """403 "exceeded quota" on the job itself."""
    world.front.fill("pytorchjobs.kubeflow.org")
    world.at(700, world.front.free)
    asked = world.ask("node", retries=0)
    assert follow(world, asked)[asked.key].outcome == "done"
    assert world.outcomes(asked) == ["done"]
    refused = [one for one in world.front.requests if one == ("create", "pytorchjobs.kubeflow.org", 403)]
    assert len(refused) < 25, "700 s without quota are waited for, longer and longer"


def test_somebody_takes_suspend_away_and_kueue_puts_it_back(world: World) -> None:
    _others(world)
    asked = world.ask("node")
    look = Invariants(world, [asked])
    launching = world.launcher(asked)
    world.until(lambda: world.jobs(asked.key), 60)
    name = world.jobs(asked.key)[0]["metadata"]["name"]
    world.door.patch("pytorchjobs.kubeflow.org", NAMESPACE, name, {"spec": {"runPolicy": {"suspend": False}}})
    world.go(60)
    assert world.jobs(asked.key)[0]["spec"]["runPolicy"]["suspend"] is True
    _leave(world)
    world.until(lambda: asked.key in launching.ended, 3600)
    finish(world, look, {asked: launching.ended[asked.key]})
