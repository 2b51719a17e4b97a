"""Steps of samples of one shape: the other mode, for networks that take a batch and not a pack.

The samples of a lane are drawn as they are for packs, by one stream; each goes to the bucket of its shape, and the bucket that
is first full is the next step. So sources have their exact rates, each sample is drawn once an epoch or at its weight, and a
bucket has as many steps as its samples are worth. What is left in a bucket at the end of an epoch waits there for more: nothing
is dropped, and a bucket of fewer samples than a batch makes one of several epochs, in which a sample may stand more than once.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from wfm.data.order.columns import Column, blocks, largest, unnamed, zeros
from wfm.data.order.draws import Drawn, Draws
from wfm.data.order.hashing import below, hash64
from wfm.data.order.lanes import Lane, Lanes
from wfm.data.order.packing import StreamRecord
from wfm.data.order.packs import Pack, digest_of, of_pieces, replaced, table_of
from wfm.data.order.sources import LARGEST_BITS, Oversize, Pieces, Source, pieces_of, sample_keys
from wfm.data.order.state import LaneRecord
from wfm.data.seeds import mix
from wfm.errors import ConfigError, DataError

_DRAWS = 2**14
"""Draws that are planned together, at most, about; part of the order, for it says at which steps the state is kept."""


@dataclass(frozen=True)
class Batching:
    """How many samples a batch has: `samples` of every shape, or as many as `tokens` hold, one at least. Another value is
    another order."""

    samples: int = 0
    tokens: int = 0
    oversize: Oversize = "refuse"
    "What becomes of a sample of more than `tokens`."

    def __post_init__(self) -> None:
        for name in ("samples", "tokens"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ConfigError(f"batching.{name}: {value!r} is no whole number of 0 or more")
        if bool(self.samples) == bool(self.tokens):
            raise ConfigError(
                f"batching: samples is {self.samples} and tokens {self.tokens}: one of them says how large a batch is, "
                "the other is 0"
            )

    def of_shapes(self, shapes: np.ndarray) -> np.ndarray:
        """int64 [B]: samples of a batch, of each shape [B, 3]."""
        if self.samples:
            return np.full(len(shapes), self.samples)
        return np.maximum(self.tokens // shapes.prod(1), 1)


@dataclass(frozen=True, eq=False)
class BatchStep:
    """A global batch of samples of one shape."""

    number: int
    lane: str
    shape: tuple[int, int, int]
    "Frames, height, width of every sample."
    batch: Pack

    @property
    def packs(self) -> tuple[Pack, ...]:
        """All of it."""
        return (self.batch,)

    def of_rank(self, rank: int, ranks: int) -> tuple[Pack, ...]:
        """Every ranks-th sample from `rank` on, in one pack; an empty one where there are more ranks than samples."""
        return (Pack(self.batch.table[:, rank::ranks]),)

    @property
    def sha256(self) -> str:
        """Of all that is in it, in its order."""
        return digest_of(self.number, self.lane, self.packs)


@dataclass(frozen=True)
class Bucket:
    """Samples of one shape in a lane."""

    lane: str
    shape: tuple[int, int, int]
    samples: int
    batch: int
    "Samples of a step."
    steps: float
    "In the mean, of those that were asked about."


@dataclass(frozen=True, eq=False)
class _Window:
    before: LaneRecord
    after: LaneRecord
    table: np.ndarray
    "int64 [6, n], one batch after the other."
    ends: list[int]
    buckets: list[int]


class _Bucketed:
    """A lane of batches."""

    def __init__(self, lane: Lane, how: Batching, seed: int) -> None:
        self.name, self._rates = lane.name, np.array([source.rate for source in lane.sources])
        self.pieces = [
            pieces_of(source, how.tokens or largest(source.lengths), how.oversize) for source in lane.sources
        ]
        known, self._buckets, counts = _numbered(
            [_shapes(source, held) for source, held in zip(lane.sources, self.pieces, strict=True)]
        )
        "Of each source: integers [pieces]."
        count = int(counts.sum())
        low = 2**LARGEST_BITS - 1
        self.shapes = np.stack([known >> 2 * LARGEST_BITS, known >> LARGEST_BITS & low, known & low], 1)
        self._tuples = [(frames, height, width) for frames, height, width in self.shapes.tolist()]
        self.sizes = how.of_shapes(self.shapes)
        # a few epochs of little data; what waits at the start of a window is drawn again: a quarter of its samples at most
        held = max(min(_DRAWS, 4 * count), 2 * int(self.sizes.sum()))
        batches = int((-(-counts // self.sizes)).sum())
        self.window = max(1, held // how.samples if how.samples else held * batches // count)
        self._mean = how.samples or count / batches  # of the samples of a batch: a guess, of time alone
        self._draws = Draws(lane.sources, self.pieces, 1, mix(seed, "lane", lane.name))
        self._seed = mix(seed, "sample")
        self._known: _Window | None = None

    def start(self) -> LaneRecord:
        """As of `Planned`."""
        return LaneRecord(self.name, (StreamRecord(),))

    def step(self, number: int, nth: int, before: LaneRecord) -> tuple[BatchStep, LaneRecord]:
        """As of `Planned`."""
        known = self._known
        if known is None or (known.before is not before and known.before != before):
            known = self._known = self._plan(before)
        place = nth % self.window
        first, end = known.ends[place], known.ends[place + 1]
        shape = self._tuples[known.buckets[place]]
        return BatchStep(number, self.name, shape, Pack(known.table[:, first:end])), known.after

    def _plan(self, before: LaneRecord) -> _Window:
        """Draw until as many batches are full as a window has; what came after the last of them is drawn again."""
        (stream,) = before.streams
        numbers = np.array(sorted(member for waiting in stream.open for member in waiting), np.int64)
        drawn = self._draw(numbers)
        buckets = of_pieces(self._buckets, drawn)
        waiting = int((self.sizes - 1).sum()) // 2  # in the mean
        more, after = max(64, math.ceil(self.window * self._mean) + waiting - len(numbers)), stream.drawn
        while True:
            new = np.arange(after, after + more)
            found = self._draw(new)
            drawn, numbers = _joined(drawn, found), np.append(numbers, new)
            buckets = np.append(buckets, of_pieces(self._buckets, found))
            by_bucket = np.argsort(buckets, kind="stable")
            counts = np.bincount(buckets, minlength=len(self.sizes))
            sorted_ = buckets[by_bucket]
            nth = np.arange(len(numbers)) - np.repeat(np.cumsum(counts) - counts, counts)
            last = np.flatnonzero((nth + 1) % self.sizes[sorted_] == 0)  # of each full batch, in `by_bucket`
            if len(last) >= self.window:
                break
            after, more = after + more, max(more // 16, 64)
        full = last[np.argsort(numbers[by_bucket[last]])[: self.window]]
        sizes = self.sizes[sorted_[full]]
        ends = np.cumsum(sizes)
        taken = by_bucket[np.arange(ends[-1]) + np.repeat(full + 1 - ends, sizes)]
        stop = int(numbers[taken[-1]]) + 1
        waits = numbers < stop
        waits[taken] = False
        left = by_bucket[waits[by_bucket]]
        parts = np.split(numbers[left], np.flatnonzero(np.diff(buckets[left])) + 1) if len(left) else []
        record = StreamRecord(stop, tuple(tuple(part.tolist()) for part in parts))
        table = table_of(self.pieces, _chosen(drawn, taken), self._seed)
        return _Window(before, LaneRecord(self.name, (record,)), table, [0, *ends.tolist()], sorted_[full].tolist())

    def _draw(self, numbers: np.ndarray) -> Drawn:
        return self._draws.at(np.zeros_like(numbers), numbers)

    def fault(self, record: LaneRecord) -> str | None:
        """As of `Planned`."""
        if len(record.streams) != 1:
            return f" has {len(record.streams)} streams, not 1"
        (stream,) = record.streams
        seen = -1
        for waiting in stream.open:
            buckets = np.unique(of_pieces(self._buckets, self._draw(np.array(waiting, np.int64))))
            if len(buckets) > 1 or buckets[0] <= seen or len(waiting) >= self.sizes[buckets[0]]:
                return ": samples wait that this order never leaves waiting together"
            seen = int(buckets[0])
        return ": batches that this order never leaves closed" if stream.closed else None

    def replace(self, pack: Pack, place: int, attempt: int) -> Pack:
        """By another sample of its shape: of its source, or where that has none, of another."""
        source, row, start, _, epoch, seed = pack.table[:, place].tolist()
        held = self.pieces[source]
        first, end = _span(held.rows, row)
        bucket = self._buckets[source][first + np.searchsorted(held.starts[first:end], start)]
        drawn = hash64(seed, attempt)
        for index in sorted(range(len(self.pieces)), key=lambda index: index != source):
            held = self.pieces[index]
            fits = self._buckets[index] == bucket
            if held.weights is not None:
                fits &= held.weights > 0
            if index == source:
                fits[slice(*_span(held.rows, row))] = False
            if fits.any():
                others = np.flatnonzero(fits)
                piece = int(others[int(below(drawn, np.array([len(others)], np.uint64))[0])])
                return replaced(pack, place, held, index, piece, epoch, int(hash64(drawn)[0] >> np.uint64(1)))
        raise DataError(
            f"lane {self.name!r}: row {row} of its source {source} cannot be read, and no other sample has its shape "
            f"{tuple(self.shapes[bucket].tolist())}: nothing can take its place; mend or leave out the sample"
        )

    def shares(self) -> np.ndarray:
        """float [B]: of the lane's draws, those of each bucket, in the mean."""
        found = np.zeros(len(self.sizes))
        for rate, held, buckets in zip(self._rates / self._rates.sum(), self.pieces, self._buckets, strict=True):
            weights = None if held.weights is None else held.weights.astype(np.float64)
            counts = np.bincount(buckets, weights, len(self.sizes))
            found += rate * counts / counts.sum()
        return found

    def counts(self) -> np.ndarray:
        """int64 [B]: pieces of each bucket."""
        return np.stack([np.bincount(mine, minlength=len(self.sizes)) for mine in self._buckets]).sum(0)


