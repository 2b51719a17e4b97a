"""The first step of a run on a cluster: what it writes, what it says, and what it refuses."""

import json
import threading
from pathlib import Path

import pytest

from components.entrypoint import node_key
from components.outside import keep, recall
from pipelines.engines.flow import EMITTERS, tasks_of
from pipelines.plan_step import main, of_workflow, plan_run, wait_while_suspended
from pipelines.request import Request
from tests.pipelines.engines.argo.compiled import SETTINGS
from wfm.artifacts import Store
from wfm.cluster.names import node_name
from wfm.errors import ConfigError, DataError, InputError


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    (tmp_path / "cluster.json").write_text(json.dumps(SETTINGS.resolved()))
    monkeypatch.setenv("WFM_CLUSTER", str(tmp_path / "cluster.json"))
    return Store.open(tmp_path / "store", {"fsync": False})


def expected(request: Request, store: Store) -> dict[str, str]:
    return {task.node: task.digest(SETTINGS) for task in tasks_of(request.plan(store).nodes)}


def test_it_writes_a_spec_for_what_is_missing_and_tells_every_key(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WFM_TEAM", "vision")
    request = Request("curate", profile="smoke")
    said = plan_run(request, store, "nightly-1", expected(request, store))
    plan = request.plan(store)
    names = {task.node: task.name for task in tasks_of(plan.nodes)}
    assert said["specs"] == store.runs.of("nightly-1").path_of("specs")
    assert store.runs.of("nightly-1").spec()["team"] == "vision", "by whom `wfm cost` adds up"
    for node in plan.nodes:
        assert said[f"make-{names[node.name]}"] == "true"
        assert said[f"key-{names[node.name]}"] == node.key
        spec = json.loads(store.runs.of("nightly-1").read(f"specs/{node.name}.json") or b"")
        assert (spec["node"], spec["run_id"]) == (node.name, "nightly-1")
    assert plan_run(request, store, "nightly-1", expected(request, store)) == said, "asked again it says the same"
    with pytest.raises(InputError, match="something else was asked of it"):
        plan_run(
            Request("curate", profile="smoke", overrides=("split_clips.cut.uncommon=encode",)), store, "nightly-1", None
        )


def test_a_run_with_another_graph_than_the_compiled_one_is_refused_by_name(store: Store) -> None:
    compiled = expected(Request("curate", profile="smoke"), store)
    plan_run(Request("curate", profile="smoke", overrides=("split_clips.resources.cpu=7",)), store, "a", compiled)
    other = Request("curate", profile="smoke", overrides=("select_clips.resources.cpu=7",))
    with pytest.raises(ConfigError, match="another need, input or image has select_clips"):
        plan_run(other, store, "b", compiled)
    more = Request("curate", profile="smoke", overrides=("cluster_clips.clusters=4",))
    with pytest.raises(ConfigError, match="it has also cluster_clips"):
        plan_run(more, store, "b", compiled)
    with pytest.raises(ConfigError, match="it has no cluster_clips"):
        plan_run(Request("curate", profile="smoke"), store, "b", {**compiled, "cluster_clips": "0" * 12})
    assert [run.id for run in store.runs.list()] == ["a"], "nothing was written for what was refused"


def test_the_key_of_the_ingest_is_that_of_what_was_seen(store: Store, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"a")
    request = Request("curate", profile="smoke", videos=str(tmp_path / "videos"))
    said = plan_run(request, store, "nightly", None)
    (tmp_path / "videos" / "b.mp4").write_bytes(b"b")
    assert plan_run(request, store, "nightly", None) == said
    spec = json.loads(store.runs.of("nightly").read("specs/ingest_videos.json") or b"")
    key = node_key(spec, {}, store)
    assert key in said.values()
    assert node_key({**spec, "seen": {}}, {}, store) != key, (
        "without it the stage would look itself, and see the second file"
    )
    with pytest.raises(DataError, match="what the spec says of the outside"):
        node_key({**spec, "seen": {**spec["seen"], "run_id": "../other"}}, {}, store)


@pytest.mark.parametrize("made", ["before", "after"])
def test_asked_again_it_says_the_same_though_another_run_made_one_of_the_listings(
    store: Store, tmp_path: Path, made: str
) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"a")
    request = Request("curate", profile="smoke", videos=str(tmp_path / "videos"))

    def commit() -> None:
        plan = request.plan(store)
        node = next(each for each in plan.nodes if each.name == "ingest_videos")
        with store.attempt(node.key or "") as attempt:
            attempt.commit(stage=node.stage, kind="videos", counts={})

    if made == "before":
        commit()
    said = plan_run(request, store, "nightly", None)
    (tmp_path / "videos" / "b.mp4").write_bytes(b"b")
    if made == "after":
        commit()
    assert plan_run(request, store, "nightly", None) == said
    written = {node["name"]: node["key"] for node in store.runs.of("nightly").spec()["nodes"]}
    assert written["ingest_videos"] == said[f"key-{node_name('ingest_videos')}"]


