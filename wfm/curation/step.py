"""What curation does to an item: a `Step` makes rows of it or skips it, a `Filter` keeps it or says why not.

A reason is ``code`` or ``code: words``. The code is stable (tables group by it, tests assert it), the words are for people.
Nothing leaves the flow without one: `run_step` gives every item that a step skips, and those are counted by code.

    rows, left = run_step(step, items)
    skipped_by_reason(left)   # {"static": 3, "text_overlay": 1}
"""

import dataclasses
from collections import Counter, deque
from collections.abc import Iterable
from typing import Any, Generic, Protocol, TypeVar

from wfm.records import Record

Item = TypeVar("Item")
Item_contra = TypeVar("Item_contra", contravariant=True)
Row = TypeVar("Row")
Row_co = TypeVar("Row_co", covariant=True)


class Skip(Exception):
    """Raised by a step for an item that cannot or need not be processed; not an error of ours."""

    def __init__(self, code: str, words: str = "") -> None:
        self.reason = f"{code}: {words}" if words else code
        super().__init__(self.reason)


class Step(Protocol[Item_contra, Row_co]):
    """One item in, any number of rows out. Raises `Skip` with a reason."""

    name: str

    def __call__(self, item: Item_contra, /) -> Iterable[Row_co]:
        """The rows of an item."""


class Filter(Protocol[Item_contra]):
    """Keeps an item or says why not."""

    name: str

    def reason(self, item: Item_contra, /) -> str:
        """Empty to keep the item, else ``code`` or ``code: words``."""


@dataclasses.dataclass(frozen=True)
class Left(Generic[Item]):
    """An item that was left out, and why."""

    item: Item
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class SkippedRow(Record):
    """One row per span or file that a step left out (table ``skips``). An empty span means the whole file."""

    step: str
    "Which step left it out."
    video_id: str
    "sha256 of the bytes of its video."
    source: str
    "Path or URL of the video, as given."
    start_seconds: float = 0.0
    "In the source [s]."
    end_seconds: float = 0.0
    "In the source [s]."
    reason: str
    "A stable code, then words."


def reason_code(reason: str) -> str:
    """The stable part of a reason: ``truncated: read 3 s`` -> ``truncated``; ``no_decoder:vvc: …`` -> ``no_decoder:vvc``."""
    return reason.split(": ", 1)[0].rstrip(":")


def run_step(step: Step[Item, Row], items: Iterable[Item], *, ahead: int = 0) -> tuple[list[Row], list[Left[Item]]]:
    """The rows of every item, and the items that were skipped, in order. Any error but `Skip` is ours and passes through.

    ``ahead``: so many items are begun before the rows of the first are read, for a step whose rows wait for another machine.
    """
    rows: list[Row] = []
    left: list[Left[Item]] = []
    begun: deque[tuple[Item, Iterable[Row] | Skip]] = deque()
    working = 0

    def finish() -> int:
        item, found = begun.popleft()
        try:
            if isinstance(found, Skip):
                raise found
            rows.extend(found)
        except Skip as skip:
            left.append(Left(item, skip.reason))
        return not isinstance(found, Skip)

    for item in items:
        try:
            begun.append((item, step(item)))
            working += 1
        except Skip as skip:
            begun.append((item, skip))
        while working > ahead:
            working -= finish()
    while begun:
        finish()
    return rows, left


def skipped_by_reason(left: Iterable[Left[Any] | SkippedRow]) -> dict[str, int]:
    """Counts by reason code, in code order: what a manifest's ``skipped`` holds."""
    return dict(sorted(Counter(reason_code(item.reason) for item in left).items()))
