"""What a rank reads for one step: laid out from the order, read sample by sample, made into a batch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wfm.data.loader.batches import Batch, PackedBatch, Sample, stack
from wfm.data.loader.device import Mover
from wfm.data.order.lanes import AnyOrder, AnyStep
from wfm.data.order.packs import Pack
from wfm.data.samples import Samples
from wfm.errors import DataError

Transform = Callable[[Any], Any]

RUN_BYTES = 2**18
"""Samples of one source are read in runs of so many bytes at most, or alone. A run goes to one thread: handing over costs."""
ATTEMPTS = 16
"""Stand-ins that are tried for one sample before it is given up."""
_LEAST_BYTES = 512
"""What a sample takes beside its values, so that tiny ones have a bound too."""


@dataclass(slots=True, eq=False)
class Run:
    """Samples of one source that one thread reads one after the other."""

    work: "Work"
    source: str
    places: Sequence[int]
    "Of the samples in the work."
    rows: Sequence[int]
    shapes: Sequence[list[int]]
    "Frames, height and width of each."
    whole: bool
    "Whether none of them is cut."
    bytes: int


@dataclass(frozen=True, slots=True)
class Skip:
    """A sample that could not be read; another took its place."""

    place: int
    source: str
    row: int
    sample: str
    error: DataError

    @property
    def reason(self) -> str:
        """In a word: the error's own code, or what kind it is."""
        return str(getattr(self.error, "code", type(self.error).__name__))


@dataclass(slots=True, eq=False)
class Work:
    """A rank's part of a global step, on its way from the plan to a batch."""

    step: int
    lane: str
    packs: list[Pack]
    ends: np.ndarray
    "int64 [packs]: of the samples of each pack, counted through."
    table: np.ndarray
    "int64 [6, n] (`Pack.table`) of all packs: what was planned, and then what took its place."
    drawn: int
    "Samples of the global step."
    share: float
    after: Any
    "The order's state after the step."
    found: list[Sample]
    "By place, as far as they are read."
    one_go: str = ""
    "The source in memory whose rows the batch is; nothing needs to be read then."
    runs: list[Run] = field(default_factory=list)
    bytes: int = 0
    left: int = 0
    "Runs that are not read."
    skips: list[Skip] = field(default_factory=list)
    error: BaseException | None = None
    where: str = ""
    "What the error met."
    batch: Any = None
    event: Any = None
    ready: bool = False

    @classmethod
    def failed(cls, error: BaseException) -> "Work":
        """In place of one that could not be planned."""
        nothing = np.zeros((6, 0), np.int64)
        return cls(-1, "", [], nothing[0], nothing, 0, 0.0, None, [], error=error, where="its plan")


