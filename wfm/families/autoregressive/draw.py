"""How futures are drawn from a causal transformer: token by token, or frame by frame."""

import math
from typing import Any

from torch import Tensor, nn

from wfm.generation.config import SamplingConfig
from wfm.generation.rollout import future_tokens
from wfm.models.autoregressive.network import AutoregressiveTransformer
from wfm.models.family import Ask, Drawing


class AutoregressiveDrawing(Drawing):
    """Of an `AutoregressiveTransformer`."""

    keeps_tokens = True

    def draw(self, model: AutoregressiveTransformer, ask: Ask) -> Tensor:
        """Tokens of the window."""
        return future_tokens(
            model, ask.past, ask.actions, frames=ask.frames, seeds=ask.seeds, mode=ask.mode, sampling=ask.sampling,
            **ask.shown,
        )  # fmt: skip

    def reads_text(self, model: AutoregressiveTransformer) -> bool:
        """Whether every layer attends to text."""
        return model.config.text_embed_dim > 0

    def shown_motion(self, model: AutoregressiveTransformer) -> bool:
        """Whether extrapolated tokens join the input."""
        return model.config.extrapolate

    def watched(self, model: Any) -> nn.Module:
        """The first layer."""
        return model.layers[0]  # type: ignore[no-any-return]

    def passes(
        self, model: AutoregressiveTransformer, sampling: SamplingConfig, mode: str, grid: tuple[int, int, int]
    ) -> int:
        """One a frame, or one a token."""
        return grid[0] if model.config.order == "frame" else math.prod(grid)


DRAWING = AutoregressiveDrawing()
