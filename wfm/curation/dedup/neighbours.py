"""Pairs of vectors that are nearly parallel, from different groups: all of them, or all that a bounded search finds.

`exact_pairs` multiplies everything with everything, block by block: right for some ten thousand vectors, and the oracle of
the tests. `clustered_pairs` compares within the overlapping `cells`, first in few directions (`projection`);
with ``reach`` 1 and nothing ``cut_short`` it finds the same pairs, but for one in 100,000. Given ``fresh`` rows it looks
only for pairs with at least one of them: with the pairs found before, that is all of them again.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from wfm.curation.arrays import array_module
from wfm.curation.dedup.cells import Cells, where
from wfm.curation.dedup.projection import project
from wfm.errors import DataError

_MARGIN = 1e-3  # of a float32 product (a GPU may use fewer bits)
_LENGTHS = 2e-3  # of the squared lengths of vectors stored as float16
_DENSE = 128  # one in so many near in few directions: it is faster to multiply the vectors whole
_ROWS = 4096

Found = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Pairs:
    """``first < second`` are rows of the vectors; sorted by (first, second)."""

    first: np.ndarray
    "int64 [P]."
    second: np.ndarray
    "int64 [P]."
    cosine: np.ndarray
    "float64 [P]."
    cut_short: int = 0
    "Vectors that would have had to probe more clusters than allowed."


def exact_pairs(
    vectors: np.ndarray,
    groups: np.ndarray,
    threshold: float,
    *,
    block: int = 4096,
    device: str = "cpu",
    fresh: np.ndarray | None = None,
) -> Pairs:
    """Every pair of rows of different ``groups`` with cosine >= threshold.

    vectors float [N, D] of length 1 (or 0: equal to nothing), groups int [N]. Workspace: block x block. fresh bool [N]: only
    pairs with at least one of these rows.
    """
    xp = array_module(device)
    rows = np.arange(len(vectors))
    if fresh is None or fresh.all():
        sides = [(rows[a : a + block], rows[a:]) for a in range(0, len(rows), block)]
    else:
        sides = [(new, rows) for new in np.split(rows[fresh], range(block, int(fresh.sum()), block))]
    found = [
        _between(xp, vectors, left, right[b : b + block], threshold)
        for left, right in sides
        for b in range(0, len(right), block)
    ]
    return _tidy(vectors, found, groups, threshold)


def clustered_pairs(
    vectors: np.ndarray,
    groups: np.ndarray,
    threshold: float,
    *,
    leaf: int = 2048,
    reach: float = 1.0,
    most_probes: int = 512,
    most_pairs: int = 0,
    seed: int = 0,
    block: int = 4096,
    device: str = "cpu",
    fresh: np.ndarray | None = None,
) -> Pairs:
    """The same, comparing within cells; see `cells` and `projection` for what is guaranteed.

    fresh bool [N]: only pairs with at least one of these rows. Raises `DataError` at more than ``most_pairs`` (0: any number).
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"):  # the products are small: more threads wait for each other more than they work
        search = _Search(array_module(device), vectors, threshold, seed, block)
        cells = Cells(
            search.points,
            search.radius,
            leaf=leaf,
            reach=reach,
            most_probes=most_probes,
            seed=seed,
            block=block,
            device=device,
            fresh=fresh,
        )
        found: list[Found] = []
        waiting = 0
        for cell in cells:
            for left, right in _tiles(cell.sides(fresh), block):
                found.append(search.between(left, right))
                waiting += len(found[-1][0])
                if most_pairs and waiting > 4 * most_pairs:
                    found = [_once(found, groups)]
                    waiting = len(found[0][0])
                    if waiting > most_pairs:
                        raise DataError(f"more than {most_pairs} pairs of {len(vectors)} are at {threshold} or above")
        return dataclasses.replace(_tidy(vectors, found, groups, threshold), cut_short=cells.cut_short)


