"""Training with text: a caption that decides the future is followed, and what a model must remember of its encoder."""

from collections import Counter

import numpy as np
import pytest
import torch

from wfm.actions import ActionSpec
from wfm.data.captions import CaptionTable
from wfm.data.loader import ArrayDataset, Loader
from wfm.data.order import one_shape
from wfm.data.windows import Window
from wfm.errors import ConfigError
from wfm.families.diffusion.card import DiffusionTrainingConfig
from wfm.models.diffusion import Conditions
from wfm.models.text import TextConfig, open_encoder
from wfm.models.text.identity import encoder_identity, encoder_note
from wfm.models.tokenizer import TokenizerConfig
from wfm.training.encoded import Encoded
from wfm.training.fit_world_model import build
from wfm.training.loop import train

CAPTIONS = ("the picture grows brighter", "the lights go out and it is dark")
CONFIG = DiffusionTrainingConfig.parse(
    {
        "diffusion": {
            "network": {
                "num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 2, "adaln_lora_dim": 8,
                "max_size": [8, 8, 8], "condition_mask": True, "zero_output": True, "open_gates": True,
            },
            "repeat_last": True,
        },
        "edm": {"pure_noise_probability": 1.0, "condition_latents": [1], "text_dropout": 0.25},
        "training": {"steps": 150, "batch_size": 8, "optimizer": "muon", "warmup_steps": 5, "validate_every": 0},
    }
)  # fmt: skip


@pytest.fixture(scope="module")
def table() -> CaptionTable:
    """MiniLM's embeddings of the two captions, for 32 samples that take turns."""
    rows, lengths = open_encoder(TextConfig(encoder="minilm")).encode(CAPTIONS)
    parts = [row[:length] for row, length in zip(rows, lengths.tolist(), strict=True)]
    return CaptionTable(torch.cat(parts), lengths, torch.arange(32) % 2)


def test_a_model_learns_to_follow_its_text(table, tmp_path):
    """Same past for all; the future is +1 under one caption and -1 under the other."""
    latents = torch.zeros(32, 3, 3, 4, 4)
    latents[:, :, 1:] = torch.tensor([1.0, -1.0])[table.of_sample][:, None, None, None, None]
    data = ArrayDataset(tuple(f"s{i}" for i in range(32)), {"latents": latents}, table)
    statistics = {"mean": [[0.0, 0.0]] * 3, "std": [[1.0, 1.0]] * 3}
    encoded = Encoded({"latents": data}, {}, statistics, ActionSpec.null(), 24.0, text_width=table.width)
    torch.manual_seed(0)
    tokenizer = TokenizerConfig(
        temporal_compression=4, spatial_compression=4, latent_channels=3, channels=(8, 8), linear_code=True
    )
    model, objective, card = build(CONFIG, tokenizer, encoded)
    assert card.network.text_embed_dim == 384
    train(model, objective, Loader(data, one_shape(data.sample_ids, 8, 0)), CONFIG.training, scratch=tmp_path)

    def future(text: torch.Tensor | None, lengths: torch.Tensor | None) -> torch.Tensor:
        noise = 80 * torch.randn(2, 3, 3, 4, 4, generator=torch.Generator().manual_seed(1))
        tensors = {} if text is None or lengths is None else {"text": text, "text_lengths": lengths}
        conditions = Conditions({"past": torch.zeros(2, 3, 1, 4, 4), **tensors})
        with torch.no_grad():
            return model.denormalise(model.denoise(noise, 80.0, conditions))[:, :, 1:].mean((1, 2, 3, 4))

    batch = table.rows(torch.tensor([0, 1]))
    right = future(batch["text"], batch["text_lengths"])
    assert right[0] > 0.8  # measured: 1.000, -1.007, and 0.11 untold
    assert right[1] < -0.8
    assert future(None, None).abs().max() < 0.4, "told nothing it expects the mean of both, thanks to dropout"


def test_what_a_model_remembers_of_its_encoder():
    config = TextConfig(encoder="minilm", dtype="bfloat16", cache="/somewhere")
    assert encoder_note(config) == {
        "encoder": "minilm", "max_length": 0, "dtype": "bfloat16", "identity": encoder_identity(config)
    }  # fmt: skip
    assert encoder_note(TextConfig()) is None


def test_the_encoder_enters_the_key_by_what_it_holds():
    from components import encode_text
    from components.derivation import derive_key

    def key(**text) -> str:
        config = encode_text.CONFIG.parse({"text": text})
        return derive_key(
            "encode_text", "v1", config.what(), {}, external_inputs=encode_text.external_inputs(config, {}, None)
        )

    one = key(encoder="minilm")
    assert one == key(encoder="minilm", cache="/elsewhere", batch_size=7)
    others = [key(encoder="minilm", max_length=9), key(encoder="minilm", dtype="bfloat16")]
    assert max(Counter([one, *others]).values()) == 1
    with pytest.raises(ConfigError, match="'none': choose minilm"):
        key(encoder="none")


def test_a_window_has_its_clips_caption():
    from wfm.data.windows import DecodedClip, clip_windows

    row = {
        "session_id": "s",
        "video_id": "v",
        "source": "x.mp4",
        "start_seconds": 0.0,
        "fps": 24.0,
        "caption": "a ball",
    }
    clip = DecodedClip("c", row, np.zeros((9, 4, 4, 3), np.uint8))
    found: list[Window] = list(clip_windows(clip, num_frames=5, stride_frames=4))
    assert [window.caption for window in found] == ["a ball", "a ball"]
