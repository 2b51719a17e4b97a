"""From a small data set through both families to published models: the stages' files fit each other."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wfm.actions import ActionSpec
from wfm.artifacts import Artifact, Store
from wfm.data.shards import ShardWriter
from wfm.errors import InputError
from wfm.evaluation.generated import read_generated
from wfm.generation.command import generate_from_files
from wfm.generation.held_out import SHUFFLED
from wfm.generation.write_video import write_mp4
from wfm.models.family import FAMILIES
from wfm.models.folder import open_model

Stage = Callable[..., Artifact]
SPEC = ActionSpec(
    names=("camera_orbit_rate",), units=("deg/s",), frame="camera", rate_hz=24.0, mean=(0.0,), scale=(30.0,)
)
FAST = {"steps": 2, "batch_size": 2, "validate_every": 0, "warmup_steps": 1}
GENERATE: dict[str, Any] = {
    "past_frames": 5,
    "stride_frames": 12,
    "examples": 1,
}
SAMPLING: dict[str, dict[str, Any]] = {"diffusion": {"steps": 2, "batch_size": 4}, "autoregressive": {"batch_size": 4}}


def generate(family: str) -> dict[str, Any]:
    return {**GENERATE, "family": family, "sampling": SAMPLING[family]}


def variants(family: str) -> tuple[str, ...]:
    """What a family's windows are predicted by, the twin with other actions at the end."""
    return (*FAMILIES.load(family).variants, SHUFFLED)


def clip(folder: Path, number: int) -> dict[str, bytes]:
    """26 frames of 16x16 that slide by one pixel a frame or not at all, as the action says."""
    rng = np.random.default_rng(number)
    rate = 30.0 * (number % 3 - 1)
    wide = np.kron(rng.integers(0, 256, (4, 16, 3), dtype=np.uint8), np.ones((4, 4, 1), np.uint8))
    frames = np.stack([np.roll(wide, int(t * rate / 30), axis=1)[:, :16] for t in range(26)])
    write_mp4(folder / f"{number}.mp4", frames, 24.0)
    table = pa.table({"pts_seconds": np.arange(26) / 24, "action": [[rate]] * 26})
    note = {b"wfm": json.dumps({"schema_version": 1, "action_spec": SPEC.resolved()}).encode()}
    actions = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(note), actions)
    row = {
        "session_id": f"session{number}",
        "video_id": f"video{number}",
        "source": f"/v/{number}.mp4",
        "start_seconds": 1.0,
        "fps": 24.0,
    }
    return {
        "mp4": (folder / f"{number}.mp4").read_bytes(),
        "json": json.dumps(row).encode(),
        "actions.parquet": actions.getvalue(),
    }


@pytest.fixture
def dataset(store: Store, tmp_path: Path) -> Artifact:
    part = store.part_attempt("0" * 64)
    for split, numbers in (("train", range(6)), ("val", range(6, 8)), ("test", range(8, 12))):
        (part.path / "shards" / split).mkdir(parents=True)
        with ShardWriter(part.path / "shards" / split, "ab") as writer:
            for number in numbers:
                writer.write(f"clip{number}", clip(tmp_path, number))
    entry = part.commit(stage="write_shards", kind="part").entry("ab")
    return store.attempt("1" * 64).commit(stage="write_shards", kind="dataset", parts=[entry])


