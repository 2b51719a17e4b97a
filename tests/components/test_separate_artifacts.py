"""Latents, text and signals are artifacts of their own, joined by sample: one changes and the others stay."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.components.one_clip_parts import dataset
from wfm.artifacts import Artifact, Store
from wfm.conditions.action import Action
from wfm.errors import ConfigError, DataError
from wfm.training.encoded import Source, read_encoded

Stage = Callable[..., Artifact]
SHAPE = {"size": [16, 16], "num_frames": 9}


@pytest.fixture
def tokenizer(run_stage: Stage, store: Store) -> Artifact:
    network = {
        "temporal_compression": 4, "spatial_compression": 4, "latent_channels": 3, "channels": [8, 8],
        "mid_blocks": 0, "mid_attention": False, "linear_code": True,
    }  # fmt: skip
    training = {"steps": 1, "batch_size": 2, "validate_every": 0, "warmup_steps": 1}
    settings = {"model": network, "training": training, "crop_frames": 9, **SHAPE}
    return run_stage("train_tokenizer", settings, dataset=dataset(store, range(4)))


def parts(artifact: Artifact) -> set[str]:
    return {entry.key for entry in artifact.parts}


def test_another_encoder_or_signal_leaves_the_latents_alone(
    run_stage: Stage, store: Store, tokenizer: Artifact, tmp_path: Path
) -> None:
    data = dataset(store, range(4))
    latents = run_stage("encode_latents", SHAPE, dataset=data, tokenizer=tokenizer)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store/parts").rglob("*") if path.is_file()}
    text = {"encoder": "minilm", "cache": str(tmp_path / "cache")}
    one = run_stage("encode_text", {"text": text}, dataset=data)
    two = run_stage("encode_text", {"text": {**text, "max_length": 4}}, dataset=data)
    signals = run_stage("encode_signals", {}, dataset=data)
    others = run_stage("encode_signals", {"mirror_signs": {"actions": [-1]}}, dataset=data)
    assert one.key != two.key
    assert parts(one).isdisjoint(parts(two))
    assert signals.key != others.key
    again = run_stage("encode_latents", SHAPE, dataset=data, tokenizer=tokenizer)
    assert (again.key, parts(again)) == (latents.key, parts(latents))
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())


def test_new_captions_and_new_actions_encode_no_video_again(
    run_stage: Stage, store: Store, tokenizer: Artifact, tmp_path: Path
) -> None:
    text = {"text": {"encoder": "minilm", "cache": str(tmp_path / "cache")}}
    stages: list[tuple[str, dict[str, Any], dict[str, Artifact]]] = [
        ("encode_latents", SHAPE, {"tokenizer": tokenizer}), ("encode_text", text, {}), ("encode_signals", {}, {}),
    ]  # fmt: skip

    def encoded(data: Artifact) -> list[set[str]]:
        return [parts(run_stage(name, config, dataset=data, **more)) for name, config, more in stages]

    base = encoded(dataset(store, range(4)))
    said = encoded(dataset(store, range(4), captions={1: "a red cube"}))
    acted = encoded(dataset(store, range(4), rates={2: 3.0}))
    assert [len(one - two) for one, two in zip(said, base, strict=True)] == [0, 1, 1]
    assert [len(one - two) for one, two in zip(acted, base, strict=True)] == [0, 0, 1]


def test_one_percent_more_videos_redo_one_percent_of_each(
    run_stage: Stage, store: Store, tokenizer: Artifact, tmp_path: Path
) -> None:
    text = {"text": {"encoder": "minilm", "cache": str(tmp_path / "cache")}}
    for name, config, more in (
        ("encode_latents", SHAPE, {"tokenizer": tokenizer}), ("encode_text", text, {}), ("encode_signals", {}, {}),
    ):  # fmt: skip
        all_parts = [
            parts(run_stage(name, config, dataset=dataset(store, range(count)), **more)) for count in (100, 101)
        ]
        assert len(all_parts[1] - all_parts[0]) == 1, name
        assert all_parts[0] < all_parts[1], name


def test_samples_get_their_own_signals_and_text(
    run_stage: Stage, store: Store, tokenizer: Artifact, tmp_path: Path
) -> None:
    data = dataset(store, range(8), captions={0: "to the left", 5: "a red cube"}, rates={0: -9.0, 5: 60.0})
    latents = run_stage("encode_latents", {**SHAPE, "mirror": True}, dataset=data, tokenizer=tokenizer)
    settings = {"mirror": True, "text": {"encoder": "minilm", "cache": str(tmp_path / "cache")}}
    text = run_stage("encode_text", settings, dataset=data)
    signals = run_stage("encode_signals", {"mirror_signs": {"actions": [-1]}}, dataset=data)
    held = read_encoded({"latents": Source(latents, signals, text)}, own={"action": Action()})
    found = held.train["latents"]
    samples = {name: found.read(row) for row, name in enumerate(found.ids)}
    assert held.action_range == {"low": [-60.0], "high": [60.0]}
    assert samples["clip5:0"]["actions"][0, 0] == 2.0  # 60 deg/s over the normaliser's 30
    assert samples["clip5:0:mirrored"]["actions"][0, 0] == -2.0
    assert samples["clip0:0:mirrored"]["actions"][0, 0] == pytest.approx(0.3)
    assert samples["clip0:0"]["has_actions"].shape == ()
    text_of = {name: sample["text"] for name, sample in samples.items()}
    assert torch.equal(text_of["clip5:0"], text_of["clip5:0:mirrored"])
    assert not torch.equal(text_of["clip0:0"], text_of["clip0:0:mirrored"]), "left and right"
    assert text_of["clip5:0"].shape != text_of["clip0:0"].shape or not torch.equal(
        text_of["clip5:0"], text_of["clip0:0"]
    )


def test_a_sample_without_text_or_signals_is_refused(
    run_stage: Stage, store: Store, tokenizer: Artifact, tmp_path: Path
) -> None:
    data, fewer = dataset(store, range(8)), dataset(store, range(7))
    latents = run_stage("encode_latents", {**SHAPE, "mirror": True}, dataset=data, tokenizer=tokenizer)
    text = {"text": {"encoder": "minilm", "cache": str(tmp_path / "cache")}}
    signals = run_stage("encode_signals", {"mirror_signs": {"actions": [-1]}}, dataset=data)
    with pytest.raises(DataError, match="1 of 2 clips have no signals, such as clip7"):
        read_encoded(
            {
                "latents": Source(
                    latents, run_stage("encode_signals", {"mirror_signs": {"actions": [-1]}}, dataset=fewer)
                )
            }
        )
    with pytest.raises(DataError, match="1 of 2 clips have no text, such as clip7"):
        read_encoded(
            {"latents": Source(latents, signals, run_stage("encode_text", {**text, "mirror": True}, dataset=fewer))}
        )
    with pytest.raises(DataError, match="6 of 12 clips have no text, such as clip0 mirrored"):
        read_encoded({"latents": Source(latents, signals, run_stage("encode_text", text, dataset=data))})
    with pytest.raises(ConfigError, match=r"mirror_signs\.actions has 0 entries"):
        read_encoded({"latents": Source(latents, run_stage("encode_signals", {}, dataset=data))})
    more = run_stage("encode_signals", {"mirror_signs": {"actions": [-1]}}, dataset=dataset(store, range(12)))
    assert len(read_encoded({"latents": Source(latents, more)}).train["latents"].ids) == 12, (
        "more than the latents hold does no harm"
    )
