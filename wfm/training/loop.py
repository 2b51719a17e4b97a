"""The training loop, one for every family. It reads top to bottom.

A run is a pure function of its configuration, its data and the network's initial weights: order and randomness come
from counters and hashes, the budget is in steps. Killed at any moment and started again on the same scratch folder
it ends with the same weights, bit for bit, on the same machine and number of threads.

A run may have several ranks (`wfm.parallel.ranks`), which see the same batches together as one process alone; a checkpoint is
of the run, whatever number of ranks wrote it or goes on from it.

An adversarial run has a second player, the `Rival`: it takes its step right after the model's, on what the model has just
made, and is part of every checkpoint.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch
from torch import nn

from wfm.artifacts.lease import LeaseHeld
from wfm.crash_points import crash_point
from wfm.data.loader.loading import Loader
from wfm.errors import Cancelled
from wfm.log import get_logger, progress
from wfm.models.fast_cpu import fast_cpu
from wfm.models.loss import Mean
from wfm.parallel.ranks import ALONE, Ranks
from wfm.parallel.spread import Whole
from wfm.pulse import beat, expecting
from wfm.stopping import FOR_THE_END, left
from wfm.training.checkpoint import Keeper, Learning, Player, Scratch
from wfm.training.config import TrainingConfig
from wfm.training.data_wait import await_data
from wfm.training.device import to_device
from wfm.training.divergence import Sound
from wfm.training.ema import Average, average_of
from wfm.training.guard import Guard, Verdict, kind_of, players_of
from wfm.training.meter import Meter
from wfm.training.metrics import Curve, read_curve
from wfm.training.objective import Objective, Rival, SummedObjective
from wfm.training.optim import Optimizers, clip
from wfm.training.pace import Pace
from wfm.training.profiling import profiled
from wfm.training.schedule import rate
from wfm.training.step import Step
from wfm.training.tensorboard import VALIDATION, Board
from wfm.training.throughput import Throughput, WorkOf, budget_of, in_words, seen_by, thinned

ModuleT = TypeVar("ModuleT", bound=nn.Module)
Validate = Callable[[Any], dict[str, float]]

CLOCK = "clock.jsonl"
"""Beside the curves, of this machine alone and in no artifact: seconds so far, those spent waiting for data, and what the
loader counts."""
WORTH_TELLING = 0.02
"""Share of the time spent waiting for data from which on progress says so."""
FIRST_STEP = 3
"""The first step may take so many times as long as any other: it compiles, and fills caches."""


@dataclass
class TrainingResult:
    """What a finished run reports. Nothing here but `seconds`, `samples_per_second` and `waited` depends on the clock."""

    steps: int
    resumed_from: int
    seconds: float
    "Wall time of this attempt [s]."
    samples_per_second: float
    "Of this attempt, over all ranks; those of batches that were left out too."
    curve: Path
    "Its curves: JSON lines, written by rank 0."
    final: dict[str, float] = field(default_factory=dict)
    "The last validation."
    waited: float = 0.0
    "Of `seconds`, those in which the training waited for the store (`wfm.training.pace`)."
    waited_for_data: float = 0.0
    "Of `seconds`, those in which no batch was ready."
    left_out: list[dict[str, Any]] | None = None
    "Batches of the whole run that the guard left out (`wfm.training.guard.Left`); None: there was no guard."
    rates: list[dict[str, float]] = field(default_factory=list)
    "How fast it went (`wfm.training.throughput`), at some points of the curves; of rank 0."
    skipped: dict[str, int] = field(default_factory=dict)
    "Samples of the run that could not be read and that others took the place of, each once, by reason."

    def told(self) -> dict[str, Any]:
        """What a stage says of it in its manifest."""
        names = (
            "steps", "resumed_from", "samples_per_second", "seconds", "waited", "waited_for_data", "skipped", "rates",
        )  # fmt: skip
        left_out = {} if self.left_out is None else {"batches_left_out": self.left_out}
        return {**{name: getattr(self, name) for name in names}, **left_out, "validation": self.final}


def _whole(model: nn.Module) -> Whole:
    return Whole()


def train(
    model: nn.Module,
    objective: Objective | SummedObjective,
    data: Loader,
    config: TrainingConfig,
    *,
    scratch: Scratch,
    stopping: Callable[[], bool] = lambda: False,
    validate: Validate | None = None,
    rival: Rival | None = None,
    run: Mapping[str, Any] | None = None,
    description: str = "training",
    ranks: Ranks = ALONE,
    work: WorkOf | None = None,
    spread: Callable[[nn.Module], Whole] = _whole,
) -> TrainingResult:
    """Train `model` in place for `config.steps` steps; it ends with the averaged weights. `scratch`: where it
    keeps what it would go on from (`wfm.training.checkpoint`). It goes where `data` puts its batches, and on a CPU it is
    `fast_cpu` from here on.

    `validate(model)` is called with the averaged weights in evaluation mode. `run`: whatever else decides the result (the
    loss, files it reads), as JSON values: a checkpoint of a run that differs in it is not resumed. Raises Cancelled
    (after writing a checkpoint) when `stopping()` turns true, LeaseHeld (without one) when another process has taken the work
    over, TrainingDiverged for a loss or gradient that is not finite: at the next point, validation or checkpoint, of which none
    is then made. A step waits for nothing that the device computes; what it found is read when a point of the curves is due.

    `work`: what training takes on a sample of a shape, as its family knows; it decides what is told of the speed, and no more.
    `spread(model)` spreads its parameters over the ranks (`wfm.parallel.spread`), and they stay so.

    Each of `ranks` calls this with the same model and data and takes its share of every batch; all of them end alike,
    whichever was asked to stop or failed. Rank 0 alone writes. All validate: as quick as one of them would be, and none waits.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    device = torch.device(data.config.device)
    to_device(model, device)
    if rival is not None:
        to_device(rival.module, device)
    fast_cpu(model)
    data.share_with(ranks.rank, ranks.size)
    modules = [model] if rival is None else [model, rival.module]
    with ranks.telling():
        for module in modules:
            ranks.begin_alike(module)
        laid = spread(model)
        optimizers = Optimizers(model, config)
        average = average_of(model, config)
        second = None if rival is None else Player(rival.module, Optimizers(rival.module, rival.config))
        sound = [Sound(description, config.learning_rate)]
        if rival is not None:
            sound.append(Sound(f"{description} (second player)", rival.config.learning_rate))
        speed = Throughput(work, peak_flops=config.peak_flops, budget=budget_of(config.data), device=device)
        stepping, meter = Step(model, objective, config, ranks, rival, device, laid, speed.computing), Meter()
        guard = Guard(config.guard, modules, description) if config.guard.most_left_out else None
        fingerprint = fingerprint_of(model, config, data, rival, run)
        learning = Learning(Player(model, optimizers), average, second)
        keeper = Keeper(scratch, learning, fingerprint, config, ranks)
        found = keeper.resume()
        first = 0
        if found is not None:
            data.restore(found.state["data"])
            first = found.step
            if ranks.leads:
                meter.restore(found.state.get("meter", {}))
            if guard is not None:
                guard.restore(found.state.get("guard", {}))
            get_logger(__name__).info("%s: resumed at step %d of %d", description, first, config.steps)
        pace, drawn = Pace(config, ranks, keeper.uploads, first), data.replaced.drawn
        kept = -1 if found is None else first  # a batch may have been left out of step 0
        curve = Curve(keeper.curve, keep_until=kept) if ranks.leads else None
        clock = Curve(keeper.curve.with_name(CLOCK), keep_until=kept) if ranks.leads else None
        beat("load")

        def keep(step: int, *, last: bool = False) -> None:
            _require(sound)
            ranks.require_alike(*modules, label=f"{description}, step {step}")
            _tell_replaced(data, ranks)
            measured = meter.save(ranks)
            if ranks.leads or keeper.together:
                crash_point("before_checkpoint")
                extra = {"meter": measured, "guard": {} if guard is None else guard.state()}
                keeper.keep(step, data.state(), **extra, last=last)
                crash_point("after_checkpoint")
            pace.kept(step)
            beat("save")

        def leaving() -> bool:
            return stopping() or bool(keeper.taken_over())

        def leave(step: int) -> NoReturn:
            _leave_to_another(keeper, ranks, description, step)
            keep(step, last=True)
            safe = _drained(keeper, ranks, config)
            raise Cancelled(f"{description}: asked to stop; step {step} of {config.steps} is kept{safe}")

        # of several ranks one that waits cannot go alone: all have their batch before any is in the step
        leaving_alone = leaving if ranks.size == 1 else _never
        model.train()
        began = saved = time.monotonic()
        final: dict[str, float] = {}
        limit = config.stall_seconds
        board = Board(config.tensorboard if ranks.leads else "", f"{description}-{fingerprint[:8]}", first)
        with (
            board,
            _shown(config.steps, description, first, ranks) as advance,
            expecting("training", limit),
            profiled(config.profile, keeper.folder, learning, ranks.rank) as profile,
        ):
            step, note = first, ""
            while step < config.steps:
                overdue = time.monotonic() - saved > config.checkpoint_seconds
                stop, overdue, behind = ranks.any_of(leaving(), overdue, pace.behind(step), label="stop or save")
                if behind and not stop:
                    stop = pace.await_store(step, leaving)
                if stop:
                    leave(step)
                if ranks.size > 1 and await_data(data, ranks, leaving, limit):
                    leave(step)
                with expecting("step", limit if step > first else FIRST_STEP * limit):
                    try:
                        batch = data.next(leaving_alone)
                    except Cancelled:
                        leave(step)
                    ranks.share = data.share
                    if guard is not None:
                        guard.before_pass()
                    gradients = stepping.gradients(batch, step, data.most)
                    kind = kind_of(objective, batch, step)
                    if guard is not None:
                        verdict = guard.judge(kind, players_of(gradients))
                        if verdict is not None:  # the next batch of the order is taken for this step
                            guard.take_back()
                            _leave_out(guard, step, verdict, data, ranks, curve)
                            continue
                    with laid.together(ranks, f"step {step + 1}"):  # optimisers may exchange parts, as Muon does
                        factor = rate(step, config)
                        clip(model, gradients.model.norm, config.gradient_clip)
                        optimizers.step(factor)
                        sound[0].note(step, gradients.model)
                        if rival is not None and second is not None and gradients.rival is not None:
                            clip(rival.module, gradients.rival.norm, rival.config.gradient_clip)
                            second.optimizers.step(factor)
                            sound[1].note(step, gradients.rival)
                        step = done = step + 1
                        if average is not None:
                            average.update(model, done)
                beat("step")
                crash_point("after_step")
                meter.add(gradients.values)
                if data.share:  # else one of another rank's stands in
                    speed.add(batch, seen_by(objective, batch, done - 1))
                if ranks.leads:  # they are of the whole batch already
                    loss = Mean(gradients.model.loss, 1.0)
                    meter.add({"loss": loss, "gradient_norm": Mean(gradients.model.norm, 1.0)})
                    if kind and f"loss_{kind}" not in gradients.values:
                        meter.add({f"loss_{kind}": loss})
                if done % config.log_every == 0 or done == config.steps:
                    _require(sound)
                    means = meter.point(ranks)
                    rates = speed.point(ranks, waited_for_data=data.waited, waited_for_store=pace.waited)
                    note = _note(means["loss"], rates, guard)
                    if curve is not None and clock is not None:
                        point = _point(means, config.learning_rate * factor)
                        curve.add(done, point)
                        board.add(done, point)
                        clock.add(done, {"seconds": time.monotonic() - began, **data.counters(), **rates})
                        board.add(done, rates, "throughput")
                last = done == config.steps
                if validate is not None and (last or (config.validate_every and done % config.validate_every == 0)):
                    _require(sound)
                    with expecting("validation", limit):
                        final = ranks.broadcast(_validated(model, average, laid, ranks, validate), "validation")
                    beat("validation")
                    if curve is not None:
                        found_there = {f"{VALIDATION}{name}": value for name, value in final.items()}
                        curve.add(done, found_there)
                        board.add(done, found_there)
                if last or overdue or pace.due(done):
                    with expecting("save", limit):
                        keep(done, last=last)
                    saved = time.monotonic()
                profile.step()
                advance(f"{note}{_waiting(data.waited, began)}{pace.words()}")
        with expecting("the end", limit):
            _drained(keeper, ranks, config)
            if average is not None:
                average.swap(model)
            if validate is not None and not final:  # killed between the last step and the end
                final = ranks.broadcast(_validated(model, None, laid, ranks, validate), "validation")
            model.eval()
            crash_point("before_end")
            ranks.barrier("end")
    seconds = time.monotonic() - began
    return TrainingResult(
        config.steps,
        first,
        seconds,
        (data.replaced.drawn - drawn) / max(seconds, 1e-9),
        keeper.curve,
        final,
        pace.waited,
        data.waited,
        left_out=None if guard is None else guard.told(),
        rates=[] if clock is None else thinned(read_curve(clock.path)),
        skipped=_by_reason(data.skipped),
    )


