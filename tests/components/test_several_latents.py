"""One training of several latents: clips and stills of their own shapes, blended and in phases, or refused before the first
step."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.components.one_clip_parts import dataset
from wfm.artifacts import Artifact, Store
from wfm.data.encoded_samples import EncodedSamples
from wfm.errors import ConfigError, DataError

Stage = Callable[..., Artifact]
CLIPS = {"take": "clips"}
NETWORK = {
    "temporal_compression": 4, "spatial_compression": 4, "latent_channels": 3, "channels": [8, 8],
    "mid_blocks": 0, "mid_attention": False, "linear_code": True,
}  # fmt: skip
ONE_STEP = {"steps": 1, "batch_size": 2, "validate_every": 0, "warmup_steps": 1}
DENOISER: dict[str, Any] = {
    "network": {
        "num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 1, "adaln_lora_dim": 4, "zero_output": True,
        "max_size": [16, 16, 16], "condition_mask": True,
    },
    "linear_prior": True,
}  # fmt: skip
LANES = {
    "stills": {"rate": 1, "sources": {"latents_stills": 1}},
    "videos": {"rate": 3, "sources": {"latents_clips": 1, "latents_stills": 1}},
}


@pytest.fixture
def made(run_stage: Stage, store: Store) -> dict[str, Artifact]:
    """Clips of two shapes and stills of two, as latents of one tokenizer, and the clips' signals."""
    clips = dataset(store, range(8), shapes={2: ((9, 16, 24), 24.0), 5: ((9, 16, 24), 24.0)})
    stills = dataset(
        store, range(20, 28), shapes={number: ((1, 16 + 8 * (number % 2), 16), 0.0) for number in range(20, 28)}
    )
    settings = {"model": NETWORK, "training": ONE_STEP, "crop_frames": 9, "size": [16, 16], "num_frames": 9}
    tokenizer = run_stage("train_tokenizer", settings, dataset=clips)
    given = {"clips": clips, "stills": stills}
    encoded = {
        name: run_stage("encode_latents", CLIPS, dataset=data, tokenizer=tokenizer) for name, data in given.items()
    }
    return {
        "tokenizer": tokenizer,
        "latents_clips": encoded["clips"],
        "latents_stills": encoded["stills"],
        "signals_clips": run_stage("encode_signals", {}, dataset=clips),
    }


def training(**data: object) -> dict[str, object]:
    return {
        "family": "diffusion",
        "diffusion": DENOISER,
        "edm": {"condition_latents": [1]},
        "training": {"steps": 8, "batch_size": 2, "warmup_steps": 1, "validate_every": 4, "log_every": 1, "data": data},
    }


def test_stills_and_clips_of_their_own_shapes_train_one_model(run_stage: Stage, made: dict[str, Artifact]) -> None:
    phases = [
        {"steps": 3, "max_frames": 1, "lanes": {"all": {"sources": {"latents_stills": 1, "latents_clips": 0}}}},
        {},
    ]
    trained = run_stage("train_world_model", training(lanes=LANES, phases=phases), **made)
    lanes = trained.manifest.extra["order"]["lanes"]
    assert lanes["1/videos"]["latents_clips"]["samples"] == 6
    assert {name.split("/")[0] for name in lanes} == {"0", "1"}
    assert trained.manifest.counts["inputs"] == 12
    assert trained.manifest.skipped == {}
    points = [json.loads(line) for line in trained.fetch("metrics.jsonl").read_text().splitlines()]
    assert [point["step"] for point in points if "loss" in point] == list(range(1, 9))
    assert "validation_mean_psnr" in points[-1], "of the clips; a still has nothing to predict"
    card = json.loads(trained.fetch("model/config.json").read_text())
    assert card["config"]["action_width"] == 1
    assert card["config"]["statistics_frames"] == 2


def test_a_source_of_rate_0_is_not_drawn_and_spoils_nothing(run_stage: Stage, made: dict[str, Artifact]) -> None:
    lanes = {"all": {"sources": {"latents_stills": 1, "latents_clips": 0}}}
    trained = run_stage("train_world_model", training(lanes=lanes), **made)
    points = [json.loads(line) for line in trained.fetch("metrics.jsonl").read_text().splitlines()]
    assert all(math.isfinite(value) for point in points for value in point.values())
    assert "validation_mean_psnr" in points[-1], "clips are watched"


