"""A guard at the door of the optimisers: a batch that would spoil the weights is left out, and the run goes on without it.

After the gradients of the whole batch are known, and before anything learns from them, every player's loss and gradient norm
are looked at:

    not_finite   a loss or a norm that is no finite number
    spike        a norm above `spike_ratio` times the median of the last `window` norms of steps that were taken

Such a batch leaves no trace: its gradients are dropped, buffers that a forward pass has changed are put back (`Buffers`), no
optimiser, average or schedule has moved, and the next batch of the order is taken for the same step. So the run is, bit for
bit, one whose order never had that batch. It is written down with its samples (`Left`), and too many end the run: then not
the data is at fault.

The numbers are of the global batch and the same on all ranks, so all decide alike and need not ask each other. A guarded step
reads them, which the host waits for; with `most_left_out` 0 there is no guard and nothing is read.

A median, since a mean would be drawn up by the spikes that it is to find; norms of batches left out do not enter. The norm
and not the loss, because losses are of no scale (with a learned uncertainty they fall below zero) and depend on the noise
levels of a batch, while a bad batch harms through its gradient alone.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from wfm.errors import DataError
from wfm.log import get_logger
from wfm.parallel.ranks import Ranks
from wfm.training.divergence import TrainingDiverged
from wfm.training.guard_config import GuardConfig
from wfm.training.step import Found

SAMPLES_NAMED = 64
"""Samples of a batch that are named; all of them follow from the number of its batch in the order."""
SECOND = "second player"
_TOLD = 3
_log = get_logger(__name__)


@dataclass(frozen=True)
class Verdict:
    """Why a batch is left out."""

    reason: str
    "not_finite | spike"
    player: str
    "Whose numbers they are; empty: the model's."
    loss: float
    norm: float
    median: float
    "That the norm was compared to; 0: too few steps were known."

    def __str__(self) -> str:
        whose = f" of the {self.player}" if self.player else ""
        told = f"loss {self.loss:.4g} and gradient norm {self.norm:.4g}{whose}"
        return f"{told}, {self.norm / self.median:.3g} times the median" if self.reason == "spike" else told


@dataclass
class Left:
    """A batch that was left out, as curves, checkpoints and a stage's answer tell it."""

    step: int
    "The step that it was to be, counted from 1."
    batch: int
    "Its number in the order of the data."
    reason: str
    player: str
    loss: str
    "As text, for it may be no number."
    norm: str
    median: float
    count: int
    "Samples that it had, over all ranks."
    samples: list[list[Any]] = field(default_factory=list)
    "[source, sample, seed] of the first of them."


