"""Plans: keys before running, overrides by node and stage, what follows what."""

from pathlib import Path
from typing import Any

import pytest

from pipelines.dags.promotion import PROMOTION
from pipelines.plan import recipe, resolve
from wfm.artifacts import Store
from wfm.errors import ConfigError


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def test_a_plan_knows_every_key_before_running(store: Store) -> None:
    plan = resolve("world_model", profile="smoke", store=store)
    assert all(node.key and len(node.key) == 64 for node in plan.nodes)
    assert plan.missing == plan.nodes
    again = resolve("world_model", profile="smoke", store=store)
    assert [node.key for node in again.nodes] == [node.key for node in plan.nodes]


def test_one_training_option_moves_training_and_what_follows_only(store: Store) -> None:
    before = resolve("world_model", profile="smoke", store=store)
    field = "train_diffusion.training.learning_rate=0.000123"
    after = resolve("world_model", profile="smoke", store=store, overrides=[field])
    moved = {old.name for old, new in zip(before.nodes, after.nodes, strict=True) if old.key != new.key}
    assert moved == {"train_diffusion", "generate_diffusion", "evaluate_diffusion", "publish_diffusion", "write_report"}
    assert moved == {"train_diffusion", *(node.name for node in before.followers("train_diffusion"))}


def test_a_stage_name_reaches_every_node_of_the_stage(store: Store) -> None:
    plan = resolve("world_model", profile="smoke", store=store, overrides=["train_world_model.training.seed=5"])
    seeds = {plan.node(f"train_{family}").config["training"]["seed"] for family in ("diffusion", "autoregressive")}
    assert seeds == {5}


def test_redo_gives_new_keys_from_there_on(store: Store) -> None:
    before = resolve("curate", profile="smoke", store=store)
    after = resolve("curate", profile="smoke", store=store, redo={"score_clips": "nonce"})
    moved = {old.name for old, new in zip(before.nodes, after.nodes, strict=True) if old.key != new.key}
    assert moved == {"score_clips", "embed_clips", "dedup_clips", "select_clips", "write_shards"}


def test_a_new_file_moves_ingest_and_an_unchanged_folder_does_not(store: Store, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "a.mp4").write_bytes(b"one")
    first = resolve("curate", profile="smoke", store=store, videos=str(videos))
    same = resolve("curate", profile="smoke", store=store, videos=str(videos))
    (videos / "b.mp4").write_bytes(b"two")
    more = resolve("curate", profile="smoke", store=store, videos=str(videos))
    assert first.node("ingest_videos").key == same.node("ingest_videos").key
    assert first.node("ingest_videos").key != more.node("ingest_videos").key
    assert "simulate_videos" not in {node.name for node in first.nodes}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            {"pipeline": "word_model"},
            "'word_model'. Did you mean 'world_model'\\? Choices: world_model, curate, decoder",
        ),
        ({"profile": "dmeo"}, "unknown profile 'dmeo'. Did you mean 'demo'\\? Choices: demo"),
        ({"overrides": ["train_diffusion.nothing=1"]}, "train_diffusion: unknown field 'nothing'"),
        ({"overrides": ["nowhere.x=1"]}, "names no stage"),
        ({"overrides": ["seed=1"]}, "names no stage"),
    ],
)
def test_wrong_requests_name_the_choices(store: Store, arguments: dict[str, object], says: str) -> None:
    request: dict[str, object] = {"pipeline": "world_model", "profile": "smoke", "store": store, **arguments}
    with pytest.raises(ConfigError, match=says):
        resolve(request.pop("pipeline"), **request)  # type: ignore[arg-type]


@pytest.mark.parametrize("profile", ["demo", "smoke"])
def test_recipes_name_nodes_that_exist(store: Store, profile: str) -> None:
    plans = [resolve(pipeline, profile=profile, store=store) for pipeline in ("world_model", "decoder")]
    assert set(recipe(profile)) <= {node.name for plan in plans for node in plan.nodes} | {PROMOTION}


def test_fields_that_need_each_other_are_set_in_any_order(store: Store) -> None:
    asked = ["source=endpoint", "endpoint.url=http://127.0.0.1:1/v1", "endpoint.model=m", "prompt=av"]
    texts = [f"caption_clips.{text}" for text in asked]
    plans = [resolve("curate", profile="smoke", store=store, overrides=order) for order in (texts, texts[::-1])]
    configs = [plan.node("caption_clips").config for plan in plans]
    assert configs[0] == configs[1]
    assert configs[0]["prompt"].startswith("These {seconds} seconds were filmed from a vehicle")
    with pytest.raises(ConfigError, match=r"^caption_clips: CaptionConfig: source=endpoint with .*: give both$"):
        resolve("curate", profile="smoke", store=store, overrides=texts[:1])


def test_a_clip_is_decoded_once_for_scores_and_embedding_unless_that_is_said_otherwise(store: Store) -> None:
    def embed(*overrides: str) -> Any:
        return resolve("curate", profile="smoke", store=store, overrides=overrides).node("score_clips").config["embed"]

    assert embed()["signatures"] is False
    assert embed("embed_clips.signatures=true")["signatures"] is True
    assert embed("embed_clips.model=clip", "embed_clips.weights=w") is None
    assert embed("embed_clips.signatures=true", "score_clips.embed.signatures=false")["signatures"] is False
    assert embed("score_clips.embed=null") is None
    assert embed("embed_clips.model=clip", 'score_clips.embed={"model": "clip"}')["model"] == "clip"
