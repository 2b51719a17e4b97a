"""What a model family brings to the training loop."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from wfm.models.loss import Mean, quotient
from wfm.training.config import TrainingConfig

SAMPLES = "samples"
"""The one term of an objective that is a plain mean."""


class Objective(Protocol):
    """The loss of a family, as a mean over the samples of a batch, each of which counts alike.

    A batch is a mapping of tensors: `latents` `[B, C, t, h, w]`, `tokens` `[B, t, h, w]` or `video` `[B, 3, T, H,
    W]`; `actions` `[B, T, A]` normalised when there are any; `seeds` int64 `[B]`, one hash of (run seed, sample id,
    epoch) per sample. Whatever is random in a loss is drawn from `seeds` and nothing else, so that a batch gives the
    same loss on any rank and after any kill.

    What is no mean over samples (one over as many tokens as happen to count, several terms with counts of their own), or trains
    on packs, says its sums and counts: see `SummedObjective`.
    """

    def loss(self, model: Any, batch: Any, step: int) -> tuple[Tensor, dict[str, float]]:
        """The scalar to minimise, and numbers worth a curve, each a mean over the batch's samples."""
        ...


@runtime_checkable
class SummedObjective(Protocol):
    """The loss of a family by sums and counts (`wfm.models.loss`): what is minimised is the sum over its terms of the sum over
    all items of a step, whichever rank, pack or micro-batch they are in, divided by how many these are."""

    def counts(self, model: Any, batch: Any, step: int) -> dict[str, float]:
        """Term -> how many items of this batch count. Known before the forward, from shapes and tensors in host memory; the
        same terms on every rank at a step, 0 where it has nothing of one."""
        ...

    def sums(self, model: Any, batch: Any, step: int) -> tuple[dict[str, Tensor], dict[str, Mean]]:
        """Term -> the sum over them, a scalar with a gradient; and what is measured, on its device and not waited for."""
        ...


def counts_of(objective: Any, model: Any, batch: Any, step: int) -> dict[str, float]:
    """Term -> how many items of a batch count, of either kind of objective."""
    if isinstance(objective, SummedObjective):
        return objective.counts(model, batch, step)
    return {SAMPLES: float(len(batch["seeds"]))}


def part_of(
    objective: Any, model: Any, batch: Any, step: int, mine: Mapping[str, float], whole: Mapping[str, float]
) -> tuple[Tensor, dict[str, Mean]]:
    """What a batch that has the counts `mine` adds to the loss of a step that has the counts `whole`, and what is measured."""
    if isinstance(objective, SummedObjective):
        sums, values = objective.sums(model, batch, step)
        return quotient(sums, whole), values
    loss, numbers = objective.loss(model, batch, step)
    count = mine[SAMPLES]
    share = count / whole[SAMPLES]
    return loss if share == 1 else share * loss, {name: _mean(name, value, count) for name, value in numbers.items()}


def _mean(name: str, value: float, count: float) -> Mean:
    """A number that is a mean over so many samples. A PSNR is averaged as the squared error that it stands for."""
    if name.endswith("psnr"):
        return Mean(10 ** (-value / 10) * count, count, peak=1.0)
    return Mean(value * count, count)


@dataclass(frozen=True)
class Rival:
    """A second player with weights of its own, such as a discriminator. Whenever the model takes a step it takes one too, on
    what the model had made before."""

    module: nn.Module
    "What learns. It is trained in place and kept in the checkpoints, not in the result."
    loss: Callable[[int], tuple[Tensor, Mapping[str, Any]] | None]
    """Of the step: its loss on what the objective has just seen, a mean over samples that all count alike, and numbers worth a
    curve (tensors, which nobody waits for); None: it does not learn yet."""
    config: TrainingConfig
    "Its optimiser: rates, moments, weight decay and gradient clip; steps and schedule are the model's."
