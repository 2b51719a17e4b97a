"""The running average of the weights: with a width that grows with the length of training (power EMA, Karras et al. 2024), or
with a constant decay.

Power: with relative width s the decay at step n is (1 - 1 / n) ^ (gamma + 1), where gamma follows from s; the average then
covers about the last share s of training whenever it is read, and the random start is forgotten by itself.
"""

import numpy as np
import torch
from torch import Tensor, nn

from wfm.errors import ConfigError
from wfm.parallel.shards import part_of
from wfm.training.config import WIDEST, TrainingConfig


def gamma_of(width: float) -> float:
    """The exponent of a relative width: the largest root of (gamma + 1) / ((gamma + 2)^2 (gamma + 3)) = width^2.

    The left side has its maximum, 0.0902, at gamma = -0.38: beyond a width of 0.3 there is no root. Raises ConfigError there.
    """
    if not 0 < width <= WIDEST:
        raise ConfigError(f"ema_share is {width}; a power average has a width above 0 and up to {WIDEST}")
    t = width**-2
    roots = np.roots([1.0, 7.0, 16.0 - t, 12.0 - t])
    return float(np.real(roots).max())


class Average:
    """Averaged copies of a module's parameters, in fp32 or better: in half precision an average loses most of what it is moved
    by. Buffers are taken as they are. Of parameters that are spread over ranks each rank averages its part."""

    def __init__(self, module: nn.Module) -> None:
        self.average = {name: _exact_copy(parameter) for name, parameter in module.named_parameters()}
        self._live: dict[str, Tensor] = {}
        "While the average stands in the module: weights that it could not be exchanged with exactly."

    def weight(self, step: int) -> float:
        """How much the weights after `step` steps (1-based) count in the average."""
        raise NotImplementedError

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Take in the weights after optimiser step `step` (1-based)."""
        names, live = zip(*module.named_parameters(), strict=True)
        averages = [part_of(self.average[name]) for name in names]
        exact = [part_of(p.detach()).to(average.dtype) for p, average in zip(live, averages, strict=True)]
        torch._foreach_lerp_(averages, exact, self.weight(step))

    @torch.no_grad()
    def swap(self, module: nn.Module) -> None:
        """Exchange the module's weights with the average; calling it twice changes nothing."""
        for name, parameter in module.named_parameters():
            mine, average = part_of(parameter.detach()), part_of(self.average[name])
            if mine.dtype == average.dtype:
                kept = mine.clone()
                mine.copy_(average)
                average.copy_(kept)
            elif name in self._live:
                mine.copy_(self._live.pop(name))
            else:
                self._live[name] = mine.clone()
                mine.copy_(average)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by parameter name."""
        return self.average

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Take over saved averages; the names must be exactly the module's."""
        if set(tensors) != set(self.average):
            raise KeyError(f"averages of other parameters: {sorted(set(tensors) ^ set(self.average))[:5]}")
        for name, tensor in tensors.items():
            self.average[name].copy_(tensor)


class PowerEMA(Average):
    """With a relative width: see above."""

    def __init__(self, module: nn.Module, width: float) -> None:
        super().__init__(module)
        self.gamma = gamma_of(width)

    def weight(self, step: int) -> float:
        return 1 - (1 - 1 / step) ** (self.gamma + 1)


class ConstantEMA(Average):
    """With the same decay at every step: over about the last 1 / (1 - decay) steps. In the first steps the decay is at most
    (1 + n) / (10 + n), as usual, so that the random start does not stay in it."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        super().__init__(module)
        self.decay = decay

    def weight(self, step: int) -> float:
        return 1 - min(self.decay, (1 + step) / (10 + step))


def average_of(module: nn.Module, config: TrainingConfig) -> Average | None:
    """The average that a run keeps; None: it keeps none."""
    if config.ema == "constant":
        return ConstantEMA(module, config.ema_decay)
    return PowerEMA(module, config.ema_share) if config.ema_share else None


def _exact_copy(parameter: Tensor) -> Tensor:
    return parameter.detach().to(torch.promote_types(parameter.dtype, torch.float32), copy=True)
