"""What machines do to pods, and what the launcher says and does about it."""

import pytest

from tests.cluster.conftest import MakeWorld, finish, follow
from tests.cluster.controllers import Options
from tests.cluster.invariants import Invariants
from tests.cluster.kubelet import Machine
from tests.cluster.stage import End, Script
from tests.cluster.world import NAMESPACE, Asked, Launching, World


def _begun(world: World, asked: Asked, seconds: float = 130.0) -> tuple[Invariants, Launching]:
    look = Invariants(world, [asked])
    launching = world.launcher(asked)
    world.until(lambda: len(world.running(asked.key)) >= asked.request.resources.replicas, 900)
    world.go(seconds)
    return look, launching


def _end(world: World, asked: Asked, look: Invariants, launching: Launching, lost: int = 1) -> None:
    world.until(lambda: asked.key in launching.ended, 7200)
    finish(world, look, {asked: launching.ended[asked.key]}, lost=lost)
    assert launching.ended[asked.key].outcome == "done"


def _a_pod(world: World, asked: Asked) -> str:
    return str(world.holding(asked.key)[0]["metadata"]["name"])


WAYS = {
    "drained": (lambda world, name: world.door.evict(NAMESPACE, name), "evict|drain|stop"),
    "evicted by its node": (lambda world, name: world.kubelet.evict(name), "ephemeral-storage"),
    "out of memory": (lambda world, name: world.kubelet.oom(name), "memory|OOM"),
    "deleted by hand": (lambda world, name: world.door.delete("pods", NAMESPACE, name), "gone|deleted|stop|pod"),
}


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("heeds", [True, False])
@pytest.mark.parametrize("kind", ["torchjob", "container"])
def test_a_pod_that_is_taken_away_costs_an_interval(world: World, how: str, heeds: bool, kind: str) -> None:
    import re

    asked = world.ask("node", kind=kind, retries=1, script=Script(heeds=heeds))
    look, launching = _begun(world, asked)
    WAYS[how][0](world, _a_pod(world, asked))
    _end(world, asked, look, launching)
    assert len(world.records(asked)) == 2
    assert re.search(WAYS[how][1], world.reasons(asked), re.IGNORECASE), world.reasons(asked)


@pytest.mark.parametrize("kind", ["torchjob", "daskjob", "container"])
def test_a_machine_that_is_lost_is_left_behind(make_world: MakeWorld, kind: str) -> None:
    """Its pod stays Terminating for ever; the next try runs elsewhere."""
    world = make_world(machines=3)
    asked = world.ask("node", kind=kind, gpu=8)
    look, launching = _begun(world, asked)
    stage = next(one for one in world.kubelet.processes.values() if one.works)
    lost = stage.pod["spec"]["nodeName"]
    world.kubelet.die(lost)
    _end(world, asked, look, launching)
    assert len(world.records(asked)) == 2
    assert "node" in world.reasons(asked)