def _tiles(sides: list[tuple[np.ndarray, np.ndarray, bool]], block: int) -> Iterator[Found]:
    """What is multiplied with what: at most ``block`` rows each; rows of a left side that meets itself do so once."""
    for here, there, within in sides:
        for a in range(0, len(here), block):
            right = np.concatenate([here[a:], there]) if within else there
            for b in range(0, len(right), block):
                yield here[a : a + block], right[b : b + block]


class _Search:
    """Pairs between two sets of rows: by distance in few directions, then by cosine where those are near."""

    def __init__(self, xp: Any, vectors: np.ndarray, threshold: float, seed: int, block: int) -> None:
        self.xp, self.vectors, self.threshold = xp, vectors, threshold
        points, share = project(vectors, seed, block)
        self.points = points
        self.radius = float(np.sqrt(share * (max(0.0, 2 - 2 * threshold) + _LENGTHS)))
        self.narrow = points is not vectors
        if self.narrow:  # x, 1, -|x|^2 / 2: with the last two of one side exchanged, a product is minus half |x - y|^2
            self.wider = np.ones((len(points), points.shape[1] + 2), np.float32)
            self.wider[:, :-2] = points
            self.wider[:, -1] = -0.5 * np.einsum("nd,nd->n", points, points)
            self.points = self.wider[:, :-2]

    def between(self, left: np.ndarray, right: np.ndarray) -> Found:
        """(row, row) at the threshold, or so little below that rounding may explain it."""
        if not self.narrow:
            return _between(self.xp, self.vectors, left, right, self.threshold)
        a, b = (np.take(self.wider, rows, axis=0) for rows in (left, right))  # three times as fast as by brackets
        a[:, [-2, -1]] = a[:, [-1, -2]]
        i, j = where(self.xp, self.xp.asarray(a) @ self.xp.asarray(b).T >= -0.5 * self.radius**2)
        if len(i) * _DENSE > len(left) * len(right):
            return _between(self.xp, self.vectors, left, right, self.threshold)
        first, second = left[i], right[j]
        near = _cosines(self.vectors, first, second, np.float32) >= self.threshold - _MARGIN
        near &= first != second
        return first[near], second[near]


def _between(xp: Any, vectors: np.ndarray, left: np.ndarray, right: np.ndarray, threshold: float) -> Found:
    """(row, row) of candidates between two sets of rows: at the threshold, or so little below that rounding may explain it."""
    a = xp.asarray(vectors[left].astype(np.float32))
    b = xp.asarray(vectors[right].astype(np.float32))
    i, j = where(xp, a @ b.T >= threshold - _MARGIN)
    first, second = left[i], right[j]
    other = first != second
    return first[other], second[other]


def _cosines(vectors: np.ndarray, first: np.ndarray, second: np.ndarray, dtype: type[np.floating]) -> np.ndarray:
    """[P], of a few thousand pairs at a time."""
    return np.concatenate(
        [np.zeros(0, dtype)]
        + [
            np.einsum("pd,pd->p", *(vectors[rows[k : k + _ROWS]].astype(dtype) for rows in (first, second)))
            for k in range(0, len(first), _ROWS)
        ]
    )


def _once(found: list[Found], groups: np.ndarray) -> Found:
    """Each pair of different groups once, first < second, sorted."""
    first, second = (np.concatenate([part[k] for part in found]) if found else np.zeros(0, np.int64) for k in range(2))
    low, high = np.minimum(first, second), np.maximum(first, second)
    wanted = (low < high) & (groups[low] != groups[high])
    low, high = np.divmod(np.unique(low[wanted] * max(len(groups), 1) + high[wanted]), max(len(groups), 1))
    return low, high


def _tidy(vectors: np.ndarray, found: list[Found], groups: np.ndarray, threshold: float) -> Pairs:
    """Each pair once, first < second, of different groups, sorted, and judged again in float64.

    A matrix product rounds differently for another shape of block, so the last digits of a cosine, and a decision at the very
    threshold, would depend on how many other clips there are. Here they depend on the two vectors alone.
    """
    low, high = _once(found, groups)
    cosine = _cosines(vectors, low, high, np.float64).round(9)
    near = cosine >= threshold
    return Pairs(low[near], high[near], cosine[near])
