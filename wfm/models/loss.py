"""What a loss gives: sums, and of how many; never a mean.

A mean over the samples (tokens, frames) that a process happens to hold is not a part of the mean over all: the ranks of a run,
the packs and the micro-batches of a step hold unequal numbers of them. So an objective gives, term by term, the sum over its
own items, and says before the forward how many those are; the training adds up the counts of all and divides once
(`wfm.training.objective`).

    counts(model, batch, step) -> {term: number of items}              host numbers, from shapes and host tensors alone
    sums(model, batch, step)   -> {term: sum, with gradient}, {name: Mean}
    loss(model, batch, step)   -> their quotients over this batch alone, and plain numbers: for validation and tests (`Summed`)

What is measured is a `Mean`, on the device that it was made on: nothing here waits for a device, the training reads all of them
at once when a point of the curves is due.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wfm.data.psnr import psnr_value


@dataclass(frozen=True, eq=False)
class Mean:
    """A number worth a curve: what it sums up, and over how many; detached from the graph."""

    total: Tensor | float
    "Sum over the items."
    count: Tensor | float
    "How many; of one that is 0 everywhere there is nothing to show."
    peak: float = 0.0
    "Above 0: `total` is of squared errors, and what is shown is the PSNR [dB] of their mean at this peak."

    def number(self) -> float:
        """What a curve shows of it. Reads it: waits for its device. Raises ZeroDivisionError where it is of nothing."""
        mean = float(self.total) / float(self.count)
        return shown(mean, self.peak)


def shown(mean: float, peak: float) -> float:
    """A mean as curves show it: as it is, or with a `peak` as the PSNR [dB] of a mean squared error."""
    return psnr_value(torch.tensor(mean, dtype=torch.float64), peak=peak) if peak else mean


class Summed:
    """An objective by its `counts` and `sums`; `loss` is what they come to over one batch alone."""

    def counts(self, model: Any, batch: Any, step: int) -> dict[str, float]:
        """Term -> of how many items of this batch `sums` will be a sum. The same terms on every rank at a step."""
        raise NotImplementedError

    def sums(self, model: Any, batch: Any, step: int) -> tuple[dict[str, Tensor], dict[str, Mean]]:
        """Term -> the sum over this batch's items of what each gives, a scalar with a gradient, weights and all; and what is
        measured."""
        raise NotImplementedError

    def loss(self, model: Any, batch: Any, step: int) -> tuple[Tensor, dict[str, float]]:
        """The loss of a batch that is all there is, and numbers worth a curve."""
        counts = self.counts(model, batch, step)
        sums, values = self.sums(model, batch, step)
        return quotient(sums, counts), {name: value.number() for name, value in values.items() if float(value.count)}


def quotient(sums: Mapping[str, Tensor], counts: Mapping[str, float]) -> Tensor:
    """The sum over terms of sum / count, with a gradient: what is minimised, where `counts` are those of the whole step. A term
    of which there is nothing anywhere is left out. Raises KeyError for other terms than were counted."""
    if set(sums) != set(counts):
        raise KeyError(f"a loss of the terms {sorted(sums)}, and counted were {sorted(counts)}")
    parts = [total / counts[name] if counts[name] != 1 else total for name, total in sums.items() if counts[name]]
    if not parts:
        return sum(total * 0.0 for total in sums.values())  # type: ignore[return-value]
    loss = parts[0]
    for part in parts[1:]:
        loss = loss + part
    return loss
