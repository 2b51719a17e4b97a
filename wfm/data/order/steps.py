"""The order itself: global step k as a pure function of what is ordered, planned a window at a time."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np

from wfm.data.order.balance import arrange, cost_of, share_out
from wfm.data.order.blending import Blend
from wfm.data.order.draws import Draws
from wfm.data.order.hashing import hash64
from wfm.data.order.packing import Packer, StreamRecord
from wfm.data.order.sources import Oversize, Pieces, Source, pieces_of
from wfm.data.order.stand_in import StandIns
from wfm.data.order.state import VERSION, LaneRecord, OrderState, restore, save
from wfm.data.seeds import mix
from wfm.errors import ConfigError, DataError

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
class Lane:
    """Sources that share packs. Images in a lane beside video's make steps of images and steps of video; in the same lane they
    make packs of both."""

    name: str
    sources: Sequence[Source]
    rate: int = 1
    "Of all steps, rate / (sum of the rates of the lanes) are of this lane, spread evenly."


@dataclass(frozen=True, eq=False)
class Pack:
    """Samples that are trained on as one sequence."""

    table: np.ndarray
    "int64 [6, n]: what the properties below name, a row each."

    @property
    def sources(self) -> np.ndarray:
        """Index of the lane's source."""
        return self.table[0]

    @property
    def rows(self) -> np.ndarray:
        """Row of the sample in its source."""
        return self.table[1]

    @property
    def starts(self) -> np.ndarray:
        """First token of the sample that is in the pack: 0 unless the sample was above the budget and split."""
        return self.table[2]

    @property
    def lengths(self) -> np.ndarray:
        """Tokens from there on."""
        return self.table[3]

    @property
    def epochs(self) -> np.ndarray:
        """Of the source, in the stream that the sample is from."""
        return self.table[4]

    @property
    def seeds(self) -> np.ndarray:
        """63 bits each: of the noise, crop and dropout of (seed, sample, part of it, epoch, repeat)."""
        return self.table[5]

    @property
    def tokens(self) -> int:
        """Of all its samples."""
        return int(self.lengths.sum())


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
        digest = sha256(f"{self.number}\x1f{self.lane}".encode())
        for pack in self.packs:
            digest.update(pack.table.astype("<i8").tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class _Window:
    before: LaneRecord
    after: LaneRecord
    packs: list[Pack]
    costs: np.ndarray
    steps: np.ndarray


class _Planned:
    """The order of one lane, without regard to those beside it."""

    def __init__(self, lane: Lane, how: Packing, seed: int) -> None:
        if len({source.name for source in lane.sources}) != len(lane.sources) or not lane.sources:
            raise ConfigError(
                f"lane {lane.name!r}: sources {[s.name for s in lane.sources]}: each wants a name of its own"
            )
        self.name, self.how = lane.name, how
        self.pieces = [pieces_of(source, how.budget, how.oversize) for source in lane.sources]
        self._keys = [source.keys[held.rows] for source, held in zip(lane.sources, self.pieces, strict=True)]
        self._key, self._seed = mix(seed, "window", lane.name), mix(seed, "sample")
        tokens = sum(int(held.lengths.sum()) for held in self.pieces)
        self._in_a_pack = how.budget * sum(len(held.lengths) for held in self.pieces) / tokens
        self._draws = Draws(lane.sources, self.pieces, how.streams, mix(seed, "lane", lane.name))
        self.stand_ins = [StandIns(source.name, held) for source, held in zip(lane.sources, self.pieces, strict=True)]
        self._window: _Window | None = None

    def start(self) -> LaneRecord:
        return LaneRecord(self.name, (StreamRecord(),) * self.how.streams)

    def window(self, number: int, before: LaneRecord) -> _Window:
        """Window `number`, from the record at its start."""
        if self._window is None or (self._window.before is not before and self._window.before != before):
            self._window = self._plan(number, before)
        return self._window

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
        return self._of_pieces([held.lengths for held in self.pieces], drawn.sources, drawn.pieces)

    def _table(self, streams: np.ndarray, members: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
        """int64 [6, n], int64 [packs]: the samples of packs, one pack after the other, and how many each has."""
        sizes = np.array([len(pack) for pack in members])
        numbers = np.array([number for pack in members for number in pack], np.int64)
        drawn = self._draws.at(np.repeat(streams, sizes), numbers)
        rows, starts, lengths = (
            self._of_pieces([getattr(held, name) for held in self.pieces], drawn.sources, drawn.pieces)
            for name in ("rows", "starts", "lengths")
        )
        keys = self._of_pieces(self._keys, drawn.sources, drawn.pieces)
        seeds = (hash64(self._seed, keys, starts, drawn.epochs, drawn.repeats) >> np.uint64(1)).astype(np.int64)
        return np.stack([drawn.sources, rows, starts, lengths, drawn.epochs, seeds]), sizes

    @staticmethod
    def _of_pieces(values: list[np.ndarray], sources: np.ndarray, pieces: np.ndarray) -> np.ndarray:
        if len(values) == 1:
            return values[0][pieces]
        found = np.empty(len(pieces), values[0].dtype)
        for index, mine in enumerate(values):
            here = sources == index
            found[here] = mine[pieces[here]]
        return found


class Order:
    """The order of a run: the same global steps for any number of ranks and workers, before and after a restart.

    Plans from lengths alone and keeps no state that counts: `next` takes one and gives one, and what a lane's window was is
    remembered only so as not to plan it for each of its steps.
    """

    def __init__(self, lanes: Sequence[Lane], how: Packing, seed: int) -> None:
        """Raises ConfigError or DataError for what cannot be ordered, naming lane, source and row."""
        if len({lane.name for lane in lanes}) != len(lanes) or not lanes:
            raise ConfigError(
                f"lanes {[lane.name for lane in lanes]}: there is one or more, and each has a name of its own"
            )
        self.how = how
        self._alternation = Blend([lane.rate for lane in lanes])
        self._lanes = [_Planned(lane, how, seed) for lane in lanes]
        facts = [f"{VERSION}\x1f{seed}\x1f{how!r}"]
        for lane in lanes:
            facts += [f"{lane.name}\x1f{lane.rate}", *(source.sha256 for source in lane.sources)]
        self.sha256 = sha256("\x1e".join(facts).encode()).hexdigest()
        "Of all that decides about a step."

    def pieces(self) -> dict[str, list[Pieces]]:
        """Lane -> what is drawn of each source, with the samples above the budget counted."""
        return {lane.name: lane.pieces for lane in self._lanes}

    def start(self) -> OrderState:
        """The state before step 0."""
        return OrderState(self.sha256, 0, tuple(lane.start() for lane in self._lanes))

    def next(self, state: OrderState) -> tuple[Step, OrderState]:
        """The step that the state stands before, and the state after it."""
        index, nth = (int(found[0]) for found in self._alternation.draws(np.array([state.step])))
        number, place = divmod(nth, self.how.window)
        lane = self._lanes[index]
        window = lane.window(number, state.lanes[index])
        chosen = window.steps[place]
        step = Step(state.step, lane.name, tuple(window.packs[pack] for pack in chosen), window.costs[chosen])
        lanes = list(state.lanes)
        if place + 1 == self.how.window:
            lanes[index] = window.after
        return step, replace(state, step=state.step + 1, lanes=tuple(lanes))

    def steps(self, state: OrderState) -> Iterator[tuple[Step, OrderState]]:
        """Every step from `state` on, each with the state after it; without an end."""
        while True:
            step, state = self.next(state)
            yield step, state

    def replace(self, lane: str, pack: Pack, place: int, attempt: int) -> Pack:
        """`pack`, of a step of `lane`, with another sample for the one at `place` that cannot be read: of the same source, not
        longer, and the same for whoever asks. `attempt` counts from 0, for one that cannot be read either.

        Raises DataError where no sample can take its place.
        """
        planned = next(known for known in self._lanes if known.name == lane)
        source, row, _, length, epoch, seed = pack.table[:, place].tolist()
        held = planned.pieces[source]
        piece, own_seed = planned.stand_ins[source].find(row, length, seed, attempt)
        table = pack.table.copy()
        table[:, place] = source, held.rows[piece], held.starts[piece], held.lengths[piece], epoch, own_seed
        return Pack(table)

    def save(self, state: OrderState) -> dict[str, Any]:
        """The state as JSON values."""
        return save(state)

    def restore(self, values: Any) -> OrderState:
        """The inverse of `save`. Raises DataError for a record that this order cannot have written, ConfigError for that of
        another order."""
        state = restore(values, self.sha256)
        damaged = "the state of the data order is damaged:"
        names = [lane.name for lane in self._lanes]
        if [lane.name for lane in state.lanes] != names:
            raise DataError(f"{damaged} its lanes are {[lane.name for lane in state.lanes]}, the order's {names}")
        counts = self._alternation.count(state.step)
        for lane, record, count in zip(self._lanes, state.lanes, counts, strict=True):
            if len(record.streams) != self.how.streams:
                raise DataError(
                    f"{damaged} lane {lane.name!r} has {len(record.streams)} streams, not {self.how.streams}"
                )
            for number, packer in enumerate(lane.packers(record)):
                if not packer.fits():
                    raise DataError(
                        f"{damaged} lane {lane.name!r}, stream {number}: packs that this order never leaves open"
                    )
            if (count < self.how.window) != (record == lane.start()):
                raise DataError(
                    f"{damaged} step {state.step} is {count} of lane {lane.name!r}, whose streams stand elsewhere"
                )
        return state