class BatchOrder(Lanes[BatchStep]):
    """Global steps of samples of one shape."""

    bucketed = True

    def __init__(self, lanes: Sequence[Lane], how: Batching, seed: int) -> None:
        """Raises ConfigError or DataError for what cannot be ordered, naming lane, source and row."""
        self.how = how
        self._bucketed = [_Bucketed(lane, how, seed) for lane in lanes]
        super().__init__(lanes, self._bucketed, f"{seed}\x1f{how!r}")

    def buckets(self, steps: int) -> list[Bucket]:
        """All of them, with how many of the first `steps` steps are theirs. With less than one, a bucket is too rare: its
        samples may wait for the whole run."""
        found = []
        for lane, count in zip(self._bucketed, self._alternation.count(steps), strict=True):
            shares = lane.shares() / lane.sizes
            of_each = count * shares / shares.sum()
            for shape, samples, size, expected in zip(
                lane.shapes.tolist(), lane.counts().tolist(), lane.sizes.tolist(), of_each.tolist(), strict=True
            ):
                found.append(Bucket(lane.name, tuple(shape), samples, size, expected))
        return found


def one_shape(
    sample_ids: Sequence[str], batch_size: int, seed: int, weights: Sequence[float] | np.ndarray | None = None
) -> BatchOrder:
    """The order of samples that are all alike: one bucket of one source."""
    count = len(sample_ids)
    held = None if weights is None else np.asarray(weights, np.float64)
    ones = np.ones(count, np.int64)
    source = Source("samples", ones, sample_keys(sample_ids), weights=held, shapes=np.ones((count, 3), np.int64))
    return BatchOrder([Lane("samples", [source])], Batching(batch_size), seed)


