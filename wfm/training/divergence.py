"""A loss or a gradient that is no number ends a training, with the step at which it came up.

    sound.note(step, gradient)     at each step: remembered on the device, nothing is waited for
    sound.require(...)             before anything is written or validated: raises TrainingDiverged

The weights may have become no numbers meanwhile; nothing of them is kept.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wfm.errors import InputError

if TYPE_CHECKING:
    from wfm.training.step import Gradient


class TrainingDiverged(InputError):
    """A loss, a gradient or a measurement stopped being a number, or too many batches had to be left out: the same run again
    would end the same way."""


class Sound:
    """Of one player."""

    def __init__(self, description: str, learning_rate: float) -> None:
        self._description, self._learning_rate = description, learning_rate
        self._first: Tensor | None = None

    def note(self, step: int, gradient: "Gradient") -> None:
        """A step was taken. The first that was not finite is what `require` tells."""
        loss, norm = gradient.loss.double(), gradient.norm.double()
        if self._first is None:
            self._first = torch.full((3,), -1.0, dtype=torch.float64, device=loss.device)  # step, loss, norm
        now = torch.stack([torch.full_like(loss, step), loss, norm.to(loss.device)])
        bad = ~torch.isfinite(loss + norm) & (self._first[0] < 0)
        self._first = torch.where(bad, now, self._first)

    def require(self) -> None:
        """Raise TrainingDiverged where a step was not finite. Waits for the device."""
        step, loss, norm = (-1, 0.0, 0.0) if self._first is None else self._first.tolist()
        if step >= 0:
            raise TrainingDiverged(
                f"{self._description}: step {step:.0f} gave loss {loss} and gradient norm {norm}; lower the learning rate "
                f"({self._learning_rate}), look at the data of this step, or let single batches be left out "
                "(training.guard.most_left_out)"
            )
