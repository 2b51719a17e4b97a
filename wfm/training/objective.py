"""What a model family brings to the training loop."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from wfm.training.config import TrainingConfig


class Objective(Protocol):
    """The loss of a family.

    A batch is a mapping of tensors: `latents` `[B, C, t, h, w]`, `tokens` `[B, t, h, w]` or `video` `[B, 3, T, H,
    W]`; `actions` `[B, T, A]` normalised when there are any; `seeds` int64 `[B]`, one hash of (run seed, sample id,
    epoch) per sample. Whatever is random in a loss is drawn from `seeds` and nothing else, so that a batch gives the
    same loss on any rank and after any kill.

    The loss is the mean over the batch of what each sample gives, all alike: ranks weigh theirs by how many samples they have.
    What is not (a mean over as many tokens as happen to count, a norm of the whole batch) takes its statistic from all ranks,
    by `Ranks.mean` or `Ranks.norm` (`wfm.parallel.ranks`).
    """

    def loss(self, model: Any, batch: Mapping[str, Tensor], step: int) -> tuple[Tensor, dict[str, float]]:
        """The scalar to minimise, and numbers worth a curve."""
        ...


@dataclass(frozen=True)
class Rival:
    """A second player with weights of its own, such as a discriminator. After every step of the model it takes one too."""

    module: nn.Module
    "What learns. It is trained in place and kept in the checkpoints, not in the result."
    loss: Callable[[int], tuple[Tensor, dict[str, float]] | None]
    "Of the step: its loss on what the objective has just seen, and numbers worth a curve; None: it does not learn yet."
    config: TrainingConfig
    "Its optimiser: rates, moments, weight decay and gradient clip; steps and schedule are the model's."