def _shapes(source: Source, held: Pieces) -> np.ndarray:
    if held.shapes is None:
        raise DataError(f"source {source.name!r} says no shapes, and a batch is of samples of one shape")
    return held.shapes


def _codes(shapes: np.ndarray) -> np.ndarray:
    """int64 [N]: shapes [N, 3] as one number each, ascending as shapes are."""
    frames, height, width = shapes.T
    return (frames << 2 * LARGEST_BITS) + (height << LARGEST_BITS) + width


def _numbered(shapes: Sequence[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """int64 [B]: the codes that there are, ascending; of each of `shapes`, which of them its rows have; int64 [B]: how many
    rows have each. Block by block: codes of a million rows, and their order, are never there at once."""
    found = [_different(_codes(mine[rows])) for mine in shapes for rows in blocks(len(mine))]
    known = np.unique(np.concatenate(found))
    if len(known) == 1:
        return known, [zeros(len(mine)) for mine in shapes], np.array([sum(map(len, shapes))])
    counts, inverse = np.zeros(len(known), np.int64), [unnamed(len(mine), np.int32) for mine in shapes]
    for mine, numbers in zip(shapes, inverse, strict=True):
        for rows in blocks(len(mine)):
            numbers[rows] = which = np.searchsorted(known, _codes(mine[rows]))
            counts += np.bincount(which, minlength=len(known))
    return known, inverse, counts


def _different(codes: np.ndarray) -> np.ndarray:
    return codes[:1] if codes.min() == codes.max() else np.unique(codes)


def _span(rows: Column, row: int) -> tuple[int, int]:
    """Where in ascending rows one stands: the first place, and the one behind the last."""
    return bisect_left(rows, row), bisect_right(rows, row)


def _joined(one: Drawn, two: Drawn) -> Drawn:
    return Drawn(*(np.append(getattr(one, each.name), getattr(two, each.name)) for each in fields(Drawn)))


def _chosen(drawn: Drawn, places: np.ndarray) -> Drawn:
    return Drawn(*(getattr(drawn, each.name)[places] for each in fields(Drawn)))
