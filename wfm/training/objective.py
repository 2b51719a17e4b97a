"""What a model family brings to the training loop."""

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor


class Objective(Protocol):
    """The loss of a family.

    A batch is a mapping of tensors: `latents` `[B, C, t, h, w]`, `tokens` `[B, t, h, w]` or `video` `[B, 3, T, H,
    W]`; `actions` `[B, T, A]` normalised when there are any; `seeds` int64 `[B]`, one hash of (run seed, sample id,
    epoch) per sample. Whatever is random in a loss is drawn from `seeds` and nothing else, so that a batch gives the
    same loss on any rank and after any kill.
    """

    def loss(self, model: Any, batch: Mapping[str, Tensor], step: int) -> tuple[Tensor, dict[str, float]]:
        """The scalar to minimise, and numbers worth a curve."""
        ...
