"""How fast a training goes, between two points of its curves: for people and for `clock.jsonl`, never for what is trained.

    tokens_per_second    of all ranks
    flops_per_second     by the family's closed formulas, attention by the square of each sample's own length (`Work`)
    mfu                  the same over `training.peak_flops` of every rank; only where that is stated
    padding              share of the places of packs that no sample fills
    balance              seconds of computing of the slowest rank over their mean; 1: all alike
    balance_of_work      the same of FLOPs (tokens, where FLOPs are not known): what the plan of the data gives each rank
    waiting_for_data     share of the time in which no batch was ready, on the rank that waited most
    waiting_for_store    share of the time in which the training waited for the store
    memory_bytes         largest resident memory of a rank's process so far
    device_memory_bytes  largest memory that a rank's tensors took on its device so far

What a step costs to know is a few sums of Python numbers, from shapes: nothing waits for a device. Ranks exchange their rows
once a point.
"""

import resource
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch

from wfm.errors import ConfigError
from wfm.models.cost.work import Work
from wfm.parallel.ranks import Ranks
from wfm.training.data_config import DataConfig

Shape = tuple[int, int, int]
WorkOf = Callable[[Shape, int], Work]
"""(frames, rows, columns) of a sample's latents, tokens or video, and tokens of its text -> what training on it takes."""
NAMES = (
    "tokens_per_second", "flops_per_second", "mfu", "padding", "balance", "balance_of_work", "waiting_for_data",
    "waiting_for_store", "memory_bytes", "device_memory_bytes",
)  # fmt: skip
_AXES = {"latents": (2, 3, 4), "tokens": (1, 2, 3), "video": (2, 3, 4)}


