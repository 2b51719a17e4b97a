"""Lanes side by side: which of them has step k, and the state of all. What a lane's steps are made of is the lane's own matter
(`steps`: packs under a token budget; `batches`: samples of one shape)."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol, TypeVar

from wfm.data.order.blending import Blend
from wfm.data.order.packs import Pack
from wfm.data.order.sources import Pieces, Source
from wfm.data.order.state import VERSION, LaneRecord, OrderState, restore, save
from wfm.errors import ConfigError, DataError


@dataclass(frozen=True, eq=False)
class Lane:
    """Sources that share packs, or batches. Images in a lane beside video's make steps of images and steps of video; in the
    same lane they make packs of both."""

    name: str
    sources: Sequence[Source]
    rate: int = 1
    "Of all steps, rate / (sum of the rates of the lanes) are of this lane, spread evenly."

    def __post_init__(self) -> None:
        if len({source.name for source in self.sources}) != len(self.sources) or not self.sources:
            raise ConfigError(
                f"lane {self.name!r}: sources {[s.name for s in self.sources]}: each wants a name of its own"
            )


class AnyStep(Protocol):
    """A global batch, whatever it is made of."""

    @property
    def number(self) -> int:
        """Global, from 0."""

    @property
    def lane(self) -> str:
        """Whose sources its packs speak of."""

    @property
    def packs(self) -> tuple[Pack, ...]:
        """All of it."""

    @property
    def sha256(self) -> str:
        """Of all that is in it, in its order."""

    def of_rank(self, rank: int, ranks: int) -> tuple[Pack, ...]:
        """What one of `ranks` data-parallel ranks has of it."""


StepT = TypeVar("StepT", bound=AnyStep, covariant=True)


class AnyOrder(Protocol[StepT]):
    """What a loader asks of an order, in either mode."""

    bucketed: bool
    "Whether a step is one batch of samples of one shape, shared out sample by sample; else packs, shared out whole."

    @property
    def sha256(self) -> str:
        """Of all that decides about a step."""

    @property
    def sources(self) -> Mapping[str, tuple[str, ...]]:
        """Lane, as steps name it -> the names that `Pack.sources` are the indices of."""

    def pieces(self) -> dict[str, list[Pieces]]:
        """Lane -> what is drawn of each of these sources."""

    def start(self) -> Any:
        """The state before step 0."""

    def next(self, state: Any) -> tuple[StepT, Any]:
        """The step that the state stands before, and the state after it."""

    def replace(self, lane: str, pack: Pack, place: int, attempt: int) -> Pack:
        """`pack`, of a step of `lane`, with another sample for the one at `place` that cannot be read."""

    def save(self, state: Any) -> dict[str, Any]:
        """The state as JSON values."""

    def restore(self, values: Any) -> Any:
        """The inverse of `save`."""


class Planned(Protocol[StepT]):
    """The order of one lane, without regard to those beside it."""

    @property
    def name(self) -> str:
        """The lane's."""

    @property
    def window(self) -> int:
        """Steps that are planned together; the state is kept at their starts."""

    @property
    def pieces(self) -> list[Pieces]:
        """What is drawn of each source."""

    def start(self) -> LaneRecord:
        """Where the lane stands before anything was drawn."""

    def step(self, number: int, nth: int, before: LaneRecord) -> tuple[StepT, LaneRecord]:
        """Step `nth` of the lane as global step `number`, and the record after its window; `before`: at the start of it."""

    def fault(self, record: LaneRecord) -> str | None:
        """Why the lane never leaves such a record; None where it may."""

    def replace(self, pack: Pack, place: int, attempt: int) -> Pack:
        """As of the order."""


class Lanes(AnyOrder[StepT]):
    """The order of a run: the same global steps for any number of ranks and workers, before and after a restart.

    Plans from lengths alone and keeps no state that counts: `next` takes one and gives one, and what a lane's window was is
    remembered only so as not to plan it for each of its steps.
    """

    def __init__(self, lanes: Sequence[Lane], planned: Sequence[Planned[StepT]], facts: str) -> None:
        """`facts`: what else than the lanes decides. Raises ConfigError for lanes that share a name, or none."""
        if len({lane.name for lane in lanes}) != len(lanes) or not lanes:
            raise ConfigError(
                f"lanes {[lane.name for lane in lanes]}: there is one or more, and each has a name of its own"
            )
        self._alternation = Blend([lane.rate for lane in lanes])
        self._lanes = list(planned)
        self._one_at_a_time = (
            threading.Lock()
        )  # windows and epochs are remembered, and loaders plan in threads of theirs
        said = [f"{VERSION}\x1f{facts}"]
        for lane in lanes:
            said += [f"{lane.name}\x1f{lane.rate}", *(source.sha256 for source in lane.sources)]
        self._sha256 = sha256("\x1e".join(said).encode()).hexdigest()
        self._sources = {lane.name: tuple(source.name for source in lane.sources) for lane in lanes}

    @property
    def sha256(self) -> str:
        """Of all that decides about a step."""
        return self._sha256

    @property
    def sources(self) -> Mapping[str, tuple[str, ...]]:
        """Lane -> the names that `Pack.sources` are the indices of."""
        return self._sources

    def pieces(self) -> dict[str, list[Pieces]]:
        """Lane -> what is drawn of each source, with the samples above the budget counted."""
        return {lane.name: lane.pieces for lane in self._lanes}

    def start(self) -> OrderState:
        """The state before step 0."""
        return OrderState(self.sha256, 0, tuple(lane.start() for lane in self._lanes))

    def next(self, state: OrderState) -> tuple[StepT, OrderState]:
        """The step that the state stands before, and the state after it."""
        index, nth = self._alternation.draw(state.step)
        with self._one_at_a_time:
            step, after = self._lanes[index].step(state.step, nth, state.lanes[index])
        lanes = list(state.lanes)
        if (nth + 1) % self._lanes[index].window == 0:
            lanes[index] = after
        return step, OrderState(state.order, state.step + 1, tuple(lanes))

    def steps(self, state: OrderState) -> Iterator[tuple[StepT, OrderState]]:
        """Every step from `state` on, each with the state after it; without an end."""
        while True:
            step, state = self.next(state)
            yield step, state

    def replace(self, lane: str, pack: Pack, place: int, attempt: int) -> Pack:
        """`pack`, of a step of `lane`, with another sample for the one at `place` that cannot be read: not longer (in a batch:
        of its shape), and the same for whoever asks. `attempt` counts from 0, for one that cannot be read either.

        Raises DataError where no sample can take its place.
        """
        return next(known for known in self._lanes if known.name == lane).replace(pack, place, attempt)

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
            if fault := lane.fault(record):
                raise DataError(f"{damaged} lane {lane.name!r}{fault}")
            if (count < lane.window) != (record == lane.start()):
                raise DataError(
                    f"{damaged} step {state.step} is {count} of lane {lane.name!r}, whose streams stand elsewhere"
                )
        return state
