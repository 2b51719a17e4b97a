"""Runs and stores as objects, on a run that failed for real: nothing but a broken file was given."""

import pickle
from pathlib import Path

import pytest

import wfm
from pipelines.commands.run_answers import RunStatus, run_status
from pipelines.runs.seen import read_tries
from pipelines.verbs import look
from wfm.artifacts import Store
from wfm.errors import ConfigError, InputError

KEY = "ab" * 32


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[wfm.RunFailed, Path]:
    """(what `wfm.run` raised, the store) where the only video is none."""
    place = tmp_path_factory.mktemp("broken")
    (place / "videos").mkdir()
    (place / "videos" / "film.mp4").write_bytes(b"no film at all")
    with pytest.raises(wfm.RunFailed) as raised:
        wfm.run("curate", profile="smoke", videos=place / "videos", dataset="films", store=place / "store")
    return raised.value, place / "store"


def test_a_run_that_fails_is_raised_with_what_there_is_to_know(broken) -> None:
    failed, _ = broken
    assert f"run {failed.run.id} is failed: ingest_videos: " in str(failed)
    assert f"wfm logs {failed.run.id} ingest_videos" in str(failed)
    assert failed.status.state == "failed"
    stages = {one.stage: one for one in failed.status.stages}
    assert (stages["ingest_videos"].state, stages["split_clips"].state) == ("failed", "not_run")
    assert "not_a_video: 1" in failed.run.logs("ingest_videos")
    assert "not_a_video: 1" in stages["ingest_videos"].reason
    assert str(pickle.loads(pickle.dumps(failed))) == str(failed), "it crosses processes"


def test_a_run_is_found_again_and_says_what_the_command_says(broken) -> None:
    failed, place = broken
    store = wfm.store(place)
    (run,) = store.runs()
    assert store.get_run(run.id[:18]).id == run.id == failed.run.id
    kept = Store.open(place).runs.of(run.id)
    assert run.status() == run_status(look(kept), read_tries(kept))
    assert isinstance(run.status(), RunStatus)
    assert run.logs("ingest_videos", attempt=1) == kept.read_log("ingest_videos", 1)
    with pytest.raises(wfm.RunFailed):
        run.wait()
    assert run.wait(check=False).state == "failed"


def test_what_cannot_be_asked_of_a_run(broken) -> None:
    run = broken[0].run
    with pytest.raises(InputError, match=r"has no stage 'ingest'\. Choices: ingest_videos"):
        run.logs("ingest")
    with pytest.raises(InputError, match=r"attempt 7: stage ingest_videos .* has the tries 1"):
        run.logs("ingest_videos", attempt=7)
    with pytest.raises(InputError, match=r"split_clips .* was not tried in this run"):
        run.logs("split_clips")
    with pytest.raises(InputError, match="is not running: it is failed"):
        run.cancel()
    with pytest.raises(InputError, match="is failed: only one that is at work"):
        run.suspend()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"pipeline": "curat"}, InputError, "curat"),
        ({"profile": "none"}, InputError, "none"),
        ({"engine": "argo"}, InputError, "unknown engine 'argo'"),
        ({"overrides": "a.b=1"}, ConfigError, r"overrides is the text 'a\.b=1': give a dict, or a list"),
        ({"overrides": {"ingest_videos.limi": 1}}, ConfigError, "limi"),
        ({"overrides": ["ingest_videos.limit"]}, ConfigError, "not of the form"),
        ({"videos": "/none/at/all"}, InputError, "/none/at/all"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_written(tmp_path, change, error, words) -> None:
    with pytest.raises(error, match=words):
        wfm.run(**{"pipeline": "curate", "profile": "smoke", "store": tmp_path / "store", **change})
    assert not (tmp_path / "store").exists()


def test_overrides_as_a_dict_are_those_of_the_command() -> None:
    from pipelines.api.run import _request

    asked = {"a.b": 1e-3, "a.c": "minilm", "a.d": True, "a.e": [1, 2]}
    wanted = ("a.b=0.001", 'a.c="minilm"', "a.d=true", "a.e=[1, 2]", "ingest_videos.limit=3")
    assert _request("curate", "demo", "", "", asked, 3).overrides == wanted
    assert _request("curate", "demo", Path("films"), "", ["a.b=1"], 0).videos == "films"


@pytest.fixture
def store(tmp_path: Path) -> wfm.Store:
    kept = Store.open(tmp_path / "store")
    with kept.attempt(KEY) as attempt:
        (attempt.path / "card.json").write_text("{}")
        attempt.commit(stage="publish_model", kind="model", counts={"inputs": 3})
    kept.promote("model", "tiny", KEY)
    return wfm.store(tmp_path / "store")


def test_artifacts_by_reference(store, tmp_path) -> None:
    assert store.names() == store.names("model") == {"model/tiny@latest": KEY}
    for reference in ("model/tiny", "model/tiny@latest", KEY, KEY[:8]):
        artifact = store.artifact(reference)
        assert (artifact.key, artifact.kind, artifact.names()) == (KEY, "model", ["model/tiny@latest"])
    assert artifact.manifest.counts == {"inputs": 3}
    assert [(file.path, file.size) for file in artifact.files()] == [("card.json", 2)]
    with artifact.open("card.json") as file:
        assert file.read() == b"{}"
    assert [path.name for path in artifact.pull(tmp_path / "out")] == ["card.json"]
    assert (tmp_path / "out" / "card.json").read_text() == "{}"
    assert [one["stage"] for one in artifact.lineage()] == ["publish_model"]
    assert artifact.verify() == []
    assert store.promote("model/tiny", "model/tiny@production") == "model/tiny@production"
    assert "@" in next(store.opened.names.history("model", "tiny", "production")).by, "its history says who"
    assert store.artifact("model/tiny@production").key == KEY
    (tmp_path / "store" / "artifacts" / KEY).joinpath("attempts", artifact.manifest.attempt, "card.json").write_text(
        "[]"
    )
    assert "card.json" in store.artifact(KEY).verify()[0]


def test_what_is_not_there_is_said(store, tmp_path) -> None:
    with pytest.raises(InputError, match=r"no model/big@latest: the names are model/tiny@latest"):
        store.artifact("model/big")
    with pytest.raises(InputError, match="no table 'clips'"):
        store.artifact("model/tiny").table("clips")
    with pytest.raises(InputError, match="'none' is not the id of a run"):
        store.get_run("none")
    assert store.runs() == []
    nowhere = wfm.store(tmp_path / "nowhere")
    for ask in (
        nowhere.names,
        nowhere.runs,
        lambda: nowhere.artifact("model/tiny"),
        lambda: nowhere.dataset("curated"),
    ):
        with pytest.raises(InputError, match=r"the store .*nowhere does not exist"):
            ask()
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("value", [Path("clips"), object()])
def test_an_option_that_is_no_value_is_named_before_anything_runs(tmp_path: Path, value: object) -> None:
    with pytest.raises(ConfigError, match=r"overrides\['train_diffusion\.steps'\] is "):
        wfm.run("world_model", overrides={"train_diffusion.steps": value}, store=tmp_path / "store")
    with pytest.raises(ConfigError, match=r"overrides\[0\] is 5: give"):
        wfm.run("world_model", overrides=[5], store=tmp_path / "store")  # type: ignore[list-item]