def _never() -> bool:
    return False


def _waiting(waited: float, began: float) -> str:
    """What progress says of a training that waits for data."""
    share = waited / max(time.monotonic() - began, 1e-9)
    return f", {share:.0%} of the time waiting for data" if share > WORTH_TELLING else ""


def _tell_replaced(data: Loader, ranks: Ranks) -> None:
    """Make the samples that any rank replaced known to all: a checkpoint holds those of the run."""
    pieces = data.replaced.news()
    for place in range(max(ranks.gather(len(pieces), "samples replaced"))):
        for piece in ranks.gather(pieces[place] if place < len(pieces) else [], "samples replaced"):
            data.replaced.learn(piece)


def _by_reason(skipped: Mapping[tuple[str, str], int]) -> dict[str, int]:
    """Counts by (source, reason) -> counts by reason."""
    found: dict[str, int] = {}
    for (_, reason), count in skipped.items():
        found[reason] = found.get(reason, 0) + count
    return found


def _leave_to_another(keeper: Keeper, ranks: Ranks, description: str, step: int) -> None:
    """Raise LeaseHeld on all ranks where another process has taken the work over: two would only burn it twice."""
    other = ranks.broadcast(keeper.taken_over(), "who works at it")
    if other:
        raise LeaseHeld(f"{description}: left at step {step}, since another process has taken it over ({other})")


