"""Draw n of stream v: a pure function, for many (v, n) at once.

Stream v has the pieces with index % V == v of each source. It goes through those of a source in epochs, each shuffled anew.
A piece of weight w stands in epoch e floor((e + 1) * w + u) - floor(e * w + u) times, u in [0, 1) from its key: after any
number of epochs it was drawn w times each to within one, and where an epoch begins is known without those before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wfm.data.order.blending import Blend
from wfm.data.order.hashing import hash64
from wfm.data.order.shuffle import permute
from wfm.data.order.sources import REPEAT_BITS, SHIFT, Pieces, Source
from wfm.data.seeds import mix
from wfm.errors import DataError

_KEPT = 4
"""Epochs whose tables are kept of a weighted source: streams are not all in the same one."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """What was drawn. int64 [n] each."""

    sources: np.ndarray
    pieces: np.ndarray
    epochs: np.ndarray
    repeats: np.ndarray
    "How often the piece was drawn in its epoch before."


class Draws:
    """The draws of V streams over blended sources."""

    def __init__(self, sources: Sequence[Source], pieces: Sequence[Pieces], streams: int, seed: int) -> None:
        """Raises DataError for a source that leaves a stream without a sample."""
        self.blend = Blend([source.rate for source in sources])
        self._epochs: list[_Even | _Weighted] = []
        for source, held in zip(sources, pieces, strict=True):
            key = mix(seed, "order", source.name)
            if len(held.rows) < streams:
                raise DataError(
                    f"source {source.name!r}: {len(held.rows)} samples cannot fill {streams} streams: take fewer streams"
                )
            even = held.weights is None
            self._epochs.append(_Even(len(held.rows), streams, key) if even else _Weighted(source, held, streams, key))

    def at(self, streams: np.ndarray, numbers: np.ndarray) -> Drawn:
        """Draw `numbers` of `streams`, int64 [n] both."""
        sources, before = self.blend.draws(numbers)
        if len(self._epochs) == 1:
            return Drawn(sources, *self._epochs[0].at(streams, before))
        pieces, epochs, repeats = (np.empty_like(numbers) for _ in range(3))
        for index, source in enumerate(self._epochs):
            mine = np.flatnonzero(sources == index)
            if len(mine):
                pieces[mine], epochs[mine], repeats[mine] = source.at(streams[mine], before[mine])
        return Drawn(sources, pieces, epochs, repeats)


Places = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Pieces, epochs, repeats."""


class _Even:
    """Every piece once an epoch."""

    def __init__(self, count: int, streams: int, key: int) -> None:
        self._streams, self._key = streams, key
        self._sizes = (count - np.arange(streams) + streams - 1) // streams

    def at(self, streams: np.ndarray, before: np.ndarray) -> Places:
        sizes = self._sizes[streams]
        epochs, cursors = np.divmod(before, sizes)
        places = permute(cursors, sizes, hash64(self._key, streams, epochs))
        return streams + self._streams * places, epochs, np.zeros_like(epochs)


class _Weighted:
    """Every piece as often as its weight lets it stand in the epoch."""

    def __init__(self, source: Source, held: Pieces, streams: int, key: int) -> None:
        assert held.weights is not None
        self._streams, self._key = streams, key
        count = len(held.rows)
        self._order = np.concatenate([np.arange(stream, count, streams) for stream in range(streams)])
        "Pieces, one stream after the other."
        ends = np.cumsum((count - np.arange(streams) + streams - 1) // streams)
        self._firsts, self._lasts = np.append(0, ends[:-1]), ends
        self._weights = held.weights[self._order]
        chances = hash64(key, held.keys, held.starts) >> np.uint64(64 - SHIFT)
        self._chances = chances[self._order]
        self._means = np.add.reduceat(self._weights.astype(np.float64), self._firsts) / 2.0**SHIFT
        if (short := np.flatnonzero(self._means < 1 - 1e-6)).size:
            raise DataError(
                f"source {source.name!r}: the weights leave {len(short)} of {streams} streams less than one sample an epoch: "
                "take fewer streams, or larger weights"
            )
        self._tables: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def _stands(self, epoch: int) -> np.ndarray:
        """int64: how often each was drawn before `epoch`."""
        whole, part = self._weights >> np.uint64(SHIFT), self._weights & np.uint64(2**SHIFT - 1)
        passed = np.uint64(epoch)
        return (whole * passed + ((part * passed + self._chances) >> np.uint64(SHIFT))).astype(np.int64)

    def _table(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """int64 [V]: draws of each stream before the epoch; int64 [V + 1]: within it, draws of the streams before each; and
        int64 [draws]: piece << REPEAT_BITS | repeat of what stands in it, one stream after the other."""
        if epoch not in self._tables:
            while len(self._tables) >= _KEPT:
                del self._tables[min(self._tables)]
            now = self._stands(epoch)
            counts = self._stands(epoch + 1) - now
            ends = np.append(0, np.cumsum(counts))
            firsts = (self._order << REPEAT_BITS) - ends[:-1]
            standing = np.arange(ends[-1]) + np.repeat(firsts, counts)
            self._tables[epoch] = np.add.reduceat(now, self._firsts), ends[np.append(0, self._lasts)], standing
        return self._tables[epoch]

    def at(self, streams: np.ndarray, before: np.ndarray) -> Places:
        epochs = (before / self._means[streams]).astype(np.int64)
        pieces, repeats = np.full_like(epochs, -1), np.empty_like(epochs)
        left = np.arange(len(epochs))
        while len(left):
            epoch = int(epochs[left].min())
            mine = left[epochs[left] == epoch]
            starts, bases, standing = self._table(epoch)
            own = streams[mine]
            cursors = before[mine] - starts[own]
            sizes = bases[own + 1] - bases[own]
            epochs[mine[cursors < 0]] -= 1
            epochs[mine[cursors >= sizes]] += 1
            here = (cursors >= 0) & (cursors < sizes)
            found, own = mine[here], own[here]
            places = bases[own] + permute(cursors[here], sizes[here], hash64(self._key, own, epoch))
            stood = standing[places]
            pieces[found], repeats[found] = stood >> REPEAT_BITS, stood & (2**REPEAT_BITS - 1)
            left = np.flatnonzero(pieces < 0)
        return pieces, epochs, repeats
