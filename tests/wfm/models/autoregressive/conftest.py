from collections.abc import Callable
from typing import Any

import pytest
import torch

from wfm.families.autoregressive.build import transformer
from wfm.models.autoregressive import AutoregressiveConfig, AutoregressiveTransformer

SMALL: dict[str, Any] = {
    "levels": (4, 3, 2),
    "dim": 48,
    "layers": 3,
    "heads": 4,
    "kv_heads": 2,
    "head_dim": 12,
    "ffn_dim": 96,
    "action_width": 3,
    "action_hidden": 32,
    "temporal_compression": 4,
}
RASTER_FLAT = {"order": "raster", "vocabulary": "flat"}
RASTER_DIGITS = {"order": "raster", "vocabulary": "digits"}
FRAME_FLAT = {"order": "frame", "vocabulary": "flat"}
FRAME_PATCHES = {"order": "frame", "vocabulary": "digits", "patch": 2, "copy_bias": True}
FORMS = [RASTER_FLAT, RASTER_DIGITS, FRAME_FLAT, FRAME_PATCHES]


@pytest.fixture(params=FORMS, ids=lambda form: f"{form['order']}-{form['vocabulary']}-{form.get('patch', 1)}")
def form(request: pytest.FixtureRequest) -> dict[str, Any]:
    return request.param


@pytest.fixture
def build() -> Callable[..., AutoregressiveTransformer]:
    """A small network whose every weight matters (nothing starts at zero), in fp64 unless asked otherwise."""

    def make(dtype: torch.dtype = torch.float64, **changes: Any) -> AutoregressiveTransformer:
        torch.manual_seed(0)
        model = transformer(AutoregressiveConfig(**{**SMALL, **changes}))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        return model.to(dtype).eval()

    return make


@pytest.fixture
def sample() -> tuple[torch.Tensor, torch.Tensor]:
    """tokens [2, 4, 4, 4] and normalised actions [2, 13, 3]."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 24, (2, 4, 4, 4), generator=generator)
    return tokens, torch.randn(2, 13, 3, generator=generator, dtype=torch.float64)