def test_pods_end_on_a_node_that_is_marked_out_of_service(make_world: MakeWorld) -> None:
    world = make_world(machines=3, options=Options(toleration=60))
    asked = world.ask("node")
    look, launching = _begun(world, asked)
    lost = world.holding(asked.key)[0]["spec"]["nodeName"]
    world.kubelet.die(lost)
    world.go(120)
    taints = world.door.find("nodes", "", lost)["spec"]["taints"]  # type: ignore[index]
    taint = {"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}
    world.door.patch("nodes", "", lost, {"spec": {"taints": [*taints, taint]}})
    _end(world, asked, look, launching)


@pytest.mark.parametrize("away", [70, 120])
def test_a_machine_that_comes_back_goes_on_as_before(make_world: MakeWorld, away: float) -> None:
    world = make_world(machines=2)
    asked = world.ask("node", replicas=2, gpu=4)
    look, launching = _begun(world, asked)
    name = world.holding(asked.key)[0]["spec"]["nodeName"]
    world.kubelet.machines[name].up = False  # its network is away for a while; what runs goes on
    world.go(away)
    world.kubelet.machines[name].up = True
    _end(world, asked, look, launching)


def test_a_machine_that_is_removed_takes_its_pods_along(make_world: MakeWorld) -> None:
    world = make_world(machines=2)
    asked = world.ask("node")
    look, launching = _begun(world, asked)
    name = world.holding(asked.key)[0]["spec"]["nodeName"]
    world.kubelet.die(name)
    world.door.delete("nodes", "", name)
    world.door.delete("leases.coordination.k8s.io", "kube-node-lease", name)
    world.kubelet.add(Machine("node-9"))
    _end(world, asked, look, launching)


def test_a_process_on_a_lost_machine_may_still_commit(make_world: MakeWorld) -> None:
    """Nobody sees its pod any more, but it reaches the store."""
    world = make_world(machines=3)
    asked = world.ask("node", script=Script(seconds=900))
    look, launching = _begun(world, asked)
    world.kubelet.lose(world.holding(asked.key)[0]["spec"]["nodeName"])
    _end(world, asked, look, launching, lost=3)


def test_the_next_try_avoids_the_machine_of_the_last(make_world: MakeWorld) -> None:
    world = make_world(machines=2)
    asked = world.ask("node", script=Script(ends=(End("crash", 100), End())))
    seen: list[str] = []
    world.kubelet.started.append(lambda pod: seen.append(pod["spec"]["nodeName"]))
    assert follow(world, asked, lost=1)[asked.key].outcome == "done"
    assert len(set(seen)) == 2


def test_the_next_launcher_knows_the_machine_of_the_last_try(make_world: MakeWorld) -> None:
    """Killed between the end of a try and the next: what failed where stands in the run."""
    world = make_world(machines=2)
    asked = world.ask("node", script=Script(ends=(End("crash", 100), End())))
    seen: list[str] = []
    world.kubelet.started.append(lambda pod: seen.append(pod["spec"]["nodeName"]))
    look = Invariants(world, [asked])
    first = world.launcher(asked)
    world.until(lambda: any(one.outcome for one in world.records(asked)), 900)
    world.crash(first)
    assert len(seen) == 1
    _end(world, asked, look, world.launcher(asked))
    assert len(set(seen)) == 2


def test_one_machine_alone_is_used_again(make_world: MakeWorld) -> None:
    world = make_world(machines=1, quota=8)
    asked = world.ask("node", script=Script(ends=(End("oom", 100), End("crash", 100), End())))
    assert follow(world, asked, lost=2)[asked.key].outcome == "done"


def test_an_image_that_cannot_be_pulled_is_said(world: World) -> None:
    world.kubelet.no_image.add(world.settings.image("training"))
    asked = world.ask("node", retries=1)
    look = Invariants(world, [asked], excused={asked.key})
    launching = world.launcher(asked)
    world.until(lambda: asked.key in launching.ended, 7200)
    end = launching.ended[asked.key]
    assert end.outcome not in ("done", "cached")
    assert "image" in end.reason.lower()
    assert world.records(asked), "a try whose pod never ran has a record all the same"
    finish(world, look, {asked: end})
    assert not world.holding(asked.key)


def test_an_image_that_comes_late_is_waited_for(world: World) -> None:
    image = world.settings.image("training")
    world.kubelet.no_image.add(image)
    world.at(150, lambda: world.kubelet.no_image.discard(image))
    asked = world.ask("node", retries=0)
    assert follow(world, asked)[asked.key].outcome == "done"
    assert world.outcomes(asked) == ["done"]


def test_room_that_comes_late_is_waited_for(make_world: MakeWorld) -> None:
    """The queue has let it in, and pods of the one before still hold the devices."""
    world = make_world(machines=1)
    container = {"name": "c", "image": "x", "resources": {"limits": {"nvidia.com/gpu": "8"}}}
    spec = {"template": {"spec": {"containers": [container], "restartPolicy": "Never"}}}
    world.door.create("jobs.batch", NAMESPACE, {"metadata": {"name": "before"}, "spec": spec})
    world.pass_time(20)
    world.at(200, lambda: world.door.delete("jobs.batch", NAMESPACE, "before", propagationPolicy="Background"))
    asked = world.ask("node", retries=0)
    assert follow(world, asked)[asked.key].outcome == "done"
    assert world.outcomes(asked) == ["done"]


def test_a_secret_that_is_missing_is_said(world: World) -> None:
    world.kubelet.no_config = True
    asked = world.ask("node", retries=0)
    look = Invariants(world, [asked], excused={asked.key})
    launching = world.launcher(asked)
    world.until(lambda: asked.key in launching.ended, 7200)
    assert "secret" in launching.ended[asked.key].reason
    finish(world, look, {asked: launching.ended[asked.key]})


def test_no_machine_with_room_is_said(make_world: MakeWorld) -> None:
    world = make_world(gpus=4)
    asked = world.ask("node", gpu=8, retries=0)
    look = Invariants(world, [asked], excused={asked.key})
    launching = world.launcher(asked)
    world.until(lambda: asked.key in launching.ended, 7200)
    assert "nodes are available" in launching.ended[asked.key].reason
    finish(world, look, {asked: launching.ended[asked.key]})


def test_a_stage_that_does_not_hear_sigterm_is_killed_after_its_grace(world: World) -> None:
    asked = world.ask("node", grace=60, script=Script(heeds=False))
    look, launching = _begun(world, asked)
    look.cancel(asked)
    world.until(lambda: asked.key in launching.ended, 600)
    world.until(lambda: not world.holding(asked.key), 120)
    finish(world, look, {asked: launching.ended[asked.key]})


@pytest.mark.parametrize("ahead", [3000.0, -3000.0])
def test_a_launchers_clock_may_be_wrong(world: World, ahead: float) -> None:
    """What objects of the server say is compared with the server's time: nothing is late that is not, and what is, is seen."""
    asked = world.ask("node", timeout=400, script=Script(300, ends=(End("hang", 100), End())))
    look = Invariants(world, [asked])
    look.hangs = 1
    launching = world.launcher(asked, ahead=ahead)
    world.until(lambda: asked.key in launching.ended, 1500)
    finish(world, look, {asked: launching.ended[asked.key]}, lost=1)
    assert world.outcomes(asked) == ["try_again", "done"]
    assert f"ran longer than its {asked.request.timeout_seconds:g} s" in world.reasons(asked)


def test_a_node_that_is_silent_is_said_before_its_pods_are_told_to_go(make_world: MakeWorld) -> None:
    world = make_world(machines=3)
    asked = world.ask("node")
    look, launching = _begun(world, asked)
    node = world.holding(asked.key)[0]["spec"]["nodeName"]
    world.kubelet.die(node)

    def said() -> str:
        return str(launching.launcher._entries[asked.key, asked.run.id, asked.request.node].said.words)

    world.until(lambda: f"its node {node} is silent" in said(), 200)
    assert not any("deletionTimestamp" in pod["metadata"] for pod in world.pods(asked.key))
    _end(world, asked, look, launching)