def test_what_a_queued_run_was_told_is_there_stays_through_twenty_later_runs(store: Store) -> None:
    request = Request("curate", profile="smoke")
    first = request.plan(store).nodes[0]
    with store.attempt(first.key or "") as attempt:
        attempt.commit(stage=first.stage, kind="raw_videos", counts={})
    told = plan_run(request, store, "nightly", None)
    assert told[f"make-{node_name(first.name)}"] == "false"
    for _ in range(21):
        store.runs.create({})
    store.gc(wait_seconds=0.0, min_age_seconds=0.0)
    assert store.has(told[f"key-{node_name(first.name)}"])


def test_what_was_seen_is_kept_in_pieces_and_the_first_word_stands(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.outside.PIECE_BYTES", 100)
    run = store.runs.create({"pipeline": "curate"}, "a")
    seen = {"files": [{"path": f"{number}.mp4"} for number in range(50)]}
    told = keep(run, "ingest_videos", seen)
    assert told["pieces"] > 5
    assert recall(told, store) == seen
    assert keep(run, "ingest_videos", {"files": []}) == told
    run.write(f"seen/ingest_videos/{told['sha256']}/1", b"other")
    with pytest.raises(DataError, match="is damaged"):
        recall(told, store)
    run.write(f"seen/ingest_videos/{told['sha256']}/1", b"x" * 700)
    monkeypatch.setattr("components.outside.MOST_BYTES", 600)
    with pytest.raises(DataError, match="more than 600 bytes in 2 of"):
        recall(told, store)
    with pytest.raises(InputError, match="more than 600 bytes of names outside: divide the source"):
        keep(run, "another", seen)
    monkeypatch.setattr("components.outside.MOST_PIECES", 3)
    with pytest.raises(InputError, match="divide the source"):
        keep(run, "other", seen)
    with pytest.raises(DataError, match="at most 3 are read"):
        recall(told, store)


def test_every_engine_that_is_compiled_for_has_a_module() -> None:
    import importlib

    assert all(hasattr(importlib.import_module(module), "emit") for module in EMITTERS.values())


def test_another_workflow_of_the_same_name_is_no_run_anew(store: Store) -> None:
    """Argo forgets a workflow, the store does not: the second of a name would be the first, with its old listing."""
    run = store.runs.of("nightly-1")
    of_workflow(run, "uid-1")
    of_workflow(run, "uid-1")
    with pytest.raises(InputError, match=r"made by an earlier workflow of this name \(uid-1; this one is uid-2\)"):
        of_workflow(run, "uid-2")
    run.write("workflow.json", b"{")
    with pytest.raises(DataError):
        of_workflow(run, "uid-1")


def test_a_run_that_is_suspended_is_planned_later(store: Store) -> None:
    run = store.runs.of("nightly-1")
    run.request_suspend("maria")
    later = threading.Timer(0.3, run.request_resume, ["maria"])
    later.start()
    wait_while_suspended(run, 0.05)
    later.join()
    assert run.suspended_by() == ""
    run.request_suspend("maria")
    run.request_cancel("maria")
    wait_while_suspended(run, 0.05)


def test_what_a_node_is_made_again_for_and_an_id_that_is_not_the_workflows(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--run-id", "first-x", "--asked-as=First_X", "--workflow-uid", "uid-1", "--pipeline", "curate"]
    words += [
        "--profile",
        "smoke",
        "--store",
        store.url,
        "--redo",
        '{"ingest_videos": "f00d"}',
        "--out",
        str(tmp_path / "o"),
    ]
    monkeypatch.setattr("sys.argv", ["plan_step", *words])
    main()
    assert [run.id for run in store.runs.list()] == ["First_X"]
    assert Request.of_run(store.runs.of("First_X")).redo == {"ingest_videos": "f00d"}
    for wrong in ("{", '["a"]'):
        monkeypatch.setattr("sys.argv", ["plan_step", *words, "--redo", wrong])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 78
