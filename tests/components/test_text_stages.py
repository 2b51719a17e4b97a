"""Captions through the stages: encoded beside the latents, trained on, generated from, published and asked by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wfm.artifacts import Artifact, Store
from wfm.data.shards import ShardWriter
from wfm.evaluation.generated import read_generated
from wfm.generation.command import generate_from_files
from wfm.generation.write_video import write_mp4
from wfm.models.text import TextConfig
from wfm.models.text.identity import encoder_identity

Stage = Callable[..., Artifact]
SHAPE = {"size": [16, 16], "num_frames": 13}
WORDS = ("Stripes run to the left.", "Stripes stand still.", "Stripes run to the right.")


def clip(folder: Path, number: int) -> dict[str, bytes]:
    """26 frames of 16x16 that slide as the caption says; no actions."""
    rng = np.random.default_rng(number)
    wide = np.kron(rng.integers(0, 256, (4, 16, 3), dtype=np.uint8), np.ones((4, 4, 1), np.uint8))
    frames = np.stack([np.roll(wide, t * (number % 3 - 1), axis=1)[:, :16] for t in range(26)])
    write_mp4(folder / f"{number}.mp4", frames, 24.0)
    row = {"session_id": f"s{number}", "video_id": f"v{number}", "source": f"/v/{number}.mp4", "start_seconds": 0.0}
    facts = {**row, "fps": 24.0, "caption": WORDS[number % 3]}
    return {"mp4": (folder / f"{number}.mp4").read_bytes(), "json": json.dumps(facts).encode()}


@pytest.fixture
def dataset(store: Store, tmp_path: Path) -> Artifact:
    part = store.part_attempt("0" * 64)
    for split, numbers in (("train", range(6)), ("val", range(6, 8)), ("test", range(8, 11))):
        (part.path / "shards" / split).mkdir(parents=True)
        with ShardWriter(part.path / "shards" / split, "ab") as writer:
            for number in numbers:
                writer.write(f"clip{number}", clip(tmp_path, number))
    entry = part.commit(stage="write_shards", kind="part").entry("ab")
    return store.attempt("1" * 64).commit(stage="write_shards", kind="dataset", parts=[entry])


def test_captions_from_data_set_to_published_model(
    run_stage: Stage, store: Store, dataset: Artifact, tmp_path: Path
) -> None:
    fast = {"steps": 2, "batch_size": 4, "validate_every": 0, "warmup_steps": 1}
    network = {
        "temporal_compression": 4, "spatial_compression": 4, "latent_channels": 3, "channels": [8, 8],
        "mid_blocks": 0, "mid_attention": False, "linear_code": True,
    }  # fmt: skip
    tokenizer = run_stage(
        "train_tokenizer", {"model": network, "training": fast, "crop_frames": 9, **SHAPE}, dataset=dataset
    )
    text = {"encoder": "minilm", "max_length": 16, "cache": str(tmp_path / "cache")}
    latents = run_stage("encode_latents", SHAPE, dataset=dataset, tokenizer=tokenizer)
    captions = run_stage("encode_text", {"text": text}, dataset=dataset)
    assert captions.manifest.extra["text"]["identity"] == encoder_identity(TextConfig(encoder="minilm"))

    world = {
        "family": "diffusion",
        "training": {**fast, "steps": 40},
        "diffusion": {
            "network": {"num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 1, "adaln_lora_dim": 4},
        },
        "edm": {"condition_latents": [2]},
    }
    model = run_stage("train_world_model", world, latents=latents, tokenizer=tokenizer, text=captions)
    with model.open("model/config.json") as file:
        card = json.load(file)
    assert card["config"]["network"]["text_embed_dim"] == 384
    assert card["extra"]["text"]["encoder"] == "minilm"

    signals = run_stage("encode_signals", {}, dataset=dataset)
    inputs = {"dataset": dataset, "signals": signals, "latents": latents, "tokenizer": tokenizer, "model": model}
    sampling = {"steps": 2, "batch_size": 4, "guidance": {"scale": 2.0}}
    settings = {"family": "diffusion", "past_frames": 5, "stride_frames": 12, "examples": 1, "sampling": sampling}
    made = run_stage("generate_videos", settings, **inputs)
    assert set(made.table("test/samples", columns=["caption"]).column("caption").to_pylist()) == set(WORDS)
    report = run_stage("evaluate_model", {"resamples": 20, "examples": 1}, generated=made)

    parts: dict[str, Any] = {"tokenizer": tokenizer, "model": model, "evaluation": report}
    run_stage("publish_model", {"name": "told"}, **parts).fetch_tree("", tmp_path / "bundle")
    assert "--text" in (tmp_path / "bundle/README.md").read_text()
    write_mp4(tmp_path / "past.mp4", read_generated(made, "test").truth[0, :5], 24.0)
    videos = set()
    for number, caption in enumerate(WORDS):
        out = tmp_path / f"{number}.mp4"
        written = generate_from_files(store, str(tmp_path / "bundle"), tmp_path / "past.mp4", out=out, text=caption)
        assert json.loads(written.sidecar.read_text())["text"]["caption"] == caption
        videos.add(written.video.read_bytes())
    assert len(videos) == 3, "three captions, three futures"
