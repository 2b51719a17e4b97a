"""A model that is shown the extrapolated past refuses latents that do not hold just that."""

import pytest
import torch

from wfm.actions import ActionSpec
from wfm.data.loader import ArrayDataset
from wfm.errors import ConfigError
from wfm.models.tokenizer.config import TokenizerConfig
from wfm.training.config import WorldTrainingConfig
from wfm.training.fit_world_model import Encoded, require_guess

TOKENIZER = TokenizerConfig(temporal_compression=8)


def encoded(guess_from: int) -> Encoded:
    arrays = {"latents": torch.zeros(1, 2, 5, 2, 2)}
    if guess_from:
        arrays["guess"] = torch.zeros(1, 2, 5, 2, 2)
    return Encoded(ArrayDataset(("a",), arrays), None, {}, ActionSpec.null(), 24.0, guess_from)


def config(*counts: int) -> WorldTrainingConfig:
    diffusion = {"extrapolate": True, "network": {"condition_mask": True}}
    return WorldTrainingConfig.parse({"diffusion": diffusion, "edm": {"condition_latents": counts}})


def test_what_fits_is_taken() -> None:
    require_guess(config(2), TOKENIZER, encoded(9))
    require_guess(WorldTrainingConfig(), TOKENIZER, encoded(0))


@pytest.mark.parametrize(
    ("counts", "guess_from", "says"),
    [((2,), 0, "hold no guess"), ((2,), 17, "made from 17"), ((1, 2), 9, r"means \[1, 9\] given frames")],
)
def test_what_does_not_fit_is_refused(counts: tuple[int, ...], guess_from: int, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        require_guess(config(*counts), TOKENIZER, encoded(guess_from))
