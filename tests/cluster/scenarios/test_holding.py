"""A run that is held back gives its devices to others, and goes on later from what it had saved."""

import pytest

from tests.cluster.conftest import MakeWorld, follow
from tests.cluster.stage import Script
from tests.cluster.world import NAMESPACE, World
from wfm.cluster import holding
from wfm.cluster.api import Api


def api_of(world: World) -> Api:
    return Api.connect(namespace=NAMESPACE, url=world.url)


@pytest.mark.parametrize(
    ("kind", "training"), [("torchjob", "pytorchjob"), ("torchjob", "trainjob"), ("container", "pytorchjob")]
)
def test_who_is_held_frees_its_devices_and_goes_on_later(make_world: MakeWorld, kind: str, training: str) -> None:
    """Held for an hour, of a job that may run twelve minutes and be tried once; another run has the quota meanwhile."""
    world = make_world(training_job=training, quota=8, machines=1)
    asked = world.ask("node", kind=kind, retries=0, timeout=700, script=Script(seconds=600, heeds=False))
    other = world.ask("other", kind=kind, script=Script(seconds=300))
    said: list[str] = []
    words: list[str] = []

    def look() -> None:
        assert world.running(asked.key) == []
        assert world.running(other.key), "the devices are another's"
        words.append(str(world.launchers[0].launcher._entries[asked.key, asked.run.id, "node"].said.words))

    world.at(200, lambda: said.extend(holding.hold(api_of(world), asked.run.id, "maria")))
    world.at(450, look)
    world.at(3800, lambda: said.extend(holding.let_go(api_of(world), asked.run.id)))
    ends = follow(world, asked, other, lost=1)
    assert ends[asked.key].outcome == ends[other.key].outcome == "done"
    assert words == ["held back: maria suspended it, and `wfm resume` lets it go on"]
    assert [one.partition(" ")[2] for one in said] == [
        "is put out of the queue, and gives back what it holds", "waits for its turn in the queue again",
    ]  # fmt: skip
    assert len(world.records(asked)) == 2, "it goes on, by another try"


def test_what_was_put_out_by_hand_is_not_let_go(world: World) -> None:
    """Only what was held here: what a person or the queue deactivated ends the wait, as ever."""
    asked = world.ask("node")
    launching = world.launcher(asked)
    world.until(lambda: world.running(asked.key), 600)
    world.change_workload(asked.key, {"spec": {"active": False}})
    assert holding.let_go(api_of(world), asked.run.id) == []
    world.until(lambda: asked.key in launching.ended, 900)
    assert "deactivated" in launching.ended[asked.key].reason
    assert holding.hold(api_of(world), "a-run-of-no-jobs", "maria") == []


def test_what_another_run_needs_goes_on(world: World) -> None:
    asked = world.ask("node", script=Script(seconds=300))
    again = world.ask("node", key=asked.key)
    world.at(
        150,
        lambda: (
            said.extend(holding.hold(api_of(world), asked.run.id, "maria")),
            holding.let_go(api_of(world), asked.run.id),
        ),
    )
    said: list[str] = []
    launching = [world.launcher(asked), world.launcher(again)]
    world.until(lambda: all(asked.key in one.ended for one in launching), 3600)
    assert said == [said[0]]
    assert f"run {again.run.id} needs it too" in said[0]
    assert {one.ended[asked.key].outcome for one in launching} <= {"done", "cached"}


def test_a_suspended_run_makes_no_job(world: World) -> None:
    """Of an engine that knows no suspend the next launcher is begun all the same."""
    asked = world.ask("node", script=Script(seconds=60))
    asked.run.request_suspend("maria")
    launching = world.launcher(asked)
    world.go(600)
    assert world.jobs() == []
    told = launching.launcher._entries[asked.key, asked.run.id, "node"].said.words
    assert told == "maria suspended this run: no job is made until `wfm resume` lets it go on"
    asked.run.request_resume("maria")
    world.until(lambda: asked.key in launching.ended, 3600)
    assert launching.ended[asked.key].outcome == "done"
    asked.run.request_suspend("maria")
    other = world.ask("other", run=asked.run)
    launching = world.launcher(other)
    world.go(60)
    asked.run.request_cancel("maria")
    world.until(lambda: other.key in launching.ended, 600)
    assert launching.ended[other.key].outcome == "cancelled"


def test_a_job_of_no_queue_is_suspended_itself(make_world: MakeWorld) -> None:
    world = make_world(integrations=())
    world.settings = world.settings.model_copy(update={"queue": ""})
    asked = world.ask("node", script=Script(seconds=300), timeout=400)
    said: list[str] = []
    world.at(200, lambda: said.extend(holding.hold(api_of(world), asked.run.id, "maria")))
    world.at(300, lambda: said.append(f"{len(world.running(asked.key))} pods"))
    world.at(1800, lambda: said.extend(holding.let_go(api_of(world), asked.run.id)))
    launching = world.launcher(asked)
    world.until(lambda: asked.key in launching.ended, 7200)
    assert launching.ended[asked.key].outcome == "done"
    assert [one.partition(" ")[2] for one in said] == [
        "is suspended, and gives back what it holds", "pods", "goes on",
    ]  # fmt: skip
    assert said[1] == "0 pods"
