"""The tokenizer's training loss: how far the reconstruction is from the video."""

from collections.abc import Mapping

import torch
from torch import Tensor

from wfm.models.tokenizer.config import ReconstructionConfig
from wfm.models.tokenizer.network import Tokenizer


class TokenizerObjective:
    """Loss of a `Tokenizer`. Batch: video `[B, 3, T, H, W]` in [-1, 1]."""

    def __init__(self, config: ReconstructionConfig) -> None:
        self.config = config

    def loss(self, model: Tokenizer, batch: Mapping[str, Tensor], step: int) -> tuple[Tensor, dict[str, float]]:
        video = batch["video"]
        rebuilt = model(video)
        difference = rebuilt - video
        total = self._error(difference)
        if self.config.gradient_weight:
            total = total + self.config.gradient_weight * (
                self._error(difference.diff(dim=-1)) + self._error(difference.diff(dim=-2))
            )
        mse = float(difference.detach().square().mean()) / 4  # [-1, 1] to [0, 1]
        return total, {"psnr": -10 * float(torch.tensor(mse).clamp(min=1e-10).log10())}

    def _error(self, difference: Tensor) -> Tensor:
        return difference.square().mean() if self.config.error == "l2" else difference.abs().mean()