def test_what_does_not_fit_together_is_refused_by_name(
    run_stage: Stage, store: Store, made: dict[str, Artifact]
) -> None:
    other = run_stage(
        "encode_latents",
        {**CLIPS, "statistics_frames": 3},
        dataset=dataset(store, range(4)),
        tokenizer=made["tokenizer"],
    )
    with pytest.raises(ConfigError, match="latents_other and latents_clips differ in statistics_frames: 3, 2"):
        run_stage("train_world_model", training(), **made, latents_other=other)
    turned = dataset(store, range(4), dict.fromkeys(range(4), "it turns"), splits=("val", "train", "train", "train"))
    watched = run_stage("encode_latents", CLIPS, dataset=turned, tokenizer=made["tokenizer"])
    shared = r"1 session stands in train of latents_clips \(1 samples\) and in val of latents_turned \(1 samples\): s0:"
    with pytest.raises(ConfigError, match=shared):
        run_stage("train_world_model", training(), **made, latents_turned=watched)
    allowed = training(shared_sessions="allow", lanes={"all": {"sources": {"latents_clips": 1}}})
    with pytest.raises(ConfigError, match="no lane draws from"):  # the next thing that does not fit
        run_stage("train_world_model", allowed, **made, latents_turned=watched)
    settings = {
        "model": NETWORK,
        "training": {**ONE_STEP, "seed": 1},
        "crop_frames": 9,
        "size": [16, 16],
        "num_frames": 9,
    }
    second = run_stage("train_tokenizer", settings, dataset=dataset(store, range(4)))
    encoded = run_stage("encode_latents", CLIPS, dataset=dataset(store, range(4)), tokenizer=second)
    with pytest.raises(ConfigError, match="latents_other and latents_clips differ in the tokenizer's weights"):
        run_stage("train_world_model", training(), **made, latents_other=encoded)
    with pytest.raises(ConfigError, match="no lane draws from latents_stills"):
        run_stage("train_world_model", training(lanes={"all": {"sources": {"latents_clips": 1}}}), **made)
    with pytest.raises(DataError, match=r"source 'latents_clips': none of 6 samples is within \{'max_height': 1\}"):
        run_stage("train_world_model", training(phases=[{"max_height": 1}]), **made)
    with pytest.raises(ConfigError, match="oversize is 'cut', and latents_clips have signals"):
        run_stage("train_world_model", training(oversize="cut", tokens=64), **made)
    small = {**DENOISER, "network": {**DENOISER["network"], "max_size": [16, 4, 4]}}
    with pytest.raises(ConfigError, match="exceed max_size"):
        run_stage("train_world_model", {**training(), "diffusion": small}, **made)


def test_bad_data_are_refused_by_name_before_a_sample_is_read(
    run_stage: Stage, store: Store, made: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a sample was read")

    monkeypatch.setattr(EncodedSamples, "read", never)
    monkeypatch.setattr(EncodedSamples, "read_many", never)
    with pytest.raises(AssertionError, match="a sample was read"):
        run_stage("train_world_model", training(), **made)
    with pytest.raises(DataError, match=r"source 'latents_clips': .* do not fit .*, a budget of 1 tokens"):
        run_stage("train_world_model", training(tokens=1), **made)
    clips = sorted({clip for name in ("clips", "stills") for clip in clips_of(made[f"latents_{name}"])})
    pq.write_table(pa.table({"clip_id": clips, "weight": [0.0] * len(clips)}), tmp_path / "mixture.parquet")
    settings: dict[str, Any] = training()
    settings["training"]["mixture"] = str(tmp_path / "mixture.parquet")
    with pytest.raises(DataError, match="mixture: the weights of all 12 samples are 0"):
        run_stage("train_world_model", settings, **made)
    part = made["latents_stills"].open_part(next(made["latents_stills"].iterate_parts()))
    shard = next(file for file in part.files("shards/train/") if file.path.endswith(".tar"))
    path = Path(part.url.removeprefix("file://"), shard.path)
    path.chmod(0o600)
    os.truncate(path, 1024)
    with pytest.raises(DataError, match=r"row \d+ of the records: .*the shard is cut short"):
        run_stage("train_world_model", training(), **made)


def clips_of(latents: Artifact) -> list[str]:
    return [clip for _, table in latents.iterate_table("samples") for clip in table.column("clip_id").to_pylist()]