class Throughput:
    """Of one rank."""

    def __init__(
        self,
        work: WorkOf | None = None,
        *,
        peak_flops: float = 0.0,
        budget: int = 0,
        device: torch.device | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`peak_flops`: of a rank [1/s], 0: unknown. `budget`: places of a pack, 0: batches have no padding."""
        self._work = lru_cache(maxsize=4096)(known(work or tokens_alone))
        self._peak, self._budget, self._clock = peak_flops, budget, clock
        self._device = device if device is not None and device.type == "cuda" else None
        self._events: list[tuple[Any, Any]] = []
        self._begin()
        self._waited = {"data": 0.0, "store": 0.0}

    def _begin(self) -> None:
        self._since = self._clock()
        self._done, self._filled, self._places, self._busy = Work(0), 0, 0, 0.0

    @contextmanager
    def computing(self) -> Iterator[None]:
        """The passes of a step, without what ranks wait for each other in. A GPU is asked afterwards how long they took."""
        if self._device is None:
            began = self._clock()
            yield
            self._busy += self._clock() - began
            return
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        yield
        last.record()
        self._events.append((first, last))

    def add(self, batch: Any, seen: list[tuple[int, Shape]] | None = None) -> None:
        """A rank's part of a step was trained on. `seen`: (count, shape) of samples, where the objective makes others of the
        batch."""
        for count, shape, text in [(*one, 0) for one in seen] if seen is not None else shapes_in(batch):
            self._done += self._work(shape, text).times(count)
            self._filled += count * shape[0] * shape[1] * shape[2]
        self._places += packs_in(batch) * self._budget

    def point(self, ranks: Ranks, *, waited_for_data: float, waited_for_store: float) -> dict[str, float]:
        """What it was since the last point; both waits are those of the run so far [s]. All ranks call it."""
        for first, last in self._events:
            last.synchronize()
            self._busy += first.elapsed_time(last) / 1e3
        self._events.clear()
        seconds = max(self._clock() - self._since, 1e-9)
        row = {
            "tokens": self._done.tokens,
            "flops": self._done.flops,
            "filled": self._filled,
            "places": self._places,
            "busy": self._busy,
            "data": waited_for_data - self._waited["data"],
            "store": waited_for_store - self._waited["store"],
            "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,  # Linux counts in KiB
            "device": 0 if self._device is None else torch.cuda.max_memory_allocated(self._device),
        }
        self._waited = {"data": waited_for_data, "store": waited_for_store}
        rows: list[dict[str, float]] = ranks.gather(row, "throughput")
        self._begin()
        return self._told(rows, seconds)

    def _told(self, rows: list[dict[str, float]], seconds: float) -> dict[str, float]:
        whole = {name: sum(row[name] for row in rows) for name in ("tokens", "flops", "filled", "places")}
        found = {
            "tokens_per_second": whole["tokens"] / seconds,
            "balance": _balance([row["busy"] for row in rows]),
            "balance_of_work": _balance([row["flops"] or row["tokens"] for row in rows]),
            "waiting_for_data": max(row["data"] for row in rows) / seconds,
            "waiting_for_store": max(row["store"] for row in rows) / seconds,
            "memory_bytes": max(row["memory"] for row in rows),
        }
        if whole["flops"]:
            found["flops_per_second"] = whole["flops"] / seconds
            if self._peak:
                found["mfu"] = whole["flops"] / seconds / (self._peak * len(rows))
        if whole["places"]:
            found["padding"] = 1 - whole["filled"] / whole["places"]
        if any(row["device"] for row in rows):
            found["device_memory_bytes"] = max(row["device"] for row in rows)
        return found


def budget_of(data: DataConfig) -> int:
    """Places of a pack; 0 where batches are of one shape, or phases have budgets of their own."""
    return 0 if data.mode != "packs" or any(phase.tokens for phase in data.phases) else data.tokens


def seen_by(objective: Any, batch: Any, step: int) -> list[tuple[int, Shape]] | None:
    """What an objective makes of a batch, where it makes something else (`JointObjective.seen`)."""
    seen = getattr(objective, "seen", None)
    return seen(batch, step) if callable(seen) else None


def known(work: WorkOf) -> WorkOf:
    """The same, and tokens alone where the formulas do not cover a shape: no training ends for want of a rate."""

    def of(shape: Shape, text_tokens: int) -> Work:
        try:
            return work(shape, text_tokens)
        except ConfigError:
            return tokens_alone(shape, text_tokens)

    return of


def tokens_alone(shape: Shape, text_tokens: int) -> Work:
    """Of a model whose costs are not known."""
    return Work(shape[0] * shape[1] * shape[2])


def shapes_in(batch: Any) -> Iterator[tuple[int, Shape, int]]:
    """Count, shape and tokens of text of the samples of a batch, or of packs by shape."""
    for one in getattr(batch, "batches", (batch,)):
        if not isinstance(one, Mapping):
            continue
        for name, axes in _AXES.items():
            if name in one:
                size = one[name].shape
                yield size[0], (size[axes[0]], size[axes[1]], size[axes[2]]), _text_tokens(one)
                break


def packs_in(batch: Any) -> int:
    """How many packs a rank has of a step."""
    found = [one["packs"] for one in getattr(batch, "batches", ())]
    # in host memory, where the loader leaves them: asking a device would wait for it
    return (
        len(set().union(*(packs.tolist() for packs in found)))
        if all(packs.device.type == "cpu" for packs in found)
        else 0
    )


def _text_tokens(batch: Mapping[str, Any]) -> int:
    return int(batch["text"].shape[1]) if "text" in batch and batch["text"].ndim == 3 else 0


def _balance(values: list[float]) -> float:
    mean = sum(values) / len(values)
    return max(values) / mean if mean else 1.0


def thinned(points: list[dict[str, Any]], most: int = 24) -> list[dict[str, float]]:
    """The rates of at most so many points, evenly chosen, the last one among them: what a stage tells of its speed."""
    count = min(most, len(points))
    chosen = [points[(k + 1) * len(points) // count - 1] for k in range(count)]
    return [{name: one[name] for name in ("step", *NAMES) if name in one} for one in chosen]


def in_words(point: Mapping[str, float]) -> str:
    """For a line of progress: what is known of speed, and what stands out."""
    words = [f"{_short(point['tokens_per_second'])}tokens/s"] if point.get("tokens_per_second") else []
    words += [f"MFU {point['mfu']:.0%}"] if "mfu" in point else []
    words += [f"padding {point['padding']:.0%}"] if point.get("padding", 0) >= 0.02 else []
    words += [f"slowest rank {point['balance']:.2f} x the mean"] if point.get("balance", 1) >= 1.1 else []
    return ", ".join(words)


def _short(number: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit} "
    return f"{number:.3g} "