def trained(run_stage: Stage, dataset: Artifact, family: str) -> dict[str, Artifact]:
    levels = [4, 3, 3] if family == "autoregressive" else []
    shape = {"size": [16, 16], "num_frames": 13}
    network = {
        "model": {
            "temporal_compression": 4,
            "spatial_compression": 4,
            "latent_channels": 3,
            "levels": levels,
            "channels": [8, 8],
            "decoder_blocks": 1,
            "mid_blocks": 0,
            "mid_attention": False,
            "linear_code": True,
        },
        "training": FAST,
        "crop_frames": 9,
        **shape,
    }
    tokenizer = run_stage("train_tokenizer", network, dataset=dataset)
    latents = run_stage("encode_latents", shape, dataset=dataset, tokenizer=tokenizer)
    small = {"dim": 24, "layers": 1, "heads": 2, "kv_heads": 1, "head_dim": 12, "ffn_dim": 32, "action_hidden": 8}
    network = {"num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 1, "adaln_lora_dim": 4}
    own = {
        "autoregressive": {"autoregressive": {**small, "order": "frame", "vocabulary": "digits", "patch": 2}},
        "diffusion": {"diffusion": {"network": network}, "edm": {"condition_latents": [2]}},
    }
    world = {"family": family, "training": FAST, **own[family]}
    signals = run_stage("encode_signals", {}, dataset=dataset)
    model = run_stage("train_world_model", world, latents=latents, tokenizer=tokenizer, signals=signals)
    return {"dataset": dataset, "signals": signals, "latents": latents, "tokenizer": tokenizer, "model": model}


def video(artifact: Artifact, name: str, split: str = "test") -> np.ndarray:
    return read_generated(artifact, split).videos[name]


@pytest.mark.parametrize("family", ["diffusion", "autoregressive"])
def test_from_data_set_to_published_model(
    run_stage: Stage, store: Store, dataset: Artifact, tmp_path: Path, family: str
) -> None:
    inputs = trained(run_stage, dataset, family)
    known = open_model(inputs["model"])[1].extra["action_range"]
    assert [len(known[end]) for end in ("low", "high")] == [SPEC.width, SPEC.width]
    made = run_stage("generate_videos", {**generate(family), "splits": ["test", "val"]}, **inputs)
    assert made.manifest.counts["test_windows"] == 8
    assert made.manifest.counts["val_windows"] == 4
    for name in ("truth", "tokenizer", *variants(family)):
        frames = video(made, name)
        assert frames.shape == (8, 13, 16, 16, 3)
        assert np.array_equal(frames[:, :5], video(made, "truth")[:, :5])
    again = run_stage("generate_videos", {**generate(family), "max_windows": 3}, **inputs)
    assert again.manifest.skipped == {"test_without_actions": 0, "test_over_max_windows": 5}
    for name in set(variants(family)) - {SHUFFLED}:  # fewer windows: the same bits for those that are left
        few = video(again, name)
        assert np.array_equal(few, video(made, name)[:3])

    report = run_stage("evaluate_model", {"resamples": 20, "examples": 1}, generated=made)
    parts: dict[str, Any] = {"tokenizer": inputs["tokenizer"], "model": inputs["model"], "evaluation": report}
    # the runner of these tests calls kinds by stage names; a run of the pipeline says "model"
    bundle = run_stage("publish_model", {"name": "tiny"}, **parts)
    bundle.fetch_tree("", tmp_path / "bundle")
    write_mp4(tmp_path / "past.mp4", video(made, "truth")[0, :5], 24.0)
    written = generate_from_files(store, str(tmp_path / "bundle"), tmp_path / "past.mp4", out=tmp_path / "f.mp4")
    assert json.loads(written.sidecar.read_text())["lineage"]["inputs"]["model"] == inputs["model"].key


def test_seed_and_sampling_change_the_samples(run_stage: Stage, dataset: Artifact) -> None:
    inputs = trained(run_stage, dataset, "diffusion")
    plain = run_stage("generate_videos", generate("diffusion"), **inputs)
    for change in ({"seed": 1}, {"sampling": {**SAMPLING["diffusion"], "sampler": "euler"}}):
        other = run_stage("generate_videos", {**generate("diffusion"), **change}, **inputs)
        assert other.key != plain.key
        assert not np.array_equal(video(plain, "sampled"), video(other, "sampled"))


def test_the_training_split_is_refused(run_stage: Stage, dataset: Artifact) -> None:
    with pytest.raises(InputError, match="learned from"):
        run_stage(
            "generate_videos",
            {**generate("diffusion"), "splits": ["train"]},
            **trained(run_stage, dataset, "diffusion"),
        )
