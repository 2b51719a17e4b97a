"""The running average of the weights, with a width that grows with the length of training (power EMA, Karras et al.
2024).

With relative width s the decay at step n is (1 - 1 / n) ^ (gamma + 1), where gamma follows from s; the average then
covers about the last share s of training whenever it is read, and the random start is forgotten by itself.
"""

import numpy as np
import torch
from torch import Tensor, nn

from wfm.errors import ConfigError
from wfm.parallel.shards import part_of
from wfm.training.config import WIDEST


def gamma_of(width: float) -> float:
    """The exponent of a relative width: the largest root of (gamma + 1) / ((gamma + 2)^2 (gamma + 3)) = width^2.

    The left side has its maximum, 0.0902, at gamma = -0.38: beyond a width of 0.3 there is no root. Raises ConfigError there.
    """
    if not 0 < width <= WIDEST:
        raise ConfigError(f"ema_share is {width}; a power average has a width above 0 and up to {WIDEST}")
    t = width**-2
    roots = np.roots([1.0, 7.0, 16.0 - t, 12.0 - t])
    return float(np.real(roots).max())


class PowerEMA:
    """Averaged copies of a module's parameters; buffers are taken as they are. Of parameters that are spread over ranks each
    rank averages its part."""

    def __init__(self, module: nn.Module, width: float) -> None:
        self.gamma = gamma_of(width)
        self.average = {name: p.detach().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Take in the weights after optimiser step `step` (1-based)."""
        weight = 1 - (1 - 1 / step) ** (self.gamma + 1)
        names, live = zip(*module.named_parameters(), strict=True)
        averages = [part_of(self.average[name]) for name in names]
        torch._foreach_lerp_(averages, [part_of(parameter.detach()) for parameter in live], weight)

    @torch.no_grad()
    def swap(self, module: nn.Module) -> None:
        """Exchange the module's weights with the average; calling it twice changes nothing."""
        for name, parameter in module.named_parameters():
            mine, averaged = part_of(parameter.detach()), part_of(self.average[name])
            kept = mine.clone()
            mine.copy_(averaged)
            averaged.copy_(kept)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by parameter name."""
        return self.average

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Take over saved averages; the names must be exactly the module's."""
        if set(tensors) != set(self.average):
            raise KeyError(f"averages of other parameters: {sorted(set(tensors) ^ set(self.average))[:5]}")
        for name, tensor in tensors.items():
            self.average[name].copy_(tensor)
