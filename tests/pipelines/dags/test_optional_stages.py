"""Clusters and categories are in a pipeline when something is set for them, and what they make goes where it is used."""

from pathlib import Path

import pytest

from pipelines.plan import resolve
from wfm.artifacts import Store
from wfm.errors import ConfigError

KINDS = 'classify_clips.categories={"snow": ["It snows."], "sand": ["A desert."]}'


def test_a_setting_puts_a_stage_into_the_pipeline(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    plain = resolve("world_model", profile="smoke", store=store)
    assert not {"cluster_clips", "classify_clips"} & {node.name for node in plain.nodes}
    more = resolve("world_model", profile="smoke", store=store, overrides=["cluster_clips.clusters=3", KINDS])
    assert more.node("write_shards").inputs["clusters"] == "cluster_clips"
    assert more.node("write_shards").inputs["categories"] == "classify_clips"
    assert more.node("train_diffusion").inputs["mixture"] == "classify_clips"
    assert more.node("classify_clips").config["categories"] == {"snow": ["It snows."], "sand": ["A desert."]}
    for name in ("select_clips", "caption_clips", "embed_clips"):
        assert more.node(name).key == plain.node(name).key
    other = resolve("world_model", profile="smoke", store=store, overrides=[KINDS, "classify_clips.evenness=0"])
    assert "clusters" not in other.node("write_shards").inputs
    assert other.node("classify_clips").key != more.node("classify_clips").key
    with pytest.raises(ConfigError, match="2 or more"):
        resolve("curate", profile="smoke", store=store, overrides=['classify_clips.categories={"snow": ["x"]}'])
    with pytest.raises(ConfigError, match="unknown field 'cluster'"):
        resolve("curate", profile="smoke", store=store, overrides=["cluster_clips.cluster=3"])


def test_a_mixture_of_ones_own_is_in_the_key_by_its_content(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "b").write_bytes(b"one")
    (tmp_path / "c").write_bytes(b"two")
    keys = []
    for name in "abc":
        override = f"train_diffusion.training.mixture={tmp_path / name}"
        keys.append(
            resolve("world_model", profile="smoke", store=store, overrides=[override]).node("train_diffusion").key
        )
    assert keys[0] == keys[1] != keys[2]
    with pytest.raises(ConfigError, match=r"training\.mixture = .*nowhere.* `wfm taxonomy"):
        resolve("world_model", profile="smoke", store=store, overrides=["train_diffusion.training.mixture=nowhere"])


def test_small_latents_beside_the_others_go_to_the_models_that_take_them(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    plain, more = (resolve("world_model", profile=profile, store=store) for profile in ("smoke", "progressive"))
    assert more.node("train_diffusion").inputs == {
        "latents_full": "encode_latents_continuous",
        "latents_small": "encode_latents_small",
        "tokenizer": "train_tokenizer_continuous",
        "signals": "encode_signals",
    }
    assert more.node("encode_latents_small").config["size"] == [32, 32]
    assert more.node("generate_diffusion").inputs["latents"] == "encode_latents_continuous", "it is judged at full size"
    for name in ("train_tokenizer_continuous", "encode_latents_continuous", "encode_signals"):
        assert more.node(name).key == plain.node(name).key, "what is there already is not made again"
    both = resolve(
        "world_model",
        profile="smoke",
        store=store,
        overrides=["encode_latents_small.size=[32,32]", "encode_latents_small.extrapolate_from=9"],
    )
    assert both.node("train_autoregressive").key == plain.node("train_autoregressive").key
    assert both.node("train_diffusion").key != plain.node("train_diffusion").key
    lanes = 'train_diffusion.training.data.lanes={"a": {"sources": {"latents_big": 1}}}'
    with pytest.raises(ConfigError, match=r"latents_big.*which is no input.*latents_full, latents_small"):
        resolve("world_model", profile="progressive", store=store, overrides=[lanes])
