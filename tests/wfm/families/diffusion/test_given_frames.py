"""A model that is shown the extrapolated past refuses latents that do not hold just that."""

import pytest
import torch

from wfm.actions import ActionSpec
from wfm.data.loader.arrays import ArrayDataset
from wfm.errors import ConfigError
from wfm.families.diffusion.card import DiffusionTrainingConfig
from wfm.families.diffusion.fit import FITTING
from wfm.models.tokenizer.config import TokenizerConfig
from wfm.training.encoded import Encoded

TOKENIZER = TokenizerConfig(temporal_compression=8)


def encoded(extrapolate_from: int) -> Encoded:
    arrays = {"latents": torch.zeros(1, 16, 5, 2, 2)}
    if extrapolate_from:
        arrays["extrapolated"] = torch.zeros(1, 16, 5, 2, 2)
    statistics = {"mean": [[0.0]] * 16, "std": [[1.0]] * 16}
    return Encoded({"latents": ArrayDataset(("a",), arrays)}, {}, statistics, ActionSpec.null(), 24.0, extrapolate_from)


def config(*counts: int) -> DiffusionTrainingConfig:
    diffusion = {"extrapolate": True, "network": {"condition_mask": True}}
    return DiffusionTrainingConfig.parse({"diffusion": diffusion, "edm": {"condition_latents": counts}})


def test_what_fits_is_taken() -> None:
    assert FITTING.settle(config(2), TOKENIZER, encoded(9)).extrapolate
    assert not FITTING.settle(DiffusionTrainingConfig(), TOKENIZER, encoded(0)).extrapolate


@pytest.mark.parametrize(
    ("counts", "extrapolate_from", "says"),
    [((2,), 0, "hold no extrapolated past"), ((2,), 17, "made from 17"), ((1, 2), 9, r"means \[1, 9\] given frames")],
)
def test_what_does_not_fit_is_refused(counts: tuple[int, ...], extrapolate_from: int, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        FITTING.settle(config(*counts), TOKENIZER, encoded(extrapolate_from))
