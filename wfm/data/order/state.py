"""The record of where an order stands: JSON, checked when it is read."""

from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeVar

from wfm.artifacts.schema import Count, Integer, Key, Short, fit
from wfm.data.order.packing import StreamRecord
from wfm.errors import ConfigError, DataError

VERSION = 1
"""Of the order: what changes a single draw, pack or step must change it, so that an old state is refused."""


@dataclass(frozen=True)
class LaneRecord:
    """Where a lane stood at the first step of the window that it is in."""

    name: Short
    streams: tuple[StreamRecord, ...]


@dataclass(frozen=True)
class OrderState:
    """Where an order stands: `step` is the next global step."""

    order: Key
    "`Order.sha256`: what the state belongs to."
    step: Count
    lanes: tuple[LaneRecord, ...]
    schema_version: Integer = VERSION


def save(state: OrderState) -> dict[str, Any]:
    """As JSON values, for `wfm.artifacts.schema.encode`."""
    return asdict(state)


def restore(values: Any, order: str, where: str = "the state of the data order") -> OrderState:
    """The inverse of `save`, for the order with this sha256.

    Raises DataError for what is no such record, ConfigError for that of another version or another order.
    """
    state = read(OrderState, values, order, where)
    for lane in state.lanes:
        for number, stream in enumerate(lane.streams):
            if fault := _fault(stream):
                raise DataError(f"{where} is damaged: lane {lane.name!r}, stream {number}: {fault}")
    return state


class Ours(Protocol):
    """A state that says what it belongs to."""

    @property
    def order(self) -> str:
        """The order's sha256."""


OursT = TypeVar("OursT", bound=Ours)


def read(kind: type[OursT], values: Any, order: str, where: str) -> OursT:
    """JSON values as a state of `kind`. Raises as `restore`."""
    version = values.get("schema_version") if isinstance(values, dict) else None
    if version != VERSION:
        raise ConfigError(
            f"{where} has version {version!r}, this wfm has {VERSION}: it would go on with other samples; start the run anew, "
            "or go on with the wfm that it began with"
        )
    state = fit(kind, values, where)
    if state.order != order:
        raise ConfigError(
            f"{where} is of the order {state.order[:12]}, and this run's is {order[:12]}: samples, lengths, weights, rates, "
            "seed or packing have changed, and it would repeat or lose samples; start a new run, or restore what has changed"
        )
    return state


def _fault(stream: StreamRecord) -> str | None:
    packs = (*stream.open, *stream.closed)
    members = [member for pack in packs for member in pack]
    if len(stream.closed) > 1:
        return f"{len(stream.closed)} packs are closed and not taken, one at most can be"
    if not all(packs):
        return "a pack is empty"
    if any(list(pack) != sorted(pack) for pack in packs) or len(set(members)) != len(members):
        return "a draw stands twice, or before an earlier one"
    if members and max(members) >= stream.drawn:
        return f"draw {max(members)} is in a pack, and only {stream.drawn} were drawn"
    return None
