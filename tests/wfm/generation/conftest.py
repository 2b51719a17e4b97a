from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from wfm.actions import ActionSpec
from wfm.families.autoregressive.build import transformer
from wfm.families.diffusion.build import denoiser
from wfm.generation.world_model import WorldCard, WorldModel
from wfm.models.autoregressive import AutoregressiveConfig
from wfm.models.diffusion import DenoiserConfig, DiffusionConfig
from wfm.models.folder import ModelCard, save_model
from wfm.models.tokenizer import Tokenizer, TokenizerConfig

SPEC = ActionSpec(
    names=("camera_orbit_rate", "camera_elevation_rate", "actor_velocity_x"),
    units=("deg/s", "deg/s", "m/s"),
    frame="camera",
    rate_hz=24.0,
    mean=(0.0, 0.0, 0.0),
    scale=(30.0, 5.0, 0.5),
)


def shaken(module: nn.Module, std: float = 0.15) -> nn.Module:
    """Every parameter random: nothing is a no-op because it starts at zero."""
    torch.manual_seed(5)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=std)
    return module


def make_world(family: str, spec: ActionSpec = SPEC, **sampling: Any) -> WorldModel:
    """An untrained world: 16x16 frames, temporal compression 4, windows of 13 frames, 5 given."""
    levels = (4, 3, 2) if family == "autoregressive" else ()
    tokenizer = shaken(
        Tokenizer(
            TokenizerConfig(
                temporal_compression=4,
                spatial_compression=4,
                latent_channels=3,
                levels=levels,
                channels=(16, 16),
                decoder_blocks=1,
                mid_blocks=0,
                mid_attention=False,
                linear_code=True,
            )
        )
    )
    if family == "autoregressive":
        config = AutoregressiveConfig(
            levels=levels,
            dim=32,
            layers=2,
            heads=2,
            kv_heads=1,
            head_dim=12,
            ffn_dim=48,
            order="frame",
            vocabulary="digits",
            patch=2,
            action_width=spec.width,
            action_hidden=16,
            temporal_compression=4,
        )
        model: nn.Module = transformer(config)
    else:
        network = DiffusionConfig(
            in_channels=3,
            condition_mask=True,
            concat_padding_mask=False,
            text_embed_dim=0,
            num_attention_heads=2,
            attention_head_dim=12,
            num_layers=2,
            adaln_lora_dim=8,
            max_size=(16, 32, 32),
        )
        config = DenoiserConfig(
            network=network,
            action_width=spec.width,
            temporal_compression=4,
            repeat_last=True,
            linear_prior=True,
            statistics_frames=2,
        )
        model = denoiser(config)
    drawn = {"steps": 3} if family == "diffusion" else {}
    card = WorldCard.parse(
        {
            "name": f"tiny-{family}", "family": family, "size": (16, 16), "fps": 24.0, "num_frames": 13, "past_frames": 5,
            "sampling": {**drawn, "batch_size": 3, **sampling},
        }
    )  # fmt: skip
    return WorldModel(tokenizer, shaken(model), ModelCard(family, config, spec), card)


def save_bundle(world: WorldModel, folder: Any) -> Any:
    save_model(world.tokenizer, world.tokenizer.config, folder / "tokenizer")
    save_model(world.model, world.model_card.config, folder / "model", action_spec=world.action_spec)
    (folder / "card.json").write_text(world.card.model_dump_json())
    return folder


@pytest.fixture(params=["diffusion", "autoregressive"])
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def world_of() -> Callable[..., WorldModel]:
    return make_world


@pytest.fixture
def bundle_of() -> Callable[..., Any]:
    return save_bundle


@pytest.fixture
def past() -> torch.Tensor:
    return torch.rand(4, 3, 5, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture
def actions() -> np.ndarray:
    return np.random.default_rng(0).normal(0, [30, 5, 0.5], (4, 13, 3)).astype(np.float32)