def _drained(keeper: Keeper, ranks: Ranks, config: TrainingConfig) -> str:
    """Let the store catch up, which has a time of its own, but no more than whoever stops a rank leaves; what rank 0 says."""
    with expecting("drain", config.stall_seconds + config.checkpoint_drain_seconds):
        seconds = min(ranks.gather(min(config.checkpoint_drain_seconds, left(FOR_THE_END)), "time to drain"))
        return str(ranks.broadcast(keeper.drain(seconds), "drain"))


@contextmanager
def _shown(steps: int, description: str, first: int, ranks: Ranks) -> Iterator[Callable[[str], None]]:
    """Progress, by rank 0: call with a note after each step."""
    if not ranks.leads:
        yield lambda note: None
        return
    with progress(steps, description, "steps", before=first) as bar:
        yield lambda note: bar.advance(1, note=note)


def _point(means: Mapping[str, float], learning_rate: float) -> dict[str, float]:
    """A point of the curves: what every training has first, then by name: a resumed run has its sums in another order."""
    first = {"loss": means["loss"], "learning_rate": learning_rate, "gradient_norm": means["gradient_norm"]}
    return {**first, **{name: value for name, value in sorted(means.items()) if name not in first}}


def _note(loss: float, rates: Mapping[str, float], guard: Guard | None) -> str:
    """What progress says of the last interval."""
    left = f"{len(guard.left)} batches left out" if guard is not None and guard.left else ""
    return ", ".join(words for words in (f"loss {loss:.4f}", in_words(rates), left) if words)


