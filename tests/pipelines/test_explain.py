"""Why a stage ran, or not."""

import time
from typing import Any

import pytest

from pipelines.explain import explain_node
from pipelines.runs.state import NodeState, RunState, StateWriter
from wfm.artifacts import Store
from wfm.artifacts.runs import Run
from wfm.errors import InputError

BASE: dict[str, Any] = {
    "name": "split", "stage": "split", "component": "split", "key": "1" * 64, "code_id": "v1",
    "what": {"seconds": 2.0, "cut": {"threshold": 27}}, "sources": {"videos": "ingest"}, "inputs": {"videos": "a" * 64},
    "redo": "", "done": False, "why": "",
}  # fmt: skip


@pytest.fixture
def store(tmp_path: Any) -> Store:
    return Store.open(tmp_path / "store", {"fsync": False})


def past_run(
    store: Store, *, state: str = "done", reason: str = "", modules: dict[str, str] | None = None, **changed: Any
) -> Run:
    node = {**BASE, **changed}
    run = store.runs.create(
        {"pipeline": "p", "nodes": [node], "modules": {"split": modules or {"wfm.a": "1", "wfm.b": "1"}}}
    )
    given = RunState(run_id=run.id, pipeline="p")
    given.nodes["split"] = NodeState(stage="split", state=state, key=node["key"], reason=reason, attempts=1)
    given.nodes["ingest"] = NodeState(stage="ingest", state="cached")
    with StateWriter(run, given, lambda: None):
        given.state = "done"
    return run


def told(store: Store, run: Run) -> str:
    return "\n".join(explain_node(store, run, "split"))


def test_the_first_time_there_is_nothing_to_compare_with(store: Store) -> None:
    assert "No earlier run (of the newest 50)" in told(store, past_run(store))


def test_an_option(store: Store) -> None:
    past_run(store)
    said = told(store, past_run(store, key="2" * 64, what={"seconds": 2.0, "cut": {"threshold": 30}}))
    assert "Option split.cut.threshold: 27 -> 30" in said
    assert "Input" not in said
    assert "Code" not in said


def test_an_input_and_whom_to_ask_next(store: Store) -> None:
    past_run(store)
    said = told(store, past_run(store, key="2" * 64, inputs={"videos": "b" * 64}))
    assert "Input videos (ingest): aaaaaaaaaaaa -> bbbbbbbbbbbb; wfm explain RUN ingest" in said


def test_code_names_the_module(store: Store) -> None:
    past_run(store)
    said = told(store, past_run(store, key="2" * 64, code_id="f" * 64, modules={"wfm.a": "1", "wfm.b": "2"}))
    assert "Code: v1 -> ffffffffffff" in said
    assert "wfm.b is not what it was" in said
    assert "wfm.a" not in said


def test_code_of_what_a_config_names(store: Store) -> None:
    """Two ids were cut at 12 characters each, and read the same: "v1+diffusion -> v1+diffusion"."""
    past_run(store, code_id="v1+diffusion.fit.v1+tokenizer.network.v3")
    past_run(store, key="2" * 64, code_id=f"v1+diffusion.fit.{'f' * 64}+tokenizer.network.v3")
    run = past_run(store, key="3" * 64, code_id=f"v2+diffusion.fit.{'f' * 64}+action.condition.v1")
    assert "Code: v1 -> v2, tokenizer.network: v3 -> none, action.condition: none -> v1\n" in told(store, run)
    before = store.runs.list()[1]
    assert "Code: diffusion.fit: v1 -> ffffffffffff\n" in told(store, before)


def test_an_option_that_one_key_lacks(store: Store) -> None:
    """None is a value: it read as what the world outside showed."""
    past_run(store)
    said = told(store, past_run(store, key="2" * 64, what={**BASE["what"], "limit": None}))
    assert "Option split.limit: none stated -> null" in said
    assert "outside the store" not in said


def test_asked_for_again_and_the_world_outside(store: Store) -> None:
    past_run(store)
    assert "saw outside the store changed" in told(store, past_run(store, key="3" * 64))
    assert "asked for again" in told(store, past_run(store, key="2" * 64, redo="nonce"))


def test_where_it_looked_is_said_when_that_is_another(store: Store) -> None:
    """`videos` and `limit` are in no key: the old code said only that something outside changed, and nowhere what."""
    past_run(store, config={"videos": "/in/a", "limit": 0, "seconds": 2.0})
    said = told(store, past_run(store, key="3" * 64, config={"videos": "/in/b", "limit": 3, "seconds": 2.0}))
    assert 'videos: "/in/a" -> "/in/b"' in said
    assert "limit: 0 -> 3" in said
    assert "seconds" not in said


