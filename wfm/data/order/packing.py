"""Streaming best-fit: samples of one stream into packs under a token budget, a few packs open at a time."""

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

Draw = Annotated[int, Field(strict=True, ge=0, lt=2**48)]
"""The number of a draw in its stream."""
Members = tuple[Draw, ...]
"""A pack, by its draws, ascending."""


@dataclass(frozen=True)
class StreamRecord:
    """Where one stream stands: all that its future hangs on."""

    drawn: Draw = 0
    "Draws so far; the next has this number."
    open: tuple[Members, ...] = ()
    "Packs that more may go into, the fullest first."
    closed: tuple[Members, ...] = ()
    "Closed and not yet taken, oldest first: one at most, as a draw may close two."


class Packer:
    """One stream's packs.

    A sample goes into the open pack that it leaves least free (of equals, the one that changed last); where it fits none it
    opens a pack, and with `bins` of them open closes the fullest first. A full pack is closed at once. A pack is closed `age`
    draws after its first, whatever is free in it, so that no sample waits for more draws of its stream than that.
    """

    def __init__(self, record: StreamRecord, lengths: Sequence[int], budget: int, bins: int, age: int) -> None:
        """`lengths`: tokens of what lies in the open packs of `record`, in its order, and then of what lies in the closed."""
        self._budget, self._most, self._age = budget, bins, age
        self.drawn = record.drawn
        self._open = [list(pack) for pack in record.open]
        each = iter(lengths)
        self._free = [budget - sum(next(each) for _ in pack) for pack in self._open]
        self._expires = self._next_expiry()
        self.closed = [list(pack) for pack in record.closed]
        self._kept = [sum(next(each) for _ in pack) for pack in self.closed]

    def fits(self) -> bool:
        """Whether the packs of the record are such as this packer leaves."""
        ordered = self._free == sorted(self._free) and all(0 < free < self._budget for free in self._free)
        held = all(tokens <= self._budget for tokens in self._kept)
        return ordered and held and len(self._open) <= self._most and self.drawn <= self._expires

    def feed(self, lengths: Iterable[int], wanted: int) -> None:
        """Take draws in, the next first, of 1 to budget tokens each, until `wanted` packs are closed or there are no more."""
        opened, free, closed = self._open, self._free, self.closed
        if len(closed) >= wanted:
            return
        for length in lengths:
            if self.drawn >= self._expires:
                self._close(opened.index(min(opened)))
            place = bisect_left(free, length)
            if place < len(free):
                pack, left = opened.pop(place), free.pop(place) - length
                pack.append(self.drawn)
            else:
                if len(free) == self._most:
                    self._close(0)
                pack, left = [self.drawn], self._budget - length
            place = bisect_left(free, left)
            opened.insert(place, pack)
            free.insert(place, left)
            if len(opened) == 1:
                self._expires = pack[0] + self._age
            if not left:
                self._close(0)
            self.drawn += 1
            if len(closed) >= wanted:
                return

    def take(self, wanted: int) -> list[list[int]]:
        """The oldest `wanted` closed packs."""
        taken, self.closed = self.closed[:wanted], self.closed[wanted:]
        return taken

    def record(self) -> StreamRecord:
        """Where the stream stands now."""
        return StreamRecord(self.drawn, tuple(map(tuple, self._open)), tuple(map(tuple, self.closed)))

    def _close(self, place: int) -> None:
        self.closed.append(self._open.pop(place))
        del self._free[place]
        self._expires = self._next_expiry()

    def _next_expiry(self) -> float:
        return min(self._open)[0] + self._age if self._open else math.inf  # by their first draws, which differ
