"""`--dry-run` says why each stage would run: against the latest artifact of that node, option by option."""

from pathlib import Path

import pytest

from components import derivation
from pipelines.explain import reasons
from pipelines.nodes import Plan
from pipelines.plan import resolve
from pipelines.stages import stage
from wfm.artifacts import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", {"fsync": False})


def planned(store: Store, *overrides: str, redo: dict[str, str] | None = None) -> Plan:
    return resolve("curate", profile="smoke", store=store, overrides=overrides, redo=redo)


def commit_all(store: Store, plan: Plan) -> None:
    """As the stages would, `embed_clips` of a run that is gone too."""
    for node in plan.nodes:
        with store.attempt(node.key or "") as attempt:
            (attempt.path / "a.txt").write_text(node.name)
            attempt.commit(
                stage=node.stage, kind=stage(node.stage).output, counts={}, inputs=plan.input_keys(node),
                config=node.config, code_id=derivation.code_id(node.component), extra={"node": node.name, "run_id": "gone"},
            )  # fmt: skip


def test_the_option_that_changed_and_what_follows(store: Store) -> None:
    """The old code: "no artifact 0123456789ab yet (code v3)" and "follows split_clips"."""
    before = planned(store)
    assert reasons(before, store) == {}, "there was nothing to compare with"
    commit_all(store, before)
    plan = planned(store, "split_clips.cut.crf=20", "split_clips.shots.maximum_seconds=30")
    why = reasons(plan, store)
    key = (before.node("split_clips").key or "")[:12]
    assert why["split_clips"] == f"differs from {key}: cut.crf: 18 -> 20; shots.maximum_seconds: 60.0 -> 30.0"
    assert why["score_clips"].endswith("input clips (split_clips) is another")
    assert "ingest_videos" not in why


def test_a_how_field_is_no_reason_and_the_newest_artifact_counts(store: Store) -> None:
    commit_all(store, planned(store))
    commit_all(store, planned(store, "select_clips.minimum_frames=40"))
    plan = planned(store, "select_clips.minimum_frames=50", "dedup_clips.block=100")
    assert [node.name for node in plan.missing] == ["select_clips", "write_shards"]
    assert "minimum_frames: 40 -> 50" in reasons(plan, store)["select_clips"]


def test_code_redo_and_outside(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    commit_all(store, planned(store))
    assert reasons(planned(store, redo={"select_clips": "x"}), store)["select_clips"].endswith(": asked for again")
    real = derivation.read_lock()
    newer = {**real, "select_clips": {**real["select_clips"], "version": "99"}}
    newer["select_clips"]["hash"] = derivation.closure_hash("select_clips")
    monkeypatch.setattr(derivation, "read_lock", lambda: newer)
    assert "code: " in (why := reasons(planned(store), store)["select_clips"])
    assert why.endswith("-> v99")


def test_an_invalidated_one_says_who_said_what(store: Store) -> None:
    plan = planned(store)
    commit_all(store, plan)
    store.invalidate(plan.node("select_clips").key or "", "the limits were in the wrong unit")
    why = reasons(planned(store), store)
    assert why["select_clips"].startswith(f"{(plan.node('select_clips').key or '')[:12]} was invalidated at 2")
    assert why["select_clips"].endswith(": the limits were in the wrong unit")