class Guard:
    """Judges the batches of a run. Every rank has one, and all of them hold the same."""

    def __init__(self, config: GuardConfig, modules: Sequence[nn.Module] = (), description: str = "training") -> None:
        """`modules`: the players'."""
        self.config, self._description = config, description
        self._modules, self._buffers = modules, Buffers(*modules)
        self.left: list[Left] = []
        "What was left out in the whole run, those before a resume too."
        self._norms: dict[str, deque[float]] = {}

    def before_pass(self) -> None:
        """A batch is about to go through the models."""
        self._buffers.keep()

    def take_back(self) -> None:
        """All that the batch has left in the models: gradients, and what its forward pass changed."""
        self._buffers.put_back()
        for module in self._modules:
            module.zero_grad(set_to_none=True)

    def judge(self, kind: str, players: Mapping[str, tuple[float, float]]) -> Verdict | None:
        """Whether the batch is to be left out: each player's (loss, gradient norm) by name, the model's under "". A batch that
        is not is taken to be learned from. `kind`: steps of one kind are compared."""
        known = {player: self._norms.get(f"{kind}/{player}", deque()) for player in players}
        medians = {
            player: median(norms) if len(norms) >= self.config.least_steps else 0.0 for player, norms in known.items()
        }
        for player, (loss, norm) in players.items():
            if not (math.isfinite(loss) and math.isfinite(norm)):
                return Verdict("not_finite", player, loss, norm, medians[player])
        for player, (loss, norm) in players.items():
            if 0 < self.config.spike_ratio * medians[player] < norm:
                return Verdict("spike", player, loss, norm, medians[player])
        for player, (_, norm) in players.items():
            self._norms.setdefault(f"{kind}/{player}", deque(maxlen=self.config.window)).append(norm)
        return None

    def leave_out(
        self, step: int, verdict: Verdict, number: int, samples: Sequence[Sequence[Any]], ranks: Ranks
    ) -> Left:
        """Write a batch down that was to be step `step` (from 0): its number in the order, and the (source, sample, seed) of
        this rank's samples. All `ranks` call this. Raises TrainingDiverged where that is one too many."""
        told = ranks.gather((len(samples), samples[:SAMPLES_NAMED]), "what is left out")
        named = [list(sample) for _, held in told for sample in held]
        left = Left(
            step + 1, number, verdict.reason, verdict.player, repr(verdict.loss), repr(verdict.norm), verdict.median,
            sum(count for count, _ in told), named[:SAMPLES_NAMED],
        )  # fmt: skip
        self.left.append(left)
        _log.warning(
            "%s: batch %d, which was to be step %d, gave %s: it is left out (%d of at most %d), samples %s",
            self._description, left.batch, left.step, verdict, len(self.left), self.config.most_left_out,
            ", ".join(str(sample[1]) for sample in left.samples[:_TOLD]) + (", …" if left.count > _TOLD else ""),
        )  # fmt: skip
        if len(self.left) > self.config.most_left_out:
            self._give_up(verdict)
        return left

    def _give_up(self, verdict: Verdict) -> None:
        reasons: dict[str, int] = {}
        for one in self.left:
            reasons[one.reason] = reasons.get(one.reason, 0) + 1
        told = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
        steps = ", ".join(str(one.step) for one in self.left[-8:])
        raise TrainingDiverged(
            f"{self._description}: {len(self.left)} batches had to be left out ({told}; last at the steps {steps}), at most "
            f"{self.config.most_left_out} may be (training.guard.most_left_out); the last one gave {verdict}. That many are no "
            "matter of single batches: lower training.learning_rate, mend the data, or, where the norms are sound, raise "
            "training.guard.spike_ratio"
        )

    def state(self) -> dict[str, Any]:
        """As JSON values, for a checkpoint."""
        norms = {name: list(held) for name, held in self._norms.items()}
        return {"norms": norms, "left": [asdict(one) for one in self.left]}

    def restore(self, values: Mapping[str, Any]) -> None:
        """The inverse; a checkpoint of before there were guards has nothing. Raises DataError for one that is damaged."""
        try:
            norms = {str(name): [float(norm) for norm in held] for name, held in values.get("norms", {}).items()}
            self.left = [Left(**one) for one in values.get("left", [])]
        except (TypeError, ValueError, AttributeError) as error:
            raise DataError(f"a checkpoint's state of the guard cannot be read: {error}") from error
        self._norms = {name: deque(held, maxlen=self.config.window) for name, held in norms.items()}

    def told(self) -> list[dict[str, Any]]:
        """What was left out, for a stage's answer."""
        return [asdict(one) for one in self.left]


def players_of(found: Found) -> dict[str, tuple[float, float]]:
    """(loss, gradient norm) of each player, as `judge` takes them: one wait for the device."""
    gradients = {"": found.model, **({SECOND: found.rival} if found.rival is not None else {})}
    read = torch.stack([number.double() for one in gradients.values() for number in (one.loss, one.norm)]).tolist()
    return dict(zip(gradients, zip(read[::2], read[1::2], strict=True), strict=True))


def kind_of(objective: Any, batch: Any, step: int) -> str:
    """``image`` or ``video``: of which kind a step is, for norms of one kind are compared. An objective that decides it by the
    step says so (`is_image_step`); else the batch does, by its frames; one of several shapes is of neither."""
    by_step = getattr(objective, "is_image_step", None)
    if by_step is not None and by_step(step):
        return "image"
    for name, axis in (("latents", 2), ("video", 2), ("tokens", 1)):
        if isinstance(batch, Mapping) and name in batch:
            return "image" if batch[name].shape[axis] == 1 else "video"
    return ""


class Buffers:
    """What a forward pass may change of modules beside their gradients, kept so that a batch that is left out takes it back.

    All of them are copied at each step: versions would not tell of writes through `.data`, and buffers are small.
    """

    def __init__(self, *modules: nn.Module) -> None:
        self._modules = modules
        self._kept: list[tuple[nn.Module, str, Tensor, Tensor]] = []

    @torch.no_grad()
    def keep(self) -> None:
        """Before the passes of a step."""
        self._kept = [
            (owner, name, buffer, buffer.clone())
            for module in self._modules
            for owner in module.modules()
            for name, buffer in owner.named_buffers(recurse=False)
        ]

    @torch.no_grad()
    def put_back(self) -> None:
        """As `keep` found them, in place, those that were exchanged for other tensors too."""
        for owner, name, held, copy in self._kept:
            held.copy_(copy)
            setattr(owner, name, held)
