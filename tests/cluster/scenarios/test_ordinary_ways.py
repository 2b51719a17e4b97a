"""The ordinary ways: every kind of job comes to its end, and what is tried again is what may be."""

import pytest

from tests.cluster.conftest import MakeWorld, follow
from tests.cluster.stage import End, Script, commit
from tests.cluster.world import World

KINDS = (("torchjob", "pytorchjob"), ("torchjob", "trainjob"), ("daskjob", "pytorchjob"), ("container", "pytorchjob"))


@pytest.mark.parametrize(("kind", "training"), KINDS)
def test_a_job_is_made_waits_in_the_queue_runs_and_commits(make_world: MakeWorld, kind: str, training: str) -> None:
    world = make_world(training_job=training)
    asked = world.ask("node", kind=kind, replicas=1 if kind == "container" else 2, gpu=4)
    assert follow(world, asked)[asked.key].outcome == "done"
    assert world.outcomes(asked) == ["done"]
    assert not world.holding(asked.key)


@pytest.mark.parametrize(("kind", "training"), KINDS)
def test_a_try_that_failed_is_followed_by_another(make_world: MakeWorld, kind: str, training: str) -> None:
    world = make_world(training_job=training)
    script = Script(ends=(End("try_again", 130), End("bug", 70), End("crash", 70), End()))
    asked = world.ask("node", kind=kind, script=script)
    assert follow(world, asked, lost=3)[asked.key].outcome == "done"
    assert world.outcomes(asked)[0] == "try_again"
    assert world.outcomes(asked)[-1] == "done"
    assert len(world.outcomes(asked)) == 4
    assert len({record.record["token"] for record in world.records(asked)}) == 4, "each try has a token of its own"


@pytest.mark.parametrize(("kind", "training"), KINDS)
@pytest.mark.parametrize(("how", "tries"), [("wrong_input", 1), ("bug", 2)])
def test_what_is_final_is_not_tried_again(
    make_world: MakeWorld, kind: str, training: str, how: str, tries: int
) -> None:
    world = make_world(training_job=training)
    asked = world.ask("node", kind=kind, script=Script(ends=(End(how, 50),)))
    end = follow(world, asked, lost=tries)[asked.key]
    assert end.outcome == how
    assert world.outcomes(asked) == [how] * tries


def test_retries_are_bounded(world: World) -> None:
    asked = world.ask("node", retries=2, script=Script(ends=(End("try_again", 70),)))
    assert follow(world, asked, lost=3)[asked.key].outcome == "try_again"
    assert world.outcomes(asked) == ["try_again"] * 3


def test_ranges_of_parts_then_one_pod_that_commits(world: World) -> None:
    asked = world.ask("node", kind="container", parts=3, replicas=2, gpu=1, script=Script(seconds=100))
    assert follow(world, asked, lost=2)[asked.key].outcome == "done"
    told = [record.record.get("parts", "") for record in world.records(asked)]
    assert sorted(told) == ["", "0/3", "1/3", "2/3"]
    assert world.outcomes(asked) == ["done"] * 4


def test_what_is_made_already_makes_no_pod(world: World) -> None:
    asked = world.ask("node")
    commit(world.store, asked.key, {})
    assert follow(world, asked, limit=120)[asked.key].outcome in ("done", "cached")
    assert not world.jobs()
    assert not world.pods()


def test_a_try_that_hangs_is_stopped_after_its_time(world: World) -> None:
    asked = world.ask("node", timeout=400, script=Script(300, ends=(End("hang", 100), End())))
    assert follow(world, asked, lost=1, hangs=1)[asked.key].outcome == "done"
    assert "400" in world.reasons(asked)


def test_one_launcher_follows_many(world: World) -> None:
    many = [
        world.ask(f"node{number}", gpu=2, kind=kind) for number, kind in enumerate(("torchjob", "container", "daskjob"))
    ]
    launching = world.launcher(*many)
    world.until(lambda: len(launching.ended) == 3, 3600)
    assert {end.outcome for end in launching.ended.values()} == {"done"}
