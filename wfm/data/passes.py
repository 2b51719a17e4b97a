"""Passes over samples that keep none of them: what statistics, closed forms and the few watched windows are read by.

    with stoppable(stopping): ...      # passes in here end with Cancelled once `stopping()` is true, a read that hangs or not

A sample that is damaged is left out and told; so that a pass over most of the data is not taken for one over all of it, more
than `DAMAGED_SHARE` of them ends it.
"""

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from queue import SimpleQueue
from typing import ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

from wfm.data.loader.ahead import wait_for_end
from wfm.data.loader.batches import stack
from wfm.data.samples import Samples
from wfm.data.seeds import mix
from wfm.errors import Cancelled, DataError
from wfm.log import get_logger

GivenP = ParamSpec("GivenP")
FoundT = TypeVar("FoundT")

DAMAGED_SHARE = 0.01
"""Of the samples of a pass that may be damaged; one may always be."""
AHEAD = 32
"""Samples that are read ahead of the one that is wanted, by as many threads as `READERS`."""
READERS = 8
LOOK_SECONDS = 0.2
"""How often a pass that waits for a sample looks whether it is to end."""
END_SECONDS = 1.0
"""How long the end of a pass waits for reads that are under way and that nobody wants any more."""
_stopping: ContextVar[Callable[[], bool] | None] = ContextVar("stopping", default=None)


@contextmanager
def stoppable(stopping: Callable[[], bool]) -> Iterator[None]:
    """Passes inside, of this thread, raise Cancelled once `stopping()` is true."""
    token = _stopping.set(stopping)
    try:
        yield
    finally:
        _stopping.reset(token)


def stops_passes(fit: Callable[GivenP, FoundT]) -> Callable[GivenP, FoundT]:
    """Of a function with an argument by the name `stopping`: passes that it makes are `stoppable` by that."""

    @wraps(fit)
    def stopped(*args: GivenP.args, **named: GivenP.kwargs) -> FoundT:
        stopping = named.get("stopping")
        if not callable(stopping):
            return fit(*args, **named)
        with stoppable(stopping):
            return fit(*args, **named)

    return stopped


def read_rows(samples: Samples, rows: Iterable[int]) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """(row, its tensors) in the order of `rows`, some read ahead; damaged ones are left out. Raises DataError where too many
    are, Cancelled where the pass is `stoppable`."""
    damaged, seen = [], 0
    readers = _Readers(samples)
    try:
        for row, reading in _ahead(rows, readers.read):
            seen += 1
            try:
                yield row, _awaited(reading)
            except DataError as error:
                damaged.append(f"{samples.ids[row]} ({error})")
    finally:
        readers.end()
    if damaged:
        said = f"{len(damaged)} of {seen} samples cannot be read, such as {damaged[0]}"
        if len(damaged) > max(1, DAMAGED_SHARE * seen):
            raise DataError(f"{said}: encode them again, or leave them out of the data set")
        get_logger(__name__).warning("%s: left out", said)


