"""Somebody else is quicker by a moment: between what a launcher has seen and what it does (`front.around` a request)."""

from collections.abc import Callable
from typing import Any

from tests.cluster.conftest import finish, follow
from tests.cluster.controllers.pods import annotations
from tests.cluster.invariants import Invariants
from tests.cluster.server.storage import Json
from tests.cluster.stage import End, Script
from tests.cluster.world import NAMESPACE, World
from wfm.cluster.names import ANNOTATION_RUNS, ANNOTATION_TRY

JOBS = "pytorchjobs.kubeflow.org"


def _once(
    world: World, verb: str, *, before: Callable[[Json], Any] = bool, after: Callable[[], Any] = bool,
    fits: Callable[[Json], bool] = lambda body: True,
) -> None:  # fmt: skip
    """Do something around the next request of this verb for a job whose body fits."""
    waiting = [True]

    def around(asked: str, resource: str, name: str, body: Json) -> Callable[[], Any] | None:
        if not waiting or (asked, resource) != (verb, JOBS) or not fits(body):
            return None
        waiting.clear()
        before(body)
        return after

    world.front.around.append(around)


def _again(world: World, job: Json) -> Json:
    """What another launcher does with a try that is over: the job goes, and the next one comes, under its name."""
    name = job["metadata"]["name"]
    world.front.compact()
    world.door.delete(JOBS, NAMESPACE, name, propagationPolicy="Background")
    told = {name: job["metadata"][name] for name in ("name", "labels", "annotations")}
    told["annotations"] = {**told["annotations"], ANNOTATION_TRY: "2"}
    spec = {**job["spec"], "runPolicy": {**job["spec"]["runPolicy"], "suspend": False}}
    return world.door.create(JOBS, NAMESPACE, {"metadata": told, "spec": spec})


def test_the_job_of_the_next_try_is_not_deleted(world: World) -> None:
    """The job that is over was deleted and made again between the look and the deletion: it names the uid that it means."""
    asked = world.ask("node", script=Script(ends=(End("try_again", 100), End())))
    made: list[str] = []
    launching = world.launcher(asked)
    world.until(lambda: world.running(asked.key), 600)
    job = world.jobs(asked.key)[0]
    _once(world, "delete", before=lambda _: made.append(_again(world, job)["metadata"]["uid"]))
    world.until(lambda: made, 600)
    world.go(60)
    assert [one["metadata"]["uid"] for one in world.jobs(asked.key)] == made
    world.until(lambda: asked.key in launching.ended, 3600)
    assert launching.ended[asked.key].outcome == "done"


def test_a_view_that_is_behind_writes_no_end_of_the_next_try(world: World) -> None:
    """Its watch says nothing for minutes (a connection that nobody closed), and another launcher has gone on meanwhile."""
    asked = world.ask("node", timeout=400, script=Script(ends=(End("try_again", 150), End()), seconds=500))
    look = Invariants(world, [asked])
    both = [world.launcher(asked), world.launcher(asked)]
    world.until(lambda: world.running(asked.key), 600)
    world.go(60)
    world.deafen(both[1])
    world.until(lambda: asked.key in both[0].ended, 3600)
    world.launchers.remove(both[1])
    finish(world, look, {asked: both[0].ended[asked.key]}, lost=1)
    assert world.outcomes(asked) == ["try_again", "done"]


def test_two_runs_that_note_themselves_at_once_are_both_noted(world: World) -> None:
    """A patch that is made of what stood there a moment ago is refused, and made anew."""
    one = world.ask("node")
    other = world.ask("node", key=one.key)
    look = Invariants(world, [one, other])
    first = world.launcher(one)
    world.until(lambda: world.running(one.key), 600)
    name = world.jobs(one.key)[0]["metadata"]["name"]

    def third(_: Json) -> None:
        noted = annotations(world.door.find(JOBS, NAMESPACE, name) or {})[ANNOTATION_RUNS]
        world.door.patch(JOBS, NAMESPACE, name, {"metadata": {"annotations": {ANNOTATION_RUNS: f"{noted},third"}}})

    _once(world, "patch", before=third, fits=lambda patch: "annotations" in patch.get("metadata", {}))
    second = world.launcher(other)
    world.go(60)
    assert annotations(world.jobs(one.key)[0])[ANNOTATION_RUNS].split(",") == [one.run.id, "third", other.run.id]
    world.until(lambda: one.key in first.ended and one.key in second.ended, 3600)
    finish(world, look, {one: first.ended[one.key], other: second.ended[one.key]})


def test_a_job_that_another_launcher_has_just_made_is_adopted(world: World) -> None:
    asked = world.ask("node")
    _once(world, "create", before=lambda job: world.door.create(JOBS, NAMESPACE, job))
    assert follow(world, asked)[asked.key].outcome == "done"
    assert world.outcomes(asked) == ["done"]


def test_a_job_that_is_gone_as_soon_as_it_is_made_is_made_again(world: World) -> None:
    asked = world.ask("node")
    name = asked.request.name(world.settings)
    _once(world, "create", after=lambda: world.door.delete(JOBS, NAMESPACE, name, propagationPolicy="Background"))
    assert follow(world, asked)[asked.key].outcome == "done"
    assert world.outcomes(asked)[-1] == "done"
