"""A run that a cluster began by itself, and whose plan failed: nothing but the step that planned can say it, and it does."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.plan_step import main, noting_failure
from pipelines.request import Request
from pipelines.runs.failed_plan import failed_plan_of, note_failed_plan
from pipelines.runs.seen import see
from pipelines.runs.submission import asked_now, create_submission
from pipelines.runs.untold import tell_untold
from tests.pipelines.engines.argo.compiled import SETTINGS
from tests.pipelines.runs.hook import Receiver
from wfm.artifacts import Store
from wfm.artifacts.runs import Run
from wfm.errors import ConfigError, DataError, TryAgain

Cli = Callable[..., tuple[int, str, str]]
RUN = "nightly-29837100"


@pytest.fixture
def store(workshop) -> Store:
    return workshop.store


@pytest.fixture
def plan(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The first step of a run of a cron line; its exit code."""
    (tmp_path / "cluster.json").write_text(json.dumps(SETTINGS.resolved()))
    monkeypatch.setenv("WFM_CLUSTER", str(tmp_path / "cluster.json"))

    def planned(*overrides: str) -> int:
        words = ["--run-id", RUN, "--workflow-uid", "uid", "--pipeline", "curate", "--profile", "smoke", "--store"]
        words += [store.url, "--overrides", json.dumps(overrides), "--out", str(tmp_path / "out")]
        monkeypatch.setattr("sys.argv", ["plan_step", *words])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return planned


def state_of(run: Run) -> str:
    state = see(run)
    assert state is not None
    return state.state


def test_a_scheduled_run_whose_plan_failed_says_what_happened(plan, store: Store, cli: Cli) -> None:
    assert plan("split_clips.nonsense=1") == 78
    assert [run.id for run in store.runs.list()] == [RUN]
    state = see(store.runs.of(RUN))
    assert state is not None
    assert (state.state, state.pipeline, state.profile) == ("failed", "curate", "smoke")
    assert "nonsense" in state.reason
    assert 0 <= time.time() - state.started < 60
    code, out, _ = cli("runs")
    assert code == 0
    assert RUN in out
    assert "failed" in out
    code, out, _ = cli("runs", "--json")
    (row,) = json.loads(out)["runs"]
    assert (row["state"], row["pipeline"], row["made"]) == ("failed", "curate", 0)
    assert "nonsense" in row["reason"]
    code, out, _ = cli("status", RUN)
    assert code == 0
    assert "curate (smoke) is failed" in out
    assert "its plan failed: ConfigError" in " ".join(out.split())
    code, out, err = cli("status")
    assert (code, "passed over" in err, RUN in out) == (0, False, True), "it is the last one"
    code, out, _ = cli("logs", RUN)
    assert code == 0
    assert out.startswith("[plan] ConfigError: ")
    assert "nonsense" in out
    code, _, err = cli("logs", RUN, "split_clips")
    assert code != 0
    assert "nonsense" in err


def test_a_plan_that_stands_is_all_that_is_shown_whatever_failed_before(plan, store: Store) -> None:
    assert plan("split_clips.nonsense=1") == 78
    assert plan() == 0
    state = see(store.runs.of(RUN))
    assert state is not None
    assert (state.state, state.reason) == ("planned", "")
    assert state.nodes


def test_what_may_pass_waits_for_another_try_and_is_given_up_after_a_while(store: Store, monkeypatch) -> None:
    run = store.runs.of(RUN)
    for _ in range(2):
        with pytest.raises(TryAgain), noting_failure(run, Request("curate", profile="smoke")):
            raise TryAgain("the store is away")
    state = see(run)
    assert state is not None
    assert (state.state, state.ended) == ("pending", 0.0)
    assert state.reason == "its plan failed (2 tries), and may be tried again: TryAgain: the store is away"
    now = time.time()
    monkeypatch.setattr("pipelines.runs.failed_plan.time.time", lambda: now + 1801)
    state = see(run)
    assert state is not None
    assert state.state == "failed"


def test_a_bug_leaves_its_trace_and_is_over_when_it_came_twice(store: Store, cli: Cli) -> None:
    run, seen = store.runs.of(RUN), []
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), noting_failure(run, Request("curate", profile="smoke")):
            1 / 0  # noqa: B018
        seen.append(state_of(run))
    assert seen == ["pending", "failed"]
    _, out, _ = cli("logs", RUN)
    assert "[plan] Traceback" in out
    assert "1 / 0" in out


def test_the_wish_to_cancel_or_suspend_comes_first_and_asked_again_it_is_pending(store: Store) -> None:
    run = store.runs.of(RUN)
    note_failed_plan(run, "curate", "smoke", ConfigError("wrong"))
    run.request_suspend("maria")
    assert state_of(run) == "suspended"
    run.request_cancel("maria")
    assert state_of(run) == "cancelled"
    other = store.runs.of("other")
    note_failed_plan(other, "curate", "smoke", ConfigError("wrong"))
    create_submission(other, asked_now(other, "argo", {"pipeline": "curate"}))
    assert state_of(other) == "pending", "asked again since"
    note_failed_plan(other, "curate", "smoke", ConfigError("wrong again"))
    assert state_of(other) == "failed"


def test_whoever_wants_to_hear_of_failures_hears_of_it_at_once(plan, store: Store, receiver: Receiver) -> None:
    plan("split_clips.nonsense=1")
    assert tell_untold(store.runs.list()) == [RUN]
    assert tell_untold(store.runs.list()) == [], "once"


def test_a_record_that_is_damaged_is_told_and_gives_way_to_the_next(store: Store) -> None:
    run = store.runs.of(RUN)
    run.write("plan.json", b"{")
    with pytest.raises(DataError):
        failed_plan_of(run)
    note_failed_plan(run, "curate", "smoke", ConfigError("wrong"))
    found = failed_plan_of(run)
    assert found is not None
    assert found.outcomes == ["wrong_input"]
