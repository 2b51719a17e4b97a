"""Launchers that come, go, and work side by side; cancels."""

import pytest

from tests.cluster.conftest import MakeWorld, finish, follow
from tests.cluster.invariants import Invariants
from tests.cluster.stage import End, Script
from tests.cluster.world import NAMESPACE, World


@pytest.mark.parametrize("kind", ["torchjob", "container", "daskjob"])
@pytest.mark.parametrize(("way", "moment"), [("crash", 0), ("detach", 10), ("crash", 100), ("detach", 620)])
def test_the_next_launcher_adopts(world: World, kind: str, way: str, moment: float) -> None:
    asked = world.ask("node", kind=kind)
    look = Invariants(world, [asked])
    first = world.launcher(asked)
    world.go(moment)
    getattr(world, way)(first)
    world.pass_time(30)
    again = world.launcher(asked)
    world.until(lambda: asked.key in again.ended, 3600)
    finish(world, look, {asked: again.ended[asked.key]})
    assert world.outcomes(asked) == ["done"]


def test_two_launchers_of_one_run_make_one_job(world: World) -> None:
    asked = world.ask("node", script=Script(ends=(End("try_again", 100), End("crash", 100), End())))
    look = Invariants(world, [asked])
    both = [world.launcher(asked), world.launcher(asked)]
    world.until(lambda: all(asked.key in each.ended for each in both), 7200)
    finish(world, look, {asked: both[0].ended[asked.key]}, lost=2)
    assert len(world.records(asked)) == 3
    assert {each.ended[asked.key].outcome for each in both} <= {"done", "cached"}


def test_two_runs_that_need_a_key_share_its_job(world: World) -> None:
    one = world.ask("node")
    other = world.ask("node", key=one.key)
    look = Invariants(world, [one, other])
    first = world.launcher(one)
    world.go(100)
    second = world.launcher(other)
    world.until(lambda: one.key in first.ended and one.key in second.ended, 3600)
    finish(world, look, {one: first.ended[one.key], other: second.ended[one.key]})
    assert len(world.records(one)) + len(world.records(other)) == 1


@pytest.mark.parametrize("who", ["maker", "other"])
def test_a_cancel_does_not_take_the_job_of_another_run(world: World, who: str) -> None:
    one = world.ask("node")
    other = world.ask("node", key=one.key)
    look = Invariants(world, [one, other])
    first = world.launcher(one)
    world.go(60)
    second = world.launcher(other)
    world.go(60)
    job = world.jobs(one.key)[0]["metadata"]["uid"]
    stopped, left = (one, other) if who == "maker" else (other, one)
    of = {one: first, other: second}
    look.cancel(stopped)
    world.until(lambda: stopped.key in of[stopped].ended, 300)
    assert of[stopped].ended[stopped.key].outcome == "cancelled"
    if of[stopped] in world.launchers:
        world.launchers.remove(of[stopped])
    world.go(60)
    assert [each["metadata"]["uid"] for each in world.jobs(one.key)] == [job], (
        "the job is gone, though another run needs it"
    )
    world.until(lambda: left.key in of[left].ended, 3600)
    assert of[left].ended[left.key].outcome in ("done", "cached")
    finish(world, look, {stopped: of[stopped].ended[stopped.key], left: of[left].ended[left.key]}, lost=1)


def test_when_all_runs_that_need_a_job_are_cancelled_it_goes(world: World) -> None:
    one = world.ask("node", script=Script(seconds=3000))
    other = world.ask("node", key=one.key)
    look = Invariants(world, [one, other])
    first = world.launcher(one)
    world.go(60)
    second = world.launcher(other)
    world.go(60)
    world.crash(first)  # nobody is left to take its run off the job
    look.cancel(one)
    look.cancel(other)
    world.until(lambda: one.key in second.ended, 300)
    assert second.ended[one.key].outcome == "cancelled"
    world.until(lambda: not world.holding(one.key), 120)
    assert not world.jobs(one.key)
    assert not look.broken


