"""Orders one after the other: a run that begins with images and short clips, and goes on with longer and larger ones.

Each phase is an order of its own and begins with new epochs: what lies half packed, or waits in a bucket, at the end of one is
not carried into the next, which may have no place for it. The state is the phase and its state.

The last phase does not end: its steps say how far a run is meant to go, and one that leaves batches out (a guard) takes as many
more of it. So no other batch is another than it was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import Any

from wfm.artifacts.schema import Count, Integer, Key
from wfm.data.order.batches import BatchOrder, BatchStep
from wfm.data.order.lanes import AnyOrder
from wfm.data.order.packs import Pack
from wfm.data.order.sources import Pieces
from wfm.data.order.state import VERSION, OrderState, read
from wfm.data.order.steps import Order, Step
from wfm.errors import ConfigError, DataError


@dataclass(frozen=True, eq=False)
class Phase:
    """An order for so many steps."""

    order: Order | BatchOrder
    steps: int
    "0: to the end, of the last phase, which goes on behind its steps too."


@dataclass(frozen=True)
class PhasesState:
    """Where phases stand."""

    order: Key
    "`Phases.sha256`: what the state belongs to."
    phase: Count
    state: dict[str, Any]
    "Of the order of the phase."
    schema_version: Integer = VERSION


@dataclass(frozen=True)
class Place:
    """Where phases stand, as `Phases` hands it out."""

    phase: int
    state: OrderState


class Phases(AnyOrder[Step | BatchStep]):
    """The order of a run in phases. Its steps are numbered through, and name their lanes "<phase>/<lane>", from phase 0 on."""

    def __init__(self, phases: Sequence[Phase]) -> None:
        """Raises ConfigError for phases without steps, but for the last, and for both modes in one run."""
        if not phases:
            raise ConfigError("phases: there is none")
        for number, phase in enumerate(phases):
            if phase.steps < 0 or (not phase.steps and number + 1 < len(phases)):
                raise ConfigError(f"phases[{number}].steps is {phase.steps}: a phase before the last has 1 or more")
        if len({phase.order.bucketed for phase in phases}) > 1:
            raise ConfigError("phases: some are of packs and some of batches of one shape; a run is of one of them")
        self.phases = tuple(phases)
        self.bucketed = phases[0].order.bucketed
        self._firsts = [sum(phase.steps for phase in phases[:number]) for number in range(len(phases))]
        said = [f"{VERSION}\x1fphases", *(f"{phase.steps}\x1f{phase.order.sha256}" for phase in phases)]
        self._sha256 = sha256("\x1e".join(said).encode()).hexdigest()

    @property
    def sha256(self) -> str:
        """Of all that decides about a step."""
        return self._sha256

    @property
    def sources(self) -> Mapping[str, tuple[str, ...]]:
        """Lane, as steps name it -> the names that `Pack.sources` are the indices of."""
        return {
            _name(number, lane): names
            for number, phase in enumerate(self.phases)
            for lane, names in phase.order.sources.items()
        }

    def pieces(self) -> dict[str, list[Pieces]]:
        """Lane, as steps name it -> what is drawn of each source."""
        return {
            _name(number, lane): pieces
            for number, phase in enumerate(self.phases)
            for lane, pieces in phase.order.pieces().items()
        }

    def start(self) -> Place:
        """The state before step 0."""
        return Place(0, self.phases[0].order.start())

    def next(self, state: Place) -> tuple[Step | BatchStep, Place]:
        """The step that the state stands before, and the state after it."""
        number, last = state.phase, len(self.phases) - 1
        phase = self.phases[number]
        step, after = phase.order.next(state.state)
        step = replace(step, number=self._firsts[number] + step.number, lane=_name(number, step.lane))
        if number == last or after.step != phase.steps:
            return step, Place(number, after)
        return step, Place(number + 1, self.phases[number + 1].order.start())

    def replace(self, lane: str, pack: Pack, place: int, attempt: int) -> Pack:
        """As of the order of the phase that `lane` names."""
        number, _, name = lane.partition("/")
        return self.phases[int(number)].order.replace(name, pack, place, attempt)

    def save(self, state: Place) -> dict[str, Any]:
        """The state as JSON values."""
        return asdict(PhasesState(self.sha256, state.phase, self.phases[state.phase].order.save(state.state)))

    def restore(self, values: Any) -> Place:
        """The inverse of `save`. Raises DataError for a record that these phases cannot have written, ConfigError for that of
        others."""
        where = "the state of the data order"
        found = read(PhasesState, values, self.sha256, where)
        if found.phase > len(self.phases):
            raise DataError(f"{where} is damaged: it is of phase {found.phase}, and there are {len(self.phases)}")
        number = min(found.phase, len(self.phases) - 1)  # those of before wrote the end as a phase of its own
        phase, state = self.phases[number], self.phases[number].order.restore(found.state)
        over = found.phase == len(self.phases)
        if state.step != phase.steps if over else number + 1 < len(self.phases) and state.step >= phase.steps:
            raise DataError(f"{where} is damaged: step {state.step} of phase {found.phase}, which has {phase.steps}")
        return Place(number, state)


def _name(number: int, lane: str) -> str:
    return f"{number}/{lane}"
