"""Which sample takes the place of one that cannot be read: by rule, so that every rank and every restart finds the same."""

from functools import cached_property

import numpy as np

from wfm.data.order.columns import kept
from wfm.data.order.hashing import below, hash64
from wfm.data.order.sources import Pieces
from wfm.errors import DataError

NEAREST = 64
"""Of the pieces that fit, so many of the longest are drawn from: the pack stays as full as it can."""


class StandIns:
    """Pieces of one source by length, those of weight 0 left out."""

    def __init__(self, name: str, pieces: Pieces) -> None:
        self._name, self._pieces = name, pieces

    @cached_property
    def _by_length(self) -> np.ndarray:
        pieces = self._pieces
        drawn = np.arange(len(pieces.rows)) if pieces.weights is None else np.flatnonzero(pieces.weights)
        return kept(drawn[np.argsort(pieces.lengths[drawn], kind="stable")])

    @cached_property
    def _lengths(self) -> np.ndarray:
        return kept(self._pieces.lengths[self._by_length])

    def find(self, row: int, length: int, seed: int, attempt: int) -> tuple[int, int]:
        """The piece for `attempt` (0, 1, ...) to replace a sample of `row` and `length` that has `seed`, and its own seed.

        It is of another row, and not longer. Raises DataError where there is none.
        """
        end = int(np.searchsorted(self._lengths, length, side="right"))
        fitting = self._by_length[:end]
        others = fitting[self._pieces.rows[fitting] != row][-NEAREST:]
        if not len(others):
            raise DataError(
                f"source {self._name!r}: row {row} cannot be read, and no other of its samples is {length} tokens or less: "
                "nothing can take its place; mend or leave out the sample"
            )
        drawn = hash64(seed, attempt)
        place = int(below(drawn, np.array([len(others)], np.uint64))[0])
        return int(others[place]), int(hash64(drawn)[0] >> np.uint64(1))
