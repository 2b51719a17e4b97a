"""Steps of packs: global step k as a pure function of what is ordered, planned a window at a time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wfm.data.order.balance import arrange, cost_of, share_out
from wfm.data.order.columns import total
from wfm.data.order.draws import Draws
from wfm.data.order.lanes import Lane, Lanes
from wfm.data.order.packing import Packer, StreamRecord
from wfm.data.order.packs import Pack, digest_of, of_pieces, replaced, table_of
from wfm.data.order.sources import Oversize, pieces_of
from wfm.data.order.stand_in import StandIns
from wfm.data.order.state import LaneRecord
from wfm.data.seeds import mix
from wfm.errors import ConfigError

_MOST_AHEAD = 1024
"""Draws of a stream that are looked at together."""


@dataclass(frozen=True)
class Packing:
    """How samples become packs and packs become steps. All of it is part of what a run is: another value is another order."""

    budget: int
    "Tokens that a pack holds at most."
    packs: int
    "Of a global step; data-parallel ranks divide them."
    streams: int = 64
    "V, for the life of a run."
    bins: int = 8
    "Packs that a stream keeps open."
    age: int = 512
    "Draws of its stream that a pack may stay open for."
    window: int = 16
    "Steps whose packs are balanced together."
    dim: int = 5120
    "Width of the network, for what attention costs (`balance.cost_of`)."
    oversize: Oversize = "refuse"

    def __post_init__(self) -> None:
        for name in ("budget", "packs", "streams", "bins", "age", "window", "dim"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"packing.{name}: {value!r} is no whole number above 0")
        if self.window * self.packs % self.streams:
            raise ConfigError(
                f"packing.streams: {self.streams} streams do not divide the {self.window * self.packs} packs of a window "
                f"({self.window} steps of {self.packs}): some would give more than others"
            )


@dataclass(frozen=True, eq=False)
class Step:
    """A global batch."""

    number: int
    lane: str
    packs: tuple[Pack, ...]
    costs: np.ndarray
    "int64 [packs]: `balance.cost_of` each."

    def of_rank(self, rank: int, ranks: int) -> tuple[Pack, ...]:
        """What one of `ranks` data-parallel ranks has of it. Raises ConfigError where they do not divide the packs."""
        return tuple(self.packs[place] for place in share_out(self.costs, ranks)[rank])

    @property
    def sha256(self) -> str:
        """Of all that is in it, in its order."""
        return digest_of(self.number, self.lane, self.packs)


@dataclass(frozen=True, eq=False)
class _Window:
    before: LaneRecord
    after: LaneRecord
    packs: list[Pack]
    costs: np.ndarray
    steps: np.ndarray


class _Packed:
    """A lane of packs."""

    def __init__(self, lane: Lane, how: Packing, seed: int) -> None:
        self.name, self.how, self.window = lane.name, how, how.window
        self.pieces = [pieces_of(source, how.budget, how.oversize) for source in lane.sources]
        self._key, self._seed = mix(seed, "window", lane.name), mix(seed, "sample")
        tokens = sum(total(held.lengths) for held in self.pieces)
        self._in_a_pack = how.budget * sum(len(held.lengths) for held in self.pieces) / tokens
        self._draws = Draws(lane.sources, self.pieces, how.streams, mix(seed, "lane", lane.name))
        self._stand_ins = [StandIns(source.name, held) for source, held in zip(lane.sources, self.pieces, strict=True)]
        self._known: _Window | None = None

    def start(self) -> LaneRecord:
        return LaneRecord(self.name, (StreamRecord(),) * self.how.streams)

    def step(self, number: int, nth: int, before: LaneRecord) -> tuple[Step, LaneRecord]:
        """As of `Planned`."""
        window, place = divmod(nth, self.window)
        known = self._known
        if known is None or (known.before is not before and known.before != before):
            known = self._known = self._plan(window, before)
        chosen = known.steps[place]
        return Step(number, self.name, tuple(known.packs[pack] for pack in chosen), known.costs[chosen]), known.after

    def fault(self, record: LaneRecord) -> str | None:
        """As of `Planned`."""
        if len(record.streams) != self.how.streams:
            return f" has {len(record.streams)} streams, not {self.how.streams}"
        for number, packer in enumerate(self.packers(record)):
            if not packer.fits():
                return f", stream {number}: packs that this order never leaves open"
        return None

    def replace(self, pack: Pack, place: int, attempt: int) -> Pack:
        """By one of the same source that is not longer."""
        source, row, _, length, epoch, seed = pack.table[:, place].tolist()
        piece, own_seed = self._stand_ins[source].find(row, length, seed, attempt)
        return replaced(pack, place, self.pieces[source], source, piece, epoch, own_seed)

    def _plan(self, number: int, before: LaneRecord) -> _Window:
        how = self.how
        each = how.window * how.packs // how.streams
        packers = self.packers(before)
        hungry = [stream for stream, packer in enumerate(packers) if len(packer.closed) < each]
        ahead = np.arange(math.ceil(min(1.25 * each * self._in_a_pack, _MOST_AHEAD)))  # a guess, of time alone
        while hungry:
            firsts = np.array([packers[stream].drawn for stream in hungry])
            streams = np.repeat(np.array(hungry), len(ahead))
            lengths = self._lengths(streams, (firsts[:, None] + ahead).ravel()).reshape(len(hungry), -1).tolist()
            for stream, mine in zip(hungry, lengths, strict=True):
                packers[stream].feed(mine, each)
            hungry = [stream for stream in hungry if len(packers[stream].closed) < each]
        taken = [packer.take(each) for packer in packers]
        # pack i of every stream before pack i + 1 of any: their ages are alike
        members = [taken[stream][nth] for nth in range(each) for stream in range(how.streams)]
        table, sizes = self._table(np.tile(np.arange(how.streams), each), members)
        ends = np.cumsum(sizes)
        packs = [Pack(table[:, first:end]) for first, end in zip((ends - sizes).tolist(), ends.tolist(), strict=True)]
        costs = np.add.reduceat(cost_of(table[3], how.dim), ends - sizes)
        steps = arrange(costs, how.window, mix(self._key, number))
        after = LaneRecord(self.name, tuple(packer.record() for packer in packers))
        return _Window(before, after, packs, costs, steps)

    def packers(self, record: LaneRecord) -> list[Packer]:
        """As the record has them."""
        how = self.how
        numbers = [[member for pack in (*at.open, *at.closed) for member in pack] for at in record.streams]
        sizes = [len(mine) for mine in numbers]
        flat = np.array([member for mine in numbers for member in mine], np.int64)
        lengths = np.split(self._lengths(np.repeat(np.arange(len(sizes)), sizes), flat), np.cumsum(sizes)[:-1])
        return [
            Packer(stream, mine.tolist(), how.budget, how.bins, how.age)
            for stream, mine in zip(record.streams, lengths, strict=True)
        ]

    def _lengths(self, streams: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        drawn = self._draws.at(streams, numbers)
        return of_pieces([held.lengths for held in self.pieces], drawn)

    def _table(self, streams: np.ndarray, members: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
        """int64 [6, n], int64 [packs]: the samples of packs, one pack after the other, and how many each has."""
        sizes = np.array([len(pack) for pack in members])
        numbers = np.array([number for pack in members for number in pack], np.int64)
        return table_of(self.pieces, self._draws.at(np.repeat(streams, sizes), numbers), self._seed), sizes


class Order(Lanes[Step]):
    """Global steps of packs."""

    bucketed = False

    def __init__(self, lanes: Sequence[Lane], how: Packing, seed: int) -> None:
        """Raises ConfigError or DataError for what cannot be ordered, naming lane, source and row."""
        self.how = how
        super().__init__(lanes, [_Packed(lane, how, seed) for lane in lanes], f"{seed}\x1f{how!r}")
