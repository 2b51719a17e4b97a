"""The scenes of the kill matrix: tiny stages with their inputs, made once a session."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.components.conftest import runner_of
from tests.components.one_clip_parts import dataset
from tests.faults.stage_runs import Scene
from wfm.artifacts import Artifact, Store

SHAPE = {"size": [16, 16], "num_frames": 9}
QUICK = {"batch_size": 2, "warmup_steps": 1, "threads": 1}
STEPS, INTERVAL = 12, 4
STALL_SECONDS = 20.0
"""Also for a rank to come."""
_TOKENIZER = {
    "temporal_compression": 4, "spatial_compression": 4, "latent_channels": 3, "channels": [8, 8], "mid_blocks": 0,
    "mid_attention": False, "linear_code": True,
}  # fmt: skip
_NETWORK = {"num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 1, "adaln_lora_dim": 4}


def training(steps: int, interval: int) -> dict[str, Any]:
    """A tiny denoiser's config."""
    return {
        "family": "diffusion", "diffusion": {"network": _NETWORK}, "edm": {"condition_latents": [2]},
        "training": {**QUICK, "steps": steps, "checkpoint_every": interval, "validate_every": interval, "log_every": 1,
                     "checkpoint_store_seconds": 0, "stall_seconds": STALL_SECONDS},
    }  # fmt: skip


def splitting(folder: Path, film: Callable[..., Path]) -> Scene:
    """Two films, each a part of its own."""
    store = Store.open(folder / "store")
    (folder / "films").mkdir()
    for number in range(2):
        film(folder / "films" / f"{number}.mp4", number, frames=120, size=(64, 64))
    videos = runner_of(store, folder / "scratch")("ingest_videos", {"videos": str(folder / "films")})
    assert len(videos.parts) == 2
    return Scene("split_clips", "clips", {}, {"videos": videos.key}, folder / "store")


def encoding(folder: Path, *, ranges: int = 0) -> Scene:
    """Four clips, each a part of its own."""
    _, inputs = _encoded(folder, clips=4)
    return Scene("encode_latents", "latents", {**SHAPE, "threads": 1}, _keys(inputs), folder / "store", ranges)


def learning(folder: Path, *, steps: int = STEPS, interval: int = INTERVAL, ranks: int = 1) -> Scene:
    """A denoiser that learns for a few steps."""
    store, inputs = _encoded(folder, clips=8)
    latents = runner_of(store, folder / "scratch")("encode_latents", SHAPE, **inputs)
    given = {"latents": latents.key, "tokenizer": inputs["tokenizer"].key}
    return Scene("train_world_model", "world_model", training(steps, interval), given, folder / "store", ranks=ranks)


def _encoded(folder: Path, clips: int) -> tuple[Store, dict[str, Artifact]]:
    store = Store.open(folder / "store")
    clips_of = dataset(store, range(clips))
    config = {"model": _TOKENIZER, "training": {**QUICK, "steps": 1, "validate_every": 0}, "crop_frames": 9, **SHAPE}
    tokenizer = runner_of(store, folder / "scratch")("train_tokenizer", config, dataset=clips_of)
    return store, {"dataset": clips_of, "tokenizer": tokenizer}


def _keys(inputs: dict[str, Artifact]) -> dict[str, str]:
    return {role: artifact.key for role, artifact in inputs.items()}