def test_a_stage_whose_turn_never_came_did_not_run(store: Store) -> None:
    """The old code said "split ran and is waiting" of a run that was killed before it."""
    said = told(store, past_run(store, state="waiting"))
    assert said.startswith("split has not begun: its turn had not come.")


def test_the_nearest_one_is_taken_not_the_newest(store: Store) -> None:
    near = past_run(store, key="4" * 64, what={"seconds": 3.0, "cut": {"threshold": 30}})
    past_run(store)
    said = told(store, past_run(store, key="2" * 64, what={"seconds": 3.0, "cut": {"threshold": 31}}))
    assert near.id in said
    assert "threshold: 30 -> 31" in said
    assert "seconds" not in said


def test_earlier_is_told_by_time_whatever_the_ids_are(store: Store) -> None:
    """A cron's run, `tick-1`, sorts behind every id of ours."""
    given = {"nodes": [BASE], "modules": {}}
    first = store.runs.create(given, "tick-1")
    time.sleep(0.01)  # times are told in milliseconds
    second = past_run(store, key="2" * 64, what={"seconds": 3.0, "cut": {"threshold": 27}})
    time.sleep(0.01)
    third = store.runs.create({"nodes": [{**BASE, "key": "3" * 64, "what": {"seconds": 4.0}}]}, "a-tick")
    assert f"run {first.id}, key" in told(store, second)
    assert "No earlier run (of the newest 50)" in told(store, first)
    assert f"run {second.id}, key" in told(store, third), "the newest of equals"


def test_of_many_runs_only_the_newest_are_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(60):
        past_run(store, key=f"{number:064d}", what={"seconds": float(number)})
    last = past_run(store, key="f" * 64, what={"seconds": -1.0})
    read: list[str] = []
    spec = Run.spec
    monkeypatch.setattr(Run, "spec", lambda self: read.append(self.id) or spec(self))
    assert "Option split.seconds: 59.0 -> -1.0" in told(store, last)
    assert len(set(read)) == 51


def test_the_same_key_after_a_failure(store: Store) -> None:
    past_run(store, state="failed", reason="the disk was full")
    said = told(store, past_run(store))
    assert "The key is the same" in said
    assert "the disk was full" in said


def test_what_did_not_run(store: Store) -> None:
    past_run(store)
    assert "did not run: 111111111111 was committed already" in told(store, past_run(store, state="cached"))
    assert "did not run: needs ingest" in told(store, past_run(store, state="not_run", reason="needs ingest"))


def test_an_unknown_stage_lists_the_choices(store: Store) -> None:
    with pytest.raises(InputError, match="Choices: split"):
        explain_node(store, past_run(store), "spilt")


def committed(store: Store, run_id: str, key: str = "1" * 64) -> None:
    with store.attempt(key) as attempt:
        attempt.commit(stage="split", kind="clips", counts={}, extra={"run_id": run_id, "node": "split"})


def test_what_another_run_made_while_this_one_waited(store: Store) -> None:
    """The old code: "split ran and is done ... That run made it; it was invalidated or collected since"."""
    first, second = past_run(store), past_run(store)
    committed(store, first.id)
    said = told(store, second)
    assert f"split did not make 111111111111: run {first.id} did, and this run took what it found." in said
    assert "ran and is done" not in said
    assert "invalidated" not in said
    assert "split ran and is done" in told(store, first)


def test_what_was_invalidated_says_why(store: Store) -> None:
    """The old code: "it was invalidated or collected since"."""
    first = past_run(store)
    committed(store, first.id)
    store.invalidate("1" * 64, "half of it is upside down")
    assert "That run made it; it was invalidated at 2" in told(store, past_run(store))
    assert "half of it is upside down" in told(store, past_run(store, state="cached"))


def test_what_is_there_although_this_run_failed(store: Store) -> None:
    first = past_run(store)
    committed(store, first.id)
    assert "That run made it, and it is there: a rerun takes it up." in told(store, past_run(store, state="failed"))


@pytest.mark.parametrize(
    "nodes", [None, 7, [1], [{"name": "split"}], [{**BASE, "what": 3}], [{**BASE, "inputs": {"videos": 1}}]]
)
def test_an_earlier_run_whose_spec_is_none_is_passed_over(store: Store, nodes: Any) -> None:
    """Before: KeyError, TypeError or AttributeError, "a bug of ours", for every later run."""
    store.runs.create({"pipeline": "p", "nodes": nodes, "modules": []})
    assert "No earlier run (of the newest 50)" in told(store, past_run(store))
