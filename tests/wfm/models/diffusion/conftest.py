from collections.abc import Callable
from typing import Any

import pytest
import torch

from wfm.families.diffusion.build import denoiser as build
from wfm.models.diffusion import Denoiser, DenoiserConfig

NETWORK = {
    "in_channels": 3, "condition_mask": True, "concat_padding_mask": False, "text_embed_dim": 0,
    "num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 2, "adaln_lora_dim": 4, "max_size": (8, 16, 16),
}  # fmt: skip


def make_denoiser(*, shaken: bool = True, network: dict[str, Any] | None = None, **more: Any) -> Denoiser:
    """A small denoiser of 3 channels, temporal compression 4, that takes a past; `shaken`: every layer does something."""
    torch.manual_seed(0)
    values = {"network": {**NETWORK, **(network or {})}, "temporal_compression": 4, "statistics_frames": 2, **more}
    model = build(DenoiserConfig.parse(values))
    for name, parameter in model.named_parameters():
        if shaken and float(parameter.detach().abs().max()) == 0:  # zero-initialised layers would hide every effect
            torch.nn.init.normal_(parameter, std=0.1 if "null" in name else 0.3)
    return model.eval()


@pytest.fixture
def denoiser() -> Callable[..., Denoiser]:
    return make_denoiser
