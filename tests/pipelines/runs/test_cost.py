"""Hours by run, team and stage, of failed tries too; events in order; and marks of several writers."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.runs.cost import NO_TEAM, cost_of
from pipelines.runs.events import events
from pipelines.runs.seen import see
from pipelines.runs.submission import Submission, write_submission
from wfm.artifacts import Store
from wfm.artifacts.runs import Run

Cli = Callable[..., tuple[int, str, str]]
HOUR = 3600.0
NODES = [{"name": "train_a", "stage": "train"}, {"name": "train_b", "stage": "train"}, {"name": "cut", "stage": "cut"}]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    found = Store.open(tmp_path / "store", {"fsync": False})
    monkeypatch.setenv("WFM_STORE", found.url)
    return found


def a_run(store: Store, team: str, *tries: tuple[str, str, float]) -> Run:
    """Tries: node, outcome ("": none was written, and its last beat is a day old), GPU-hours."""
    run = store.runs.create({"pipeline": "p", "profile": "demo", "team": team, "nodes": NODES})
    for node, outcome, hours in tries:
        number = run.append_attempt(
            node, {"host": "node-7", "machine": "another", "started_at": "2026-11-20T10:00:00.000Z"}
        )
        used = {"seconds": 60.0, "cpu_seconds": 2 * hours * HOUR, "gpu_seconds": hours * HOUR}
        run.write_usage(node, number, {"at": "2026-11-20T10:30:00.000Z", **used})
        if outcome:
            run.write_outcome(node, number, {"outcome": outcome, "reason": f"it was {outcome}", **used})
    return run


def test_every_try_counts_and_what_made_nothing_stands_apart(store: Store, cli: Cli) -> None:
    first = a_run(store, "vision", ("cut", "done", 0.0), ("train_a", "bug", 3.0), ("train_a", "done", 5.0))
    a_run(store, "robots", ("train_b", "", 2.0), ("train_b", "cancelled", 0.5))
    a_run(store, "", ("cut", "done", 0.25))
    lines, total = cost_of(store.runs.list(), "team")
    told = [
        (line.name, line.runs, line.tries, line.gpu_hours, line.wasted_tries, line.wasted_gpu_hours) for line in lines
    ]
    assert told == [("vision", 1, 3, 8.0, 1, 3.0), ("robots", 1, 2, 2.5, 2, 2.5), (NO_TEAM, 1, 1, 0.25, 0, 0.0)]
    assert (total.runs, total.tries, total.gpu_hours, total.cpu_hours, total.wasted_cpu_hours) == (
        3,
        6,
        10.75,
        21.5,
        11.0,
    )
    lines, _ = cost_of(store.runs.list(), "stage")
    assert [(line.name, line.runs, line.gpu_hours) for line in lines] == [("train", 2, 10.5), ("cut", 2, 0.25)]
    assert cost_of(store.runs.list(), since=1.8e9) == ([], cost_of([], "run")[1])
    code, out, _ = cli("cost", first.id, "--by", "stage", "--json")
    assert code == 0
    assert {line["name"]: line["gpu_hours"] for line in json.loads(out)["lines"]} == {"train": 8.0, "cut": 0.0}
    assert cli("cost", first.id, first.id, "--by", "stage", "--json")[1] == out, "named twice, it costs once"
    assert json.loads(cli("cost", "--since", "999999w", "--json")[1])["since"] == ""
    assert "--by 'week'. Choices: run, team, stage" in cli("cost", "--by", "week")[2]
    assert "such as 12h, 7d, 4w" in cli("cost", "--since", "soon")[2]


def test_what_a_suspend_stopped_is_not_wasted(store: Store, cli: Cli) -> None:
    """The next try goes on from its checkpoint. Not so what was cancelled, before or after, by hand."""
    run = store.runs.create({"pipeline": "p", "profile": "demo", "nodes": NODES})

    def a_try(hours: float, outcome: str = "cancelled", day: str = "", during: Callable[[], object] = bool) -> None:
        then = {"started_at": f"{day}T10:00:00.000Z"}, {"finished_at": f"{day}T11:00:00.000Z"}
        number = run.append_attempt("train_a", then[0] if day else {})
        during()
        used = {"outcome": outcome, "seconds": 1.0, "gpu_seconds": hours * HOUR}
        run.write_outcome("train_a", number, {**used, **(then[1] if day else {})})

    a_try(1.0, day="2026-11-20")  # no suspend falls into it
    a_try(2.0, during=run.request_suspend)
    run.request_resume()
    a_try(4.0, "bug")
    a_try(8.0, "done")
    total = cost_of([run])[1]
    assert (total.stopped_tries, total.stopped_gpu_hours, total.wasted_tries, total.wasted_gpu_hours) == (
        1,
        2.0,
        2,
        5.0,
    )
    assert "stopped" in cli("cost", run.id)[1]
    assert "in 1 stopped by a suspend" in cli("status", run.id)[1]
    a_try(16.0, during=run.request_suspend)
    assert cost_of([run])[1].stopped_tries == 2
    run.request_cancel()
    assert cost_of([run])[1].wasted_gpu_hours == 21.0, "of what was cancelled then nothing goes on"


def test_a_run_that_cannot_be_read_hides_no_other(store: Store, cli: Cli) -> None:
    a_run(store, "vision", ("train_a", "done", 1.0))
    bad = a_run(store, "vision", ("train_a", "done", 1.0))
    bad.write("engine.json", b"[1]")
    code, out, err = cli("cost", "--by", "team")
    assert code == 0
    assert "vision" in out
    assert f"left out: {bad.id}" in err
    assert cli("cost", bad.id, "--json")[1].count(bad.id) >= 1


def test_events_stand_in_order_and_say_why(store: Store) -> None:
    run = a_run(store, "vision", ("cut", "done", 0.0), ("train_a", "try_again", 1.0), ("train_a", "", 1.0))
    write_submission(
        run,
        Submission(run_id=run.id, engine="argo", by="me@desk", submitted_at="2026-11-20T09:59:00.000Z", team="vision"),
    )
    run.request_suspend("me@desk")
    found = events(run)
    assert [one.at for one in found] == sorted(one.at for one in found)
    words = [f"{one.stage}: {one.words}" for one in found]
    assert words[0] == ": submitted to argo by me@desk, team vision"
    assert "train_a: tried again, try 2 on node-7" in words
    assert any(one.startswith("train_a: failed, may be tried again: it was try_again") for one in words)
    assert any(one.startswith("train_a: killed or lost: its last sign was") for one in words)
    assert words[-1] in (": suspended by me@desk", "cut: done", "train_a: failed, may be tried again: it was try_again")
    assert ": suspended by me@desk" in words
    run.write("marks/0002.json", b"broken")
    assert any("suspended by somebody" in one.words for one in events(run)), "what cannot be read is said, not left out"


def test_of_many_that_suspend_or_resume_at_once_one_does(store: Store) -> None:
    run = a_run(store, "")
    for ask, verb in (
        (run.request_suspend, "suspend"),
        (run.request_resume, "resume"),
        (run.request_suspend, "suspend"),
    ):
        answers: list[bool] = []
        barrier = threading.Barrier(8)

        def one(ask: Callable[[str], bool] = ask, to: list[bool] = answers, at: threading.Barrier = barrier) -> None:
            at.wait()
            to.append(ask("me"))

        all_of_them = [threading.Thread(target=one) for _ in range(8)]
        for thread in all_of_them:
            thread.start()
        for thread in all_of_them:
            thread.join()
        assert answers.count(True) == 1
        assert bool(run.suspended_by()) == (verb == "suspend")
    assert [mark["verb"] for mark in run.marks()] == ["suspend", "resume", "suspend"]
    run.write("marks/0003.json", b"{")
    assert run.suspended_by() == "somebody", "a mark that cannot be read keeps from going on"
    assert run.request_resume("me")
    assert run.suspended_by() == ""


def test_before_its_plan_a_run_of_a_cluster_is_pending_and_is_found(store: Store, cli: Cli) -> None:
    run = store.runs.of("curate-demo-20261130t0300z-0123abcd")
    request = {"pipeline": "curate", "profile": "demo"}
    asked = Submission(
        run_id=run.id,
        engine="argo",
        request=request,
        submitted_at="2026-11-20T09:59:00.000Z",
        name="w",
        refused="no quota",
    )
    write_submission(run, asked.model_copy(update={"refused": ""}))
    state = see(run)
    assert state is not None
    assert (state.state, state.pipeline) == ("pending", "curate")
    assert store.runs.open("curate-demo").id == run.id
    assert "argo could not be asked" in cli("status")[1], "also as `last`"
    run.request_suspend()
    assert (see(run) or state).state == "suspended"
    write_submission(run, asked)
    assert "argo did not take it: no quota" in cli("status", run.id)[1]
    run.request_cancel()
    assert (see(run) or state).state == "cancelled"