def _require(sound: list[Sound]) -> None:
    for one in sound:
        one.require()


def _leave_out(guard: Guard, step: int, verdict: Verdict, data: Loader, ranks: Ranks, curve: Curve | None) -> None:
    """Write down the batch that was to be `step`, on all ranks; rank 0 in the curves too."""
    left = guard.leave_out(step, verdict, *data.handed(), ranks)
    if curve is not None:
        curve.note(step, "left_out", asdict(left))
    beat("step")


def fingerprint_of(
    model: nn.Module,
    config: TrainingConfig,
    data: Loader,
    rival: Rival | None = None,
    run: Mapping[str, Any] | None = None,
) -> str:
    """What makes a run this run: a checkpoint with another fingerprint is not resumed."""
    shapes: Mapping[str, Any] = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    facts: dict[str, Any] = {"config": config.what(), "shapes": shapes, "data": data.identity}
    if run is not None:
        facts["run"] = run
    if rival is not None:
        theirs = {name: list(tensor.shape) for name, tensor in rival.module.state_dict().items()}
        facts["rival"] = {"config": rival.config.what(), "shapes": theirs}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


@torch.no_grad()
def _validated(
    model: nn.Module, average: Average | None, laid: Whole, ranks: Ranks, validate: Validate
) -> dict[str, float]:
    """Run a validation with the averaged weights, leaving everything as it was. One that fails ends the run, and leaves the
    weights as they stand then: those of a spread model are not all in parts, and no average could be exchanged with them."""
    if average is not None:
        average.swap(model)
    model.eval()
    with laid.together(ranks, "validation"):
        found = laid.run(validate, model)
    model.train()
    if average is not None:
        average.swap(model)
    return found
