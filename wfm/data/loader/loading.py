"""The loader: batches of an order, one after the other, read ahead of use. See the guide of this package."""

import time
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cached_property
from hashlib import sha256
from itertools import islice
from types import TracebackType
from typing import Any, Self

import numpy as np

from wfm.data.loader.ahead import Ahead, wait_for_end
from wfm.data.loader.config import LoaderConfig
from wfm.data.loader.device import Mover
from wfm.data.loader.replaced import Replaced
from wfm.data.loader.waiting import OnDemand
from wfm.data.loader.work import Maker, Skip, Transform, Work
from wfm.data.order.lanes import AnyOrder, AnyStep
from wfm.data.order.sources import Pieces, sample_keys
from wfm.data.samples import Samples
from wfm.errors import ConfigError, DataError, TryAgain
from wfm.log import get_logger

CLOSE_SECONDS = 5.0
"""How long `close` waits for reads that are under way."""
_LOOKED_AT = 64
_REPLACED = "replaced"
"""Of a state, what is not the order's."""
_SHOWN, _NAMED = 8, 3
"""Replacements that are told of one by one, then every hundredth; and samples that the error names when there are too many."""


class Loader:
    """Endless batches in the order's order, whole or a rank's share of each.

    Where it stands is what was handed out, never what was read ahead: `state` and `restore` continue it with any number of
    ranks and threads. A context manager, so that its threads end.

    A sample that is damaged (DataError from `Samples.read`) is replaced by the order's rule: the stand-in depends on the data
    alone, so every rank and every restart has the same. What a storage does not give (TryAgain), be it to one rank only, is
    never replaced: it ends that rank's step with TryAgain, for ranks that went on with other samples would not be one run.
    """

    def __init__(
        self,
        sources: Mapping[str, Samples] | Samples,
        order: AnyOrder[AnyStep],
        config: LoaderConfig | None = None,
        *,
        transform: Transform | None = None,
    ) -> None:
        """`sources`: by the names that the order knows them by; or the samples alone, where it has one source.
        `transform(batch) -> batch` runs on each batch, in the thread that made it (decode, crop, normalise); it may use the
        batch's seeds and nothing else random.

        Raises ConfigError for other sources than the order's, DataError for one that is empty.
        """
        wanted = {name for names in order.sources.values() for name in names}
        if not isinstance(sources, Mapping):
            sources = dict.fromkeys(wanted, sources) if len(wanted) == 1 else {"(one alone)": sources}
        if wanted != set(sources):
            raise ConfigError(f"the order is of the sources {sorted(wanted)}, and given are {sorted(sources)}")
        if empty := sorted(name for name, samples in sources.items() if not len(samples.ids)):
            raise DataError(f"source {empty[0]!r} has no samples: there is nothing to train on")
        for lane, pieces in order.pieces().items():
            for name, held in zip(order.sources[lane], pieces, strict=True):
                _require_same(name, held, sources[name])
        self.sources, self.order, self.config = dict(sources), order, config or LoaderConfig()
        self._mover = Mover(self.config.device, self.config.pin)
        self._maker = Maker(self.sources, order, transform, self._mover)
        self._state = order.start()
        self._ahead: Ahead | OnDemand | None = None
        self._threads: list[Any] = []
        self._closed = False
        self.share = 1.0
        "Of the global batch, the part that the last batch was."
        self.most = 1
        "Samples (of packs: packs) that the rank which has most of the last global batch has of it: the same on all ranks."
        self.waited = 0.0
        "Seconds in `next` so far in which nothing was ready."
        self.replaced = Replaced()
        "Samples that were replaced, in what was handed out; part of the state."
        self._held = sum(len(samples.ids) for samples in self.sources.values())
        self._damaged: dict[str, int] = {}
        self._samples = self._bytes = 0
        self._handed: tuple[int, str, np.ndarray] = (-1, "", np.zeros((6, 0), np.int64))

    @cached_property
    def identity(self) -> str:
        """sha256 of the sources and of all that decides what their rows give. The order is told apart by each `state`: one of
        another order is refused, and is no other run's that may be begun anew."""
        facts = [f"{name}\x1f{self.sources[name].identity}" for name in sorted(self.sources)]
        return sha256("\x1e".join(facts).encode()).hexdigest()

    @property
    def skipped(self) -> Counter[tuple[str, str]]:
        """(source, reason) -> samples of the run that were replaced, each once: those that this rank knows of."""
        return self.replaced.by_reason()

    def share_with(self, rank: int, ranks: int) -> None:
        """From here on batches are what `rank` of `ranks` has of each global batch. A rank that has nothing of it is given its
        first sample, with a `share` of 0: it takes part in all that ranks do together, and counts for nothing."""
        if (rank, ranks) != (self._maker.rank, self._maker.ranks):
            self._drop()
            self._maker.rank, self._maker.ranks = rank, ranks

    def next(self, stopping: Callable[[], bool] = lambda: False) -> Any:
        """The next batch of this rank: a `Batch`, or a `PackedBatch` where the order makes packs.

        `stopping` is asked while it waits, and ends that with Cancelled. Whatever it raises, the loader stands where it stood:
        calling it again tries again. Raises TryAgain for storage that does not answer, DataError for too many samples that
        cannot be read, and whatever a transform or a source raises.
        """
        if self._closed:
            raise RuntimeError("the loader is closed")
        began = time.monotonic()
        try:
            try:
                work = self._now() if self._maker.in_memory else self._reading().take(stopping)
            finally:
                self.waited += time.monotonic() - began
                if isinstance(self._ahead, OnDemand):
                    self._drop()
            if work.error is not None:
                self._raise(work, work.error)
            self._count(work)
            batch = self._mover.take(work.batch, work.event)
            self._state, self.share, self._handed = work.after, work.share, (work.step, work.lane, work.table)
            self.most = -(-work.drawn // self._maker.ranks) if self.order.bucketed else len(work.packs)
        except BaseException:
            self._drop()  # what was taken and not handed out must come again
            raise
        return batch

    def ready(self, seconds: float) -> bool:
        """Whether `next` would hand out, or raise, at once; waits at most `seconds` for that. For whoever has to look after
        something else meanwhile, such as other ranks."""
        if self._maker.in_memory or self._closed:
            return True
        began = time.monotonic()
        try:
            return self._reading().ready(seconds)
        finally:
            self.waited += time.monotonic() - began

    @property
    def got_on(self) -> int:
        """A number that is another one when something was read for the next batches since."""
        return 0 if self._ahead is None else self._ahead.read

    def handed(self) -> tuple[int, list[tuple[str, str, int]]]:
        """What `next` gave last: the number of its step in the order, and (source, sample, seed) of each that this rank has of
        it."""
        step, lane, table = self._handed
        if not (table.shape[1] and self.share):
            return step, []
        names = self.order.sources[lane]
        found = [(names[source], row, seed) for source, row, seed in zip(*table[[0, 1, 5]].tolist(), strict=True)]
        return step, [(name, str(self.sources[name].ids[row]), seed) for name, row, seed in found]

    def state(self) -> dict[str, Any]:
        """Where it stands, as JSON values: the same for all ranks, once they have told each other what was `replaced`."""
        return {**self.order.save(self._state), _REPLACED: self.replaced.save()}

    def restore(self, values: dict[str, Any]) -> None:
        """Continue from a saved `state`. Raises ConfigError for that of another order, DataError for one that is damaged."""
        own = values.get(_REPLACED) if isinstance(values, dict) else None
        rest = {name: value for name, value in values.items() if name != _REPLACED} if own is not None else values
        state = self.order.restore(rest)
        replaced = Replaced.restored(own, {name: len(samples.ids) for name, samples in self.sources.items()})
        self._drop()
        self._state, self.replaced = state, replaced

    def counters(self) -> dict[str, float]:
        """What curves show of it: seconds waited, bytes in flight, samples, bytes and replaced samples handed out, and what its
        sources count, as ``reader_<name>``, summed."""
        found: Counter[str] = Counter()
        for samples in self.sources.values():
            found.update({f"reader_{name}": value for name, value in getattr(samples, "counters", {}).items()})
        return {
            "waited": self.waited,
            "bytes_in_flight": float(self._ahead.bytes if self._ahead is not None else 0),
            "samples": float(self._samples),
            "bytes": float(self._bytes),
            "skipped": float(len(self.replaced)),
            **{name: float(value) for name, value in found.items()},
        }

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """End the threads. One that hangs in a read for more than `seconds` is left to it: it holds nobody at the exit."""
        self._drop()
        self._closed = True
        self._threads = wait_for_end(self._threads, seconds)
        if self._threads:
            get_logger(__name__).warning(
                "data: %d of the threads that read still hang in a read after %g s; they end with it, or with the process",
                len(self._threads),
                seconds,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _reading(self) -> Ahead | OnDemand:
        """What reads the next batch."""
        if self._ahead is None:
            workers = self.config.workers
            self._ahead = (
                Ahead(self._maker, self._state, workers, self.config.prefetch_bytes)
                if workers
                else OnDemand(self._maker, self._state)
            )
            self._end = weakref.finalize(self, self._ahead.stop)
            self._end.atexit = False
            self._threads = [thread for thread in self._threads if thread.is_alive()] + self._ahead.threads
        return self._ahead

    def _now(self) -> Work:
        try:
            work = self._maker.lay_out(self._state)
        except Exception as error:
            return Work.failed(error)
        for run in work.runs:
            self._maker.read(run)
            if work.error is not None:
                return work
        self._maker.finish(work)
        return work

    def _drop(self) -> None:
        """Forget what was read ahead: the next batch is read from where the loader stands."""
        if self._ahead is not None:
            self._end()
            self._ahead = None

    @staticmethod
    def _raise(work: Work, error: BaseException) -> None:
        where = f"data of step {work.step}, {work.where}" if work.step >= 0 else "planning data"
        if isinstance(error, TryAgain):
            raise TryAgain(f"{where}: {error}") from error
        error.add_note(where)
        raise error

    def _count(self, work: Work) -> None:
        """Count what was handed out, and tell of samples that were replaced. Raises DataError for too many."""
        self.replaced.drawn += work.drawn
        if work.share:  # else read, but another rank's
            for skip in work.skips:
                self._tell(work, skip)
            self._samples, self._bytes = self._samples + work.table.shape[1], self._bytes + work.bytes
        of = min(self.replaced.drawn, self._held)  # drawn again is no further sample
        most = max(self.config.skipped_count, int(self.config.skipped_share * of))
        if (total := len(self.replaced)) > most:
            raise DataError(
                f"{total} of {of} samples could not be read, at most {most} may be replaced (loader.skipped_count, "
                f"loader.skipped_share): {'; '.join(self._named(total))}; mend the data, or raise the limits"
            )

    def _named(self, total: int) -> list[str]:
        """Some of the samples that were replaced: what this process met itself, else what it knows."""
        named = [f"{words} ({times} times)" for words, times in list(self._damaged.items())[:_NAMED]]
        if not named:
            some = islice(self.replaced, _NAMED)
            named = [f"sample {self.sources[name].ids[row]} of {name!r}: {why}" for name, row, why in some]
        return named + ["and others"] * (total > len(named))

    def _tell(self, work: Work, skip: Skip) -> None:
        is_new = self.replaced.add(skip.source, skip.row, skip.reason)
        words = f"sample {skip.sample} of {skip.source!r}: {skip.error}"
        if words in self._damaged or len(self._damaged) < _SHOWN:
            self._damaged[words] = self._damaged.get(words, 0) + 1
        if is_new and ((total := len(self.replaced)) <= _SHOWN or total % 100 == 0):
            get_logger(__name__).warning("step %d: %s; another takes its place (%d so far)", work.step, words, total)


def _require_same(name: str, pieces: Pieces, samples: Samples) -> None:
    """Raises ConfigError where an order is of other samples than those given; a few of them are looked at."""
    if (last := int(pieces.rows[len(pieces.rows) - 1])) >= len(samples.ids):
        raise ConfigError(f"source {name!r}: the order wants its row {last}, and given are {len(samples.ids)} samples")
    looked_at = np.linspace(0, len(pieces.rows) - 1, min(len(pieces.rows), _LOOKED_AT)).astype(np.int64)
    rows = pieces.rows[looked_at].tolist()
    known: np.ndarray | None = getattr(samples, "order_keys", None)  # no id is read for it
    keys = sample_keys([samples.ids[row] for row in rows]) if known is None else known[rows]
    if (other := np.flatnonzero(keys != pieces.keys[looked_at])).size:
        row = rows[other[0]]
        raise ConfigError(
            f"source {name!r}: row {row} is {samples.ids[row]!r}, and the order is of another sample there"
        )