@pytest.mark.parametrize(("kind", "training"), [
    ("torchjob", "pytorchjob"), ("torchjob", "trainjob"), ("container", "pytorchjob"), ("daskjob", "pytorchjob"),
])  # fmt: skip
@pytest.mark.parametrize("heeds", [True, False])
def test_after_a_cancel_nothing_holds_a_gpu(make_world: MakeWorld, kind: str, training: str, heeds: bool) -> None:
    world = make_world(training_job=training)
    asked = world.ask("node", kind=kind, grace=30, replicas=1 if kind == "container" else 2, gpu=4,
                      script=Script(heeds=heeds))  # fmt: skip
    look = Invariants(world, [asked])
    launching = world.launcher(asked)
    world.until(lambda: world.running(asked.key), 600)
    world.go(100)
    look.cancel(asked)
    began = world.clock.now()
    world.until(lambda: not world.holding(asked.key), 30 + 90)
    assert world.clock.now() - began <= 30 + 60
    world.until(lambda: asked.key in launching.ended, 300)
    assert launching.ended[asked.key].outcome == "cancelled"
    finish(world, look, {asked: launching.ended[asked.key]})
    assert not world.jobs(asked.key)


def test_a_cancel_while_no_launcher_lives_is_done_by_the_next(world: World) -> None:
    asked = world.ask("node", script=Script(seconds=5000, heeds=False))
    look = Invariants(world, [asked])
    first = world.launcher(asked)
    world.go(100)
    world.crash(first)
    look.cancel(asked)
    world.pass_time(100)
    again = world.launcher(asked)
    world.until(lambda: asked.key in again.ended, 600)
    world.pass_time(60)
    assert not world.holding(asked.key)
    assert not look.broken


def test_a_cancel_in_the_queue_leaves_nothing(make_world: MakeWorld) -> None:
    world = make_world(quota=0)
    asked = world.ask("node")
    look = Invariants(world, [asked])
    launching = world.launcher(asked)
    world.go(200)
    look.cancel(asked)
    world.until(lambda: asked.key in launching.ended, 300)
    world.pass_time(60)
    assert not world.jobs(asked.key)
    assert not world.pods(asked.key)
    assert world.workload(asked.key) is None


def test_a_killed_launcher_between_delete_and_create_doubles_nothing(world: World) -> None:
    asked = world.ask("node", script=Script(ends=(End("crash", 100), End("crash", 100), End())))
    look = Invariants(world, [asked])
    for _ in range(40):  # a new launcher every 20 s
        hasty = world.launcher(asked)
        world.go(20)
        world.crash(hasty)
    launching = world.launcher(asked)
    world.until(lambda: asked.key in launching.ended, 3600)
    finish(world, look, {asked: launching.ended[asked.key]}, lost=2)
    assert launching.ended[asked.key].outcome == "done"


def test_a_job_of_that_name_that_is_not_ours_is_not_touched(world: World) -> None:
    asked = world.ask("node", kind="container")
    name = asked.request.name(world.settings)
    spec = {"template": {"spec": {"containers": [{"name": "c", "image": "x"}], "restartPolicy": "Never"}}}
    theirs = world.door.create("jobs.batch", NAMESPACE, {"metadata": {"name": name}, "spec": spec})
    launching = world.launcher(asked)
    world.until(lambda: asked.key in launching.ended or world.clock.now() - world.began > 600, 700)
    there = world.door.find("jobs.batch", NAMESPACE, name)
    assert there is not None
    assert there["metadata"]["uid"] == theirs["metadata"]["uid"]
    assert launching.ended[asked.key].outcome == "wrong_input"


def test_another_generation_has_a_job_of_its_own(world: World) -> None:
    """A key that was taken back is made anew, while the job of the generation before still works."""
    before = world.ask("node", gpu=4, script=Script(seconds=3000))
    first = world.launcher(before)
    world.until(lambda: world.running(before.key), 600)
    old = world.jobs(before.key)[0]["metadata"]["uid"]
    world.crash(first)
    asked = world.ask("node", key=before.key, gpu=4, generation=2)
    launching = world.launcher(asked)

    def jobs() -> dict[str, str]:
        return {world.generation_of(job)[1]: job["metadata"]["uid"] for job in world.jobs(asked.key)}

    world.until(lambda: set(jobs()) == {"1", "2"}, 200)
    world.go(200)
    assert jobs()["1"] == old
    assert asked.key not in launching.ended


def test_another_engine_at_the_key_is_waited_for(world: World) -> None:
    """A try that leaves because somebody else holds the lease is nobody's fault, whatever the retries."""
    asked = world.ask("node", retries=0)
    holders = world.desk.of(asked.key).holders
    holders.append("another engine")
    world.at(200, holders.clear)
    assert follow(world, asked)[asked.key].outcome == "done"
    assert world.outcomes(asked)[0] == "try_again"
    assert world.outcomes(asked)[-1] == "done"