class _Readers:
    """Threads that read samples. They hold nobody at the exit of the process, also when one hangs in a read."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self._wanted: SimpleQueue[tuple[int, Future[dict[str, Tensor]]] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"pass-{number}", daemon=True) for number in range(READERS)
        ]
        for thread in self._threads:
            thread.start()

    def read(self, row: int) -> "Future[dict[str, Tensor]]":
        """What will be the tensors of a row."""
        reading: Future[dict[str, Tensor]] = Future()
        self._wanted.put((row, reading))
        return reading

    def end(self) -> None:
        """The threads end with what they are at; one that hangs is left to it."""
        for _ in self._threads:
            self._wanted.put(None)
        wait_for_end(self._threads, END_SECONDS)

    def _run(self) -> None:
        while (wanted := self._wanted.get()) is not None:
            row, reading = wanted
            if reading.set_running_or_notify_cancel():
                try:
                    reading.set_result(self._samples.read(row))
                except BaseException as error:  # raised again by whoever waits for it
                    reading.set_exception(error)


def _awaited(reading: "Future[dict[str, Tensor]]") -> dict[str, Tensor]:
    stopping = _stopping.get()
    while True:
        if stopping is not None and stopping():
            raise Cancelled("asked to stop during a pass over the samples, before the first step: nothing is lost")
        try:
            return reading.result(LOOK_SECONDS)
        except TimeoutError:
            if reading.done():  # just now, or the error is what the read itself raised
                return reading.result()


def _ahead(
    rows: Iterable[int], submit: Callable[[int], "Future[dict[str, Tensor]]"]
) -> Iterator[tuple[int, "Future[dict[str, Tensor]]"]]:
    waiting: deque[tuple[int, Future[dict[str, Tensor]]]] = deque()
    try:
        for row in rows:
            waiting.append((row, submit(row)))
            if len(waiting) > AHEAD:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        for _, reading in waiting:
            reading.cancel()


def batches(
    samples: Samples, names: Sequence[str] = (), *, size: int = 256, rows: Sequence[int] | np.ndarray | None = None
) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
    """(rows, their tensors; of `names` those that there are, or all) of every sample once, or of each of `rows`: batches
    `[B, ...]` of one shape, at most `size` samples; those of a shape in the order given."""
    order = np.arange(len(samples.ids)) if rows is None else np.asarray(rows, np.int64)
    _, kinds = np.unique(samples.shapes[order], axis=0, return_inverse=True)
    kinds = kinds.reshape(-1)
    for kind in range(int(kinds.max()) + 1 if len(order) else 0):
        held: list[tuple[int, dict[str, Tensor]]] = []
        for each in read_rows(samples, order[kinds == kind].tolist()):
            held.append(each)
            if len(held) == size:
                yield _batch(samples, held, names)
                held = []
        if held:
            yield _batch(samples, held, names)


def _batch(
    samples: Samples, held: Sequence[tuple[int, dict[str, Tensor]]], names: Sequence[str]
) -> tuple[list[int], dict[str, Tensor]]:
    rows = [row for row, _ in held]
    asked = [{name: one[name] for name in names or one if name in one} for _, one in held]
    batch = stack(asked, torch.zeros(0), lambda place: samples.ids[rows[place]])
    del batch["seeds"]  # of a training's draw, which this is not
    return rows, batch


def chosen(samples: Samples, count: int) -> list[int]:
    """`count` rows (0: all), by the hash of their ids: the same on every machine, in whatever order the samples lie."""
    hashes = np.fromiter((mix(0, name) for name in samples.ids), np.uint64, len(samples.ids))
    return np.argsort(hashes, kind="stable")[: count or None].tolist()


def read_many(samples: Samples, rows: Sequence[int]) -> Sequence[dict[str, Tensor]]:
    """Several samples, in one go where they can be asked so."""
    together: Callable[[Sequence[int]], Sequence[dict[str, Tensor]]] | None = getattr(samples, "read_many", None)
    return [samples.read(row) for row in rows] if together is None else together(rows)


def counters_of(*several: Samples) -> Counter[str]:
    """What reading the samples did so far, summed, of those that count."""
    found: Counter[str] = Counter()
    for samples in several:
        found.update(getattr(samples, "counters", {}))
    return found


def close_all(*several: Samples) -> None:
    """Close the files and connections of the samples that have some."""
    for samples in several:
        if (close := getattr(samples, "close", None)) is not None:
            close()


def tensors_of(samples: Samples) -> frozenset[str]:
    """Names of what a sample gives, by the first that can be read. Raises DataError where none can."""
    _, first = next(read_rows(samples, range(len(samples.ids))), (0, None))
    if first is None:
        raise DataError(f"none of {len(samples.ids)} samples can be read: encode them again")
    return frozenset(first)
