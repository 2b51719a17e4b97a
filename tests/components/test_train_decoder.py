"""The diffusion decoder as a stage: both tokenizers, their latents and tokens, the decoder, a text-following autoregressive
model shown by it."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from wfm.artifacts import Artifact, Store
from wfm.data.loader.arrays import ArrayDataset
from wfm.data.samples import Samples
from wfm.data.shards import ShardWriter
from wfm.errors import Cancelled, ConfigError, DataError, InputError
from wfm.families.diffusion_decoder.card import DecoderTrainingConfig
from wfm.families.diffusion_decoder.draw import TokenDecoder
from wfm.families.diffusion_decoder.fit import joined
from wfm.generation.from_artifacts import fetch_decoder, open_decoder
from wfm.generation.write_video import write_mp4
from wfm.training.encoded import read_encoded
from wfm.training.fit import fit, open_task

Stage = Callable[..., Artifact]
SHAPE: dict[str, Any] = {"size": [16, 16], "num_frames": 13}
FAST = {"steps": 2, "batch_size": 4, "validate_every": 0, "warmup_steps": 1}
TOKENIZER = {
    "temporal_compression": 4, "spatial_compression": 4, "latent_channels": 3, "channels": [8, 8], "encoder_blocks": 1,
    "decoder_blocks": 1, "mid_blocks": 0, "mid_attention": False, "linear_code": True,
}  # fmt: skip
DECODER = {
    "model": {
        "token_channels": 4,
        "denoiser": {
            "network": {
                "num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 1, "text_embed_dim": 0, "adaln_lora_dim": 4,
                "concat_padding_mask": False, "max_size": [16, 16, 16], "zero_output": True,
            }
        },
        "embedding": "codes", "mark_first": True, "linear_prior": True,
    },
    "training": {**FAST, "steps": 6, "checkpoint_every": 2},
}  # fmt: skip


@pytest.fixture
def made(run_stage: Stage, store: Store, tmp_path: Path) -> dict[str, Artifact]:
    """Latents and tokens of sliding blocks, and the tokenizers."""
    part = store.part_attempt("0" * 64)
    for split, numbers in (("train", range(8)), ("val", range(8, 10))):
        (part.path / "shards" / split).mkdir(parents=True)
        with ShardWriter(part.path / "shards" / split, "ab") as writer:
            for number in numbers:
                rng = np.random.default_rng(number)
                wide = np.kron(rng.integers(0, 256, (4, 16, 3), dtype=np.uint8), np.ones((4, 4, 1), np.uint8))
                frames = np.stack([np.roll(wide, t * (number % 3 - 1), axis=1)[:, :16] for t in range(26)])
                write_mp4(tmp_path / f"{number}.mp4", frames, 24.0)
                row = {"session_id": f"s{number}", "video_id": f"v{number}", "source": "x", "start_seconds": 0.0,
                       "fps": 24.0}  # fmt: skip
                members = {"mp4": (tmp_path / f"{number}.mp4").read_bytes(), "json": json.dumps(row).encode()}
                writer.write(f"clip{number}", members)
    entry = part.commit(stage="write_shards", kind="part").entry("ab")
    dataset = store.attempt("1" * 64).commit(stage="write_shards", kind="dataset", parts=[entry])
    found = {}
    for name, levels in (("tokenizer", []), ("tokenizer_discrete", [5, 5, 5])):
        config = {"model": {**TOKENIZER, "levels": levels}, "training": FAST, "crop_frames": 9, **SHAPE}
        found[name] = run_stage("train_tokenizer", config, dataset=dataset)
    found["latents"] = run_stage("encode_latents", SHAPE, dataset=dataset, tokenizer=found["tokenizer"])
    shutil.rmtree(tmp_path / "scratch")  # the runner's stages share it, which those of a run do not
    found["tokens"] = run_stage("encode_latents", SHAPE, dataset=dataset, tokenizer=found["tokenizer_discrete"])
    return found


def test_from_tokens_to_video(run_stage: Stage, made: dict[str, Artifact], store: Store, tmp_path: Path) -> None:
    trained = run_stage("train_decoder", DECODER, **made)
    assert trained.manifest.extra["validation"]["mean_psnr"] > 5
    assert trained.manifest.counts["inputs"] > 0
    with pytest.raises(InputError, match="kind 'tokenizer', wanted a decoder of tokens"):
        fetch_decoder(store, made["tokenizer"].key, tmp_path / "fetched")
    trained.fetch_tree("", tmp_path / "fetched")
    folder, key = fetch_decoder(store, str(tmp_path / "fetched"), tmp_path / "not needed")
    assert not key
    decoder = open_decoder(folder)
    assert isinstance(decoder, TokenDecoder)
    held = read_encoded(made["tokens"]).val["latents"]
    tokens = torch.stack([held.read(row)["tokens"] for row in range(2)])
    video = decoder.decode(tokens, (16, 16), seeds=[1, 2])
    assert video.shape == (2, 3, 13, 16, 16)
    windows = decoder._replace(window=2, overlap=1, mode="sample").decode(tokens, (16, 16), seeds=[1, 2])
    assert windows.isfinite().all()
    made["tokenizer"].fetch_tree("model/", tmp_path / "other")
    with pytest.raises(DataError, match="not a decoder of tokens"):
        open_decoder(tmp_path / "other")


def test_killed_and_resumed_is_the_same(made: dict[str, Artifact], tmp_path: Path) -> None:
    config = DecoderTrainingConfig.parse(DECODER)

    def train(name: str, stop_after: int = 0) -> dict[str, Any]:
        asked, scratch = iter(range(10**6)), tmp_path / f"{name}-s"
        return fit(
            open_task(made, config), config, out=tmp_path / name, scratch=scratch,
            stopping=lambda: bool(stop_after) and scratch.exists() and next(asked) >= stop_after,  # not in a pass
        )  # fmt: skip

    train("whole")
    with pytest.raises(Cancelled):
        train("cut", stop_after=3)
    assert train("cut")["resumed_from"] > 0
    one, other = (load_file(tmp_path / name / "model/model.safetensors") for name in ("whole", "cut"))
    assert set(one) == set(other)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_windows_are_joined_by_name_and_what_cannot_be_is_refused(made: dict[str, Artifact]) -> None:
    latents, tokens = (read_encoded(made[name]).train["latents"] for name in ("latents", "tokens"))
    order = list(reversed(range(len(tokens.ids))))[: len(tokens.ids) - 1]
    shuffled = in_memory(tokens, order)
    both = joined(latents, shuffled)
    assert len(both) == len(latents.ids) - 1
    row = list(tokens.ids).index(both.ids[0])
    pair = both.read(0)
    assert torch.equal(pair["tokens"], tokens.read(row)["tokens"])
    assert torch.equal(pair["latents"], latents.read(list(latents.ids).index(both.ids[0]))["latents"])
    assert both.identity != joined(latents, tokens).identity
    with pytest.raises(ConfigError, match="give what the continuous tokenizer encoded as latents"):
        joined(tokens, latents)
    others = replace(shuffled, sample_ids=tuple(f"other{i}" for i in order))
    with pytest.raises(DataError, match="no window in common"):
        joined(latents, others)
    longer = replace(shuffled, arrays={"tokens": shuffled.arrays["tokens"].repeat(1, 2, 1, 1)})
    with pytest.raises(ConfigError, match="a window has 4 latent frames and 8 of tokens"):
        joined(latents, longer)


def in_memory(samples: Samples, rows: list[int]) -> ArrayDataset:
    tokens = torch.stack([samples.read(row)["tokens"] for row in rows])
    return ArrayDataset(tuple(samples.ids[row] for row in rows), {"tokens": tokens})