class Maker:
    """Lays out, reads and finishes; may do so for several works in several threads. Where a run stands is not its matter."""

    def __init__(
        self,
        sources: Mapping[str, Samples],
        order: AnyOrder[AnyStep],
        transform: Transform | None,
        mover: Mover,
    ) -> None:
        self._sources, self._order, self._transform, self._mover = sources, order, transform, mover
        self._ids = {name: samples.ids for name, samples in sources.items()}
        self._shapes = {name: np.asarray(samples.shapes) for name, samples in sources.items()}
        self._sizes = {name: np.asarray(samples.sizes) for name, samples in sources.items()}
        self._may_cut = {
            name: bool(held.oversized)
            for lane, pieces in order.pieces().items()
            for name, held in zip(order.sources[lane], pieces, strict=True)
        }
        self.in_memory = all(hasattr(samples, "rows") for samples in sources.values())
        "Whether nothing has to be read at all: `Samples` that give many rows at once."
        self.rank, self.ranks = 0, 1

    def lay_out(self, state: Any) -> Work:
        """The rank's part of the step that `state` stands before. Raises ConfigError for ranks that the order cannot serve."""
        step, after = self._order.next(state)
        packs = list(step.of_rank(self.rank, self.ranks))
        share = len(packs) / len(step.packs)
        if self._order.bucketed:
            share = packs[0].table.shape[1] / step.packs[0].table.shape[1]
            if not share:
                packs = [Pack(step.packs[0].table[:, :1])]
        table = packs[0].table.copy() if len(packs) == 1 else np.concatenate([pack.table for pack in packs], 1)
        count = table.shape[1]
        ends = np.cumsum([pack.table.shape[1] for pack in packs]) if len(packs) > 1 else np.array([count])
        drawn = sum([pack.table.shape[1] for pack in step.packs])
        work = Work(step.number, step.lane, packs, ends, table, drawn, share, after, [{}] * count)
        names = self._order.sources[work.lane]
        for index in np.unique(table[0]).tolist() if len(names) > 1 else (0,):
            places = np.flatnonzero(table[0] == index) if len(names) > 1 else slice(None)
            work.runs += self._runs(work, names[index], places)
        if (
            self.in_memory
            and self._order.bucketed
            and all(r.whole and r.source == work.runs[0].source for r in work.runs)
        ):
            work.one_go = work.runs[0].source
            work.runs.clear()
        work.left, work.bytes = len(work.runs), sum([run.bytes for run in work.runs])
        return work

    def _runs(self, work: Work, name: str, where: Any) -> Iterator[Run]:
        """Those of one source. `where`: the places of its samples, as an index."""
        rows = work.table[1, where]
        places = where.tolist() if isinstance(where, np.ndarray) else range(len(rows))
        shapes, sizes = self._shapes[name][rows], np.maximum(self._sizes[name][rows], _LEAST_BYTES)
        whole = not self._may_cut[name] or bool((shapes.prod(1) == work.table[3, where]).all())
        held: tuple[Any, ...] = (places, rows.tolist(), shapes.tolist())
        each = sizes.tolist()
        first, size = 0, 0
        for end, more in enumerate([*each, RUN_BYTES]):
            if size and size + more > RUN_BYTES:
                of_run = [values[first:end] for values in held]
                yield Run(work, name, of_run[0], of_run[1], of_run[2], whole, size)
                first, size = end, 0
            size += more

    def read(self, run: Run) -> int:
        """Read a run into its work, stand-ins for what cannot be read; bytes that these take beyond what was planned.

        What goes wrong otherwise is noted in the work, and is raised at its step.
        """
        work, samples = run.work, self._sources[run.source]
        row, more = -1, 0
        try:
            many = self._many(samples, run)
            found, whole = work.found, run.whole
            each: Sequence[Sample | None] = many or [None] * len(run.rows)
            for place, row, shape, read in zip(run.places, run.rows, run.shapes, each, strict=True):
                try:
                    sample = samples.read(row) if read is None else read
                    _check(sample, shape)
                    found[place] = sample if whole else self._part(work, place, sample)
                except DataError as error:
                    more += self._stand_in(work, place, error)
        except BaseException as error:  # raised again by whoever takes the batch
            which = ", ".join(str(self._ids[run.source][one]) for one in (run.rows[:4] if row < 0 else [row]))
            work.error, work.where = error, f"sample {which} of {run.source!r}"
        return more

    @staticmethod
    def _many(samples: Samples, run: Run) -> Sequence[Sample] | None:
        """All of a run at once, where the source can and none of them is damaged."""
        read_many = getattr(samples, "read_many", None)
        if read_many is None or len(run.rows) < 2:
            return None
        try:
            return list(read_many(run.rows))
        except DataError:
            return None  # one by one, to know which

    def _stand_in(self, work: Work, place: int, error: DataError) -> int:
        """Read the first stand-in that can be read; bytes that it takes beyond what was planned."""
        names = self._order.sources[work.lane]
        number = int(np.searchsorted(work.ends, place, side="right"))
        pack, own = work.packs[number], place - (int(work.ends[number - 1]) if number else 0)
        source, row = pack.table[:2, own].tolist()
        planned = int(self._sizes[names[source]][row])
        for attempt in range(ATTEMPTS):
            work.skips.append(Skip(place, names[source], row, str(self._ids[names[source]][row]), error))
            column = self._order.replace(work.lane, pack, own, attempt).table[:, own]
            source, row = column[:2].tolist()
            work.table[:, place] = column
            try:
                sample = self._sources[names[source]].read(row)
                _check(sample, self._shapes[names[source]][row].tolist())
            except DataError as found:
                error = found
                continue
            work.found[place] = self._part(work, place, sample)
            return int(self._sizes[names[source]][row]) - planned
        raise DataError(f"nor could any of {ATTEMPTS} samples that were to take its place be read: {error}") from error

    def _part(self, work: Work, place: int, sample: Sample) -> Sample:
        """What was drawn of a sample: all of it, but for one that no pack could hold."""
        source, row, start, length = work.table[:4, place].tolist()
        name = self._order.sources[work.lane][source]
        frames, height, width = self._shapes[name][row].tolist()
        if not self._may_cut[name] or length == frames * height * width:
            return sample
        shape, first, past = (frames, height, width), start // (height * width), (start + length) // (height * width)
        return {what: _cut(tensor, shape, first, past) for what, tensor in sample.items()}

    def finish(self, work: Work) -> None:
        """Make the batch of a work that was read, and send it to where it is used. What goes wrong is noted in the work."""
        try:
            if work.error is None:
                batch = self._batch(work)
                work.found = []
                if self._transform is not None:
                    batch = self._transform(batch)
                work.batch, work.event = self._mover.send(batch)
        except BaseException as error:
            work.error, work.where = error, "its batch"

    def _batch(self, work: Work) -> Batch | PackedBatch:
        names = self._order.sources[work.lane]
        if not self._order.bucketed:
            sources, _, starts, lengths, epochs, seeds = torch.from_numpy(work.table)
            bounds = torch.from_numpy(np.append(0, work.ends))
            named = tuple(names[source] for source in sources.tolist())
            return PackedBatch(tuple(work.found), bounds, lengths, starts, seeds, epochs, named)
        seeds = torch.from_numpy(work.table[5])
        if work.one_go:
            batch: Batch = self._sources[work.one_go].rows(work.table[1])  # type: ignore[attr-defined]  # as `in_memory` says
            return {**batch, "seeds": seeds}
        return stack(
            work.found, seeds, lambda place: str(self._ids[names[work.table[0, place]]][int(work.table[1, place])])
        )


def _check(sample: Sample, shape: list[int]) -> None:
    """Raises DataError for latents of another shape than the order counted on."""
    for what in ("latents", "tokens"):
        if what in sample and [*sample[what].shape[-3:]] != shape:
            raise DataError(f"{what} are {tuple(sample[what].shape)}, and the table of lengths says {tuple(shape)}")


def _cut(tensor: Tensor, shape: tuple[int, ...], first: int, past: int) -> Tensor:
    """Frames of what has the sample's own shape, as its last axes or (pixels) its first; anything else stays whole."""
    if tuple(tensor.shape[-3:]) == shape:
        return tensor[..., first:past, :, :]
    return tensor[first:past] if tuple(tensor.shape[:3]) == shape else tensor
