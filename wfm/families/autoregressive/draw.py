"""How futures are drawn from a causal transformer: token by token, or frame by frame."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wfm.errors import ConfigError
from wfm.families.autoregressive.card import DecodingConfig
from wfm.families.autoregressive.decoding import Choose, TopP, continue_tokens, expected, greedy
from wfm.families.autoregressive.medusa import continue_with_drafts
from wfm.models.autoregressive.network import AutoregressiveTransformer
from wfm.models.family import Ask, Drawing


@torch.no_grad()
def future_tokens(
    model: AutoregressiveTransformer,
    tensors: Mapping[str, Tensor],
    *,
    frames: int,
    seeds: list[int],
    mode: str,
    sampling: DecodingConfig,
) -> Tensor:
    """Continue a past to ``frames`` latent frames int64 ``[B, frames, h, w]``. tensors: of the model's conditions, by name,
    ``[B, ...]`` each, ``past`` int64 ``[B, p, h, w]`` among them.

    Mode "greedy" takes the most probable symbol everywhere (with the model's Medusa heads, where it has any), "sample"
    draws with temperature and top-p, "mean" takes the digit nearest to the expected one, which is this
    family's counterpart of the one-step mean; it needs a vocabulary of digits.
    """
    if mode == "mean" and model.config.vocabulary != "digits":
        raise ConfigError('mode "mean" needs vocabulary="digits": ids of a flat vocabulary are names, not quantities')
    if mode == "greedy" and model.medusa is not None:
        return continue_with_drafts(model, tensors, frames=frames).tokens
    choices: dict[str, Choose] = {"greedy": greedy, "mean": expected}
    choose = choices.get(mode) or TopP(seeds, temperature=sampling.temperature, top_p=sampling.top_p)
    return continue_tokens(model, tensors, frames=frames, choose=choose)


class AutoregressiveDrawing(Drawing):
    """Of an `AutoregressiveTransformer`."""

    keeps_tokens = True

    def draw(self, model: AutoregressiveTransformer, ask: Ask) -> Tensor:
        """Tokens of the window."""
        return future_tokens(
            model, ask.tensors, frames=ask.frames, seeds=ask.seeds, mode=ask.mode, sampling=ask.sampling
        )

    def watched(self, model: Any) -> nn.Module:
        """The first layer."""
        return model.layers[0]  # type: ignore[no-any-return]

    def passes(
        self, model: AutoregressiveTransformer, sampling: DecodingConfig, mode: str, grid: tuple[int, int, int]
    ) -> int:
        """One a frame, or one a token."""
        return grid[0] if model.config.order == "frame" else math.prod(grid)


DRAWING = AutoregressiveDrawing()
