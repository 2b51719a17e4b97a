"""Training a tokenizer as a stage: going on from another one, and files from outside in the key."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from components.entrypoint import node_key
from wfm.artifacts import Artifact, Store
from wfm.data.shards import ShardWriter
from wfm.errors import ConfigError
from wfm.generation.write_video import write_mp4
from wfm.models.folder import load_model, open_model

Stage = Callable[..., Artifact]
CONFIG: dict[str, Any] = {
    "model": {
        "temporal_compression": 4, "spatial_compression": 4, "latent_channels": 3, "channels": [8, 8], "mid_blocks": 0,
        "encoder_blocks": 1, "decoder_blocks": 1, "mid_attention": False, "linear_code": True,
    },
    "training": {"steps": 3, "batch_size": 2, "warmup_steps": 1, "ema_share": 0.0},
    "size": [16, 16], "num_frames": 9, "crop_frames": 5, "images_per_window": 2,
}  # fmt: skip


def dataset(store: Store, folder: Path, name: str, *, dark: bool) -> Artifact:
    """Six clips of drifting blocks, bright ones or dark ones: two domains."""
    part = store.part_attempt(name * 64)
    for split, numbers in (("train", range(4)), ("val", range(4, 6))):
        (part.path / "shards" / split).mkdir(parents=True)
        with ShardWriter(part.path / "shards" / split, "ab") as writer:
            for number in numbers:
                rng = np.random.default_rng(number)
                low, high = (0, 60) if dark else (120, 255)
                wide = np.kron(rng.integers(low, high, (4, 16, 3), dtype=np.uint8), np.ones((4, 4, 1), np.uint8))
                frames = np.stack([np.roll(wide, t, axis=1)[:, :16] for t in range(12)])
                write_mp4(folder / "clip.mp4", frames, 24.0)
                row = {"session_id": f"s{number}", "video_id": f"v{number}", "source": "x", "start_seconds": 0.0,
                       "fps": 24.0}  # fmt: skip
                members = {"mp4": (folder / "clip.mp4").read_bytes(), "json": json.dumps(row).encode()}
                writer.write(f"clip{name}{number}", members)
    entry = part.commit(stage="write_shards", kind="part").entry("ab")
    return store.attempt(name.replace("a", "c").replace("b", "d") * 64).commit(
        stage="write_shards", kind="dataset", parts=[entry]
    )


@pytest.fixture
def bright(store: Store, tmp_path: Path) -> Artifact:
    return dataset(store, tmp_path, "a", dark=False)


@pytest.fixture
def published(run_stage: Stage, bright: Artifact, tmp_path: Path) -> Path:
    """A tokenizer of the first domain, as a folder outside the store."""
    folder = tmp_path / "published"
    folder.mkdir()
    run_stage("train_tokenizer", CONFIG, dataset=bright).fetch_tree("model/", folder)
    return folder / "model"


def key_of(config: dict[str, Any], data: Artifact, store: Store) -> str:
    spec = {"component": "train_tokenizer", "stage": "train_tokenizer", "config": config}
    return node_key(spec, {"dataset": data.key}, store)


def test_it_goes_on_from_another_tokenizer(run_stage: Stage, store: Store, published: Path, tmp_path: Path) -> None:
    dark = dataset(store, tmp_path, "b", dark=True)
    frozen = {**CONFIG, "initial": str(published), "training": {**CONFIG["training"], "learning_rate": 1e-9}}
    first, _ = load_model(published)
    hardly, _ = open_model(run_stage("train_tokenizer", frozen, dataset=dark))
    assert torch.nn.utils.parameters_to_vector(hardly.parameters()).allclose(
        torch.nn.utils.parameters_to_vector(first.parameters()), atol=1e-6
    )  # it began with the other domain's weights: no new start from the data's principal components

    longer = {**CONFIG, "initial": str(published), "training": {**CONFIG["training"], "steps": 30}}
    tuned = run_stage("train_tokenizer", longer, dataset=dark).manifest.extra["validation"]["psnr"]
    before = run_stage("train_tokenizer", frozen, dataset=dark).manifest.extra["validation"]["psnr"]
    assert tuned > before + 0.5


def test_the_key_follows_the_bytes_and_not_the_path(
    store: Store, bright: Artifact, published: Path, tmp_path: Path
) -> None:
    config = {**CONFIG, "initial": str(published)}
    key = key_of(config, bright, store)
    assert key != key_of(CONFIG, bright, store)
    moved = shutil.copytree(published, tmp_path / "elsewhere")
    assert key_of({**CONFIG, "initial": str(moved)}, bright, store) == key
    weights = load_file(moved / "model.safetensors")
    name = sorted(weights)[0]
    save_file({**weights, name: weights[name] + 1}, moved / "model.safetensors")
    assert key_of({**CONFIG, "initial": str(moved)}, bright, store) != key


def test_another_model_is_refused(run_stage: Stage, bright: Artifact, published: Path) -> None:
    wider = {**CONFIG, "initial": str(published), "model": {**CONFIG["model"], "channels": [16, 16]}}
    with pytest.raises(ConfigError, match=r"channels: .*8, 8.*16, 16"):
        run_stage("train_tokenizer", wider, dataset=bright)


def test_no_model_there_is_refused_before_anything_runs(store: Store, bright: Artifact, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="initial"):
        key_of({**CONFIG, "initial": str(tmp_path / "nothing")}, bright, store)


def test_feature_weights_enter_the_key_and_are_needed(store: Store, bright: Artifact, tmp_path: Path) -> None:
    loss = {"perceptual": {"after": 0.1}, "feature_net": "vgg16"}
    with pytest.raises(ConfigError, match="feature_file"):
        key_of({**CONFIG, "loss": loss}, bright, store)
    file = tmp_path / "vgg16.safetensors"
    save_file({"features.0.weight": torch.zeros(64, 3, 3, 3)}, file)
    one = key_of({**CONFIG, "loss": {**loss, "feature_file": str(file)}}, bright, store)
    save_file({"features.0.weight": torch.ones(64, 3, 3, 3)}, file)
    assert key_of({**CONFIG, "loss": {**loss, "feature_file": str(file)}}, bright, store) != one
    unused = {"feature_net": "vgg16"}  # no term looks at features: no file needed
    assert key_of({**CONFIG, "loss": unused}, bright, store)


@pytest.mark.parametrize(
    ("model", "crop"),
    [
        ({"dimensions": 2, "temporal_compression": 1, "channels": [32, 32]}, 1),
        ({"patch_size": 2, "channels": [8, 8, 8, 8], "temporal_compression": 4, "decoder_blocks": 1}, 5),
    ],
)
def test_cosmos_tokenizers_train_on_images_and_videos(
    run_stage: Stage, bright: Artifact, model: dict[str, Any], crop: int
) -> None:
    """An image tokenizer on single frames, a video tokenizer on both; neither has principal components to start from."""
    common = {"spatial_compression": 4, "patch_size": 2, "latent_channels": 4, "z_channels": 4, "encoder_blocks": 1}
    loss = {"error": "l1", "perceptual": {"after": 0.1}, "flow": {"after": 0.01},
            "adversarial": {"weight": {"after": 0.1}, "channels": 8, "levels": 2}}  # fmt: skip
    config = {**CONFIG, "model": {**common, **model}, "crop_frames": crop, "loss": loss, "image_every": 2 * (crop > 1)}
    made = run_stage("train_tokenizer", {**config, "images_per_window": 1}, dataset=bright)
    assert made.manifest.extra["steps"] == 3
    assert np.isfinite(made.manifest.extra["validation"]["psnr"])


def test_all_terms_and_image_batches_run_as_a_stage(run_stage: Stage, bright: Artifact) -> None:
    loss = {"error": "l1", "perceptual": {"after": 0.1}, "gram": {"after": 0.062}, "flow": {"after": 0.01},
            "adversarial": {"weight": {"after": 0.1}, "adaptive": True, "channels": 8, "levels": 2}}  # fmt: skip
    config = {**CONFIG, "loss": loss, "image_every": 2, "training": {**CONFIG["training"], "steps": 4, "log_every": 1}}
    made = run_stage("train_tokenizer", config, dataset=bright)
    points = [json.loads(line) for line in made.fetch("metrics.jsonl").read_text().splitlines()]
    assert [("image_flow" in p, "flow" in p, "image_gram" in p, "gram" in p) for p in points[:4]] == [
        (False, False, True, False), (False, True, False, True), (False, False, True, False), (False, True, False, True),
    ]  # fmt: skip
    assert [("image_" * (i % 2 == 0) + "discriminator_accuracy") in p for i, p in enumerate(points[:4])] == [True] * 4
