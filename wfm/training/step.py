"""The gradient of one step: forward and backward over a rank's micro-batches, then over the ranks.

    counts of all micro-batches and ranks     one exchange, before the first forward
    for each micro-batch: loss, backward      gradients add up; each is a part of the mean over the whole step
    the gradients of all ranks                added up once, after the last: accumulation saves communication

The result is the gradient of the mean over the global batch, however it is divided. With one rank and one micro-batch nothing
is added or divided that would not be without either: dense training keeps its bits.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from wfm.models.loss import Mean, joined
from wfm.parallel.ranks import Ranks
from wfm.parallel.spread import Whole
from wfm.training.config import TrainingConfig
from wfm.training.device import computing
from wfm.training.objective import Rival, counts_of, part_of
from wfm.training.optim import norm_of

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Gradient:
    """What a step found for one player; its gradients stand in its parameters. Scalars on the device, alike on all ranks."""

    loss: Tensor
    "Mean over the global batch."
    norm: Tensor
    "Of the gradient of it, before any clipping."


@dataclass(frozen=True)
class Found:
    """What a step found."""

    model: Gradient
    rival: Gradient | None
    "None: there is none, or it does not learn yet."
    values: dict[str, Mean]
    "What this rank measured."


class Step:
    """Finds the gradients of a step. All ranks have one and call it alike."""

    def __init__(
        self,
        model: nn.Module,
        objective: Any,
        config: TrainingConfig,
        ranks: Ranks,
        rival: Rival | None = None,
        device: torch.device = CPU,
        spread: Whole = Whole(),  # noqa: B008 - it has no state
        timed: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """`timed`: held while this rank computes, and waits for no other."""
        self._model, self._objective, self._rival = model, objective, rival
        self._parts, self._ranks, self._timed = config.accumulation, ranks, timed
        self._spread = spread
        self._computing = partial(computing, device, config.precision)

    def gradients(self, batch: Any, step: int, most: int = 0) -> Found:
        """Of the global batch of which `batch` is what this rank has (nothing, where its share of it is 0). `most`: samples, or
        packs, that any rank has of it; there are no more micro-batches than that. 0: not known."""
        parts = micro_batches(batch, min(self._parts, most or self._parts))
        if not self._ranks.share:
            parts = [replace(part, weight=0.0) for part in parts]
        counts = [self._counted(part, step) for part in parts]
        samples = [part.weight * samples_of(part.batch) for part in parts]
        whole = self._ranks.total({_RIVALS: sum(samples), **added_up(counts)}, "how many there are")
        of_rival = whole.pop(_RIVALS)
        with self._spread.together(self._ranks, f"step {step + 1}"):
            return self._passed(parts, step, counts, [share / of_rival for share in samples], whole)

    def _passed(
        self,
        parts: "list[MicroBatch]",
        step: int,
        counts: list[dict[str, float]],
        shares: list[float],
        whole: dict[str, float],
    ) -> Found:
        """Forward and backward over the parts; `counts` and `shares` (the rival's) of each, `whole` the counts of the step."""
        losses: list[Tensor] = []
        theirs: list[Tensor] = []
        values: dict[str, Mean] = {}
        for place, part in enumerate(parts):
            self._spread.communicate(place == len(parts) - 1)
            with self._timed():
                with self._computing():
                    loss, found = self._spread.run(
                        part_of, self._objective, self._model, part.batch, step, counts[place], whole
                    )
                loss = loss if part.weight else loss * 0.0
                loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
            theirs += self._against(step, shares[place], found)
            values = joined(values, found) if part.weight else values
        self._spread.settle(self._ranks)
        rival = None if self._rival is None or not theirs else self._of_all(self._rival.module, theirs)
        return Found(self._of_all(self._model, losses), rival, values)

    def _counted(self, part: "MicroBatch", step: int) -> dict[str, float]:
        counts = counts_of(self._objective, self._model, part.batch, step)
        return counts if part.weight else dict.fromkeys(counts, 0.0)

    def _against(self, step: int, share: float, found: dict[str, Mean]) -> list[Tensor]:
        """The rival's loss on what the model has just made, backward too; its numbers go into `found`."""
        with self._computing():
            given = None if self._rival is None else self._rival.loss(step)
        if given is None:
            return []
        loss, numbers = given
        loss = loss if share == 1 else share * loss
        loss.backward()  # type: ignore[no-untyped-call]
        found.update({name: Mean(value * share, share) for name, value in numbers.items()})
        return [loss.detach()]

    def _of_all(self, module: nn.Module, losses: list[Tensor]) -> Gradient:
        loss = losses[0].double()
        for more in losses[1:]:
            loss = loss + more
        self._ranks.add_up(module, loss)
        return Gradient(loss, norm_of(module))


_RIVALS = "samples of the rival"


@dataclass(frozen=True)
class MicroBatch:
    """What goes through the model at once."""

    batch: Any
    weight: float = 1.0
    "0: it is there so that all ranks take part in as many passes, and counts for nothing."


def micro_batches(batch: Any, parts: int) -> list[MicroBatch]:
    """A batch in so many: the rows of a dense one in nearly equal runs, the packs of one of packs. Always as many, since ranks
    may meet in each pass: where there is too little, what comes first stands in and counts for nothing."""
    if parts == 1:
        return [MicroBatch(batch)]
    pieces = list(_rows(batch, parts) if isinstance(batch, Mapping) else batch.parts(parts))
    return [MicroBatch(piece) for piece in pieces] + [MicroBatch(pieces[0], 0.0)] * (parts - len(pieces))


def _rows(batch: Mapping[str, Tensor], parts: int) -> Iterator[dict[str, Tensor]]:
    rows = len(batch["seeds"])
    for one, two in pairwise(rows * part // parts for part in range(parts + 1)):
        if two > one:
            yield {name: tensor[one:two] for name, tensor in batch.items()}


def samples_of(batch: Any) -> float:
    """How many samples a batch has."""
    return float(len(batch["seeds"]) if isinstance(batch, Mapping) else len(batch))


def added_up(counts: list[dict[str, float]]) -> dict[str, float]:
    """Counts of several micro-batches together, term by term."""
    return {name: sum(one[name] for one in counts) for name in counts[0]}
