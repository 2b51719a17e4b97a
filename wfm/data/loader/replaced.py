"""Samples that a run could not read and that others took the place of: each counted once, of all ranks and all attempts."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from wfm.errors import DataError

ROWS_AT_ONCE = 5_000
"""Rows in one piece of `Replaced.news`: what ranks tell each other at once is bounded."""


class Replaced:
    """Of each source the rows that were replaced, by reason, and how many samples the run had drawn.

    It is part of where a run stands. What one rank met is known to it alone until all have told their `news`; since these are
    sets, whatever order they are told in makes the same, and a sample that is met again, in another epoch or by another rank,
    is not counted again.
    """

    def __init__(self) -> None:
        self.drawn = 0
        "Samples of all global batches so far."
        self._reasons: dict[str, dict[int, str]] = {}
        self._untold: list[tuple[str, int, str]] = []

    def add(self, source: str, row: int, reason: str) -> bool:
        """Note a sample. Returns whether it is met for the first time."""
        before = self._reasons.get(source, {}).get(row)
        if self._know(source, row, reason):
            self._untold.append((source, row, reason))
        return before is None

    def __len__(self) -> int:
        return sum(map(len, self._reasons.values()))

    def __iter__(self) -> Iterator[tuple[str, int, str]]:
        """(source, row, reason) of each sample."""
        return ((source, row, why) for source, rows in self._reasons.items() for row, why in rows.items())

    def by_reason(self) -> Counter[tuple[str, str]]:
        """(source, reason) -> samples."""
        return Counter((source, reason) for source, _, reason in self)

    def news(self) -> list[Any]:
        """What this rank met since it told last, for `learn`, in pieces of bounded size."""
        told, self._untold = self._untold, []
        return [told[first : first + ROWS_AT_ONCE] for first in range(0, len(told), ROWS_AT_ONCE)]

    def learn(self, news: Sequence[Any]) -> None:
        """Take over a piece of what another rank met."""
        for source, row, reason in news:
            self._know(source, row, reason)

    def save(self) -> dict[str, Any]:
        """As JSON values, the same for the same set."""
        found: dict[str, dict[str, list[int]]] = {}
        for source, row, reason in sorted(self):
            found.setdefault(source, {}).setdefault(reason, []).append(row)
        return {"drawn": self.drawn, "rows": found}

    @classmethod
    def restored(cls, values: Any, lengths: Mapping[str, int]) -> "Replaced":
        """The inverse of `save`; None, of a checkpoint from before these were kept, is nothing. `lengths`: samples of each
        source. Raises DataError for what is no such record."""
        found = cls()
        if values is None:
            return found
        try:
            found.drawn = _natural(values["drawn"])
            for source, reasons in values["rows"].items():
                for reason, rows in reasons.items():
                    for row in rows:
                        if _natural(row) >= lengths[source]:
                            raise ValueError(f"row {row} of {source!r}, which has {lengths[source]} samples")
                        found._know(source, row, str(reason))
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise DataError(f"the state of the loader is damaged: the samples that were replaced: {error!r}") from None
        return found

    def _know(self, source: str, row: int, reason: str) -> bool:
        """Returns whether that changed anything. Of two reasons the first by alphabet stays, on whichever rank each was met."""
        rows = self._reasons.setdefault(source, {})
        if row in rows and rows[row] <= reason:
            return False
        rows[row] = reason
        return True


def _natural(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is not a whole number of 0 or more")
    return value
