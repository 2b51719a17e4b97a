"""Pairs of vectors that are nearly parallel, from different groups: all of them, or all that a bounded search finds.

`exact_pairs` multiplies everything with everything, block by block: right for some ten thousand vectors, and the oracle of
the tests. `clustered_pairs` compares within the overlapping cells of a `partition`, first in few directions (`projection`);
with ``reach`` 1 and nothing ``cut_short`` it finds the same pairs, but for one in a million. Given ``fresh`` rows it looks
only for pairs with at least one of them: with the pairs found before, that is all of them again.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from wfm.curation.arrays import array_module, to_numpy
from wfm.curation.partition import Partition
from wfm.curation.projection import project
from wfm.errors import DataError

_MARGIN = 1e-3  # of a float32 product (a GPU may use fewer bits)
_LENGTHS = 2e-3  # of the squared lengths of vectors stored as float16
_HALVES = 1e-3  # of a distance between points of length at most 1 stored as float16
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
    """The same, comparing within cells; see `partition` and `projection` for what is guaranteed.

    fresh bool [N]: only pairs with at least one of these rows. Raises `DataError` at more than ``most_pairs`` (0: any number).
    """
    points, share = project(vectors, seed, block)
    radius = float(np.sqrt(share * (max(0.0, 2 - 2 * threshold) + _LENGTHS))) + _HALVES
    cells = Partition(
        points,
        radius,
        leaf=leaf,
        reach=reach,
        most_probes=most_probes,
        seed=seed,
        block=block,
        device=device,
        fresh=fresh,
    )
    halves = np.concatenate(
        [np.zeros(0, np.float32), *(_halves(points[a : a + block]) for a in range(0, len(points), block))]
    )
    search = _Search(array_module(device), vectors, points, halves, threshold, radius)
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


def _halves(points: np.ndarray) -> np.ndarray:
    """-|x|^2 / 2 of each row."""
    return -0.5 * (points.astype(np.float32) ** 2).sum(axis=1)


def _tiles(sides: list[tuple[np.ndarray, np.ndarray, bool]], block: int) -> Iterator[Found]:
    """What is multiplied with what: at most ``block`` rows each; rows of a left side that meets itself do so once."""
    for here, there, within in sides:
        for a in range(0, len(here), block):
            right = np.concatenate([here[a:], there]) if within else there
            for b in range(0, len(right), block):
                yield here[a : a + block], right[b : b + block]


@dataclasses.dataclass(frozen=True)
class _Search:
    """Pairs between two sets of rows: by distance in few directions, then by cosine where those are near."""

    xp: Any
    vectors: np.ndarray
    points: np.ndarray
    halves: np.ndarray
    threshold: float
    radius: float

    def between(self, left: np.ndarray, right: np.ndarray) -> Found:
        """(row, row) at the threshold, or so little below that rounding may explain it."""
        if self.points.shape[1] == self.vectors.shape[1]:
            return _between(self.xp, self.vectors, left, right, self.threshold)
        a, b = self._beside(left, -1, -2), self._beside(right, -2, -1)
        minus_half_square = self.xp.asarray(a) @ self.xp.asarray(b).T  # of their distance, [L, R]
        i, j = _where(self.xp, minus_half_square >= -0.5 * self.radius**2)
        if len(i) * _DENSE > len(left) * len(right):
            return _between(self.xp, self.vectors, left, right, self.threshold)
        first, second = left[i], right[j]
        near = _cosines(self.vectors, first, second, np.float32) >= self.threshold - _MARGIN
        near &= first != second
        return first[near], second[near]

    def _beside(self, rows: np.ndarray, half: int, one: int) -> np.ndarray:
        """float32 [n, d + 2]: the points, and in the columns named -|x|^2 / 2 and 1: a product is then minus half |x - y|^2."""
        wider = np.empty((len(rows), self.points.shape[1] + 2), np.float32)
        wider[:, :-2] = self.points[rows]
        wider[:, half], wider[:, one] = self.halves[rows], 1
        return wider


def _between(xp: Any, vectors: np.ndarray, left: np.ndarray, right: np.ndarray, threshold: float) -> Found:
    """(row, row) of candidates between two sets of rows: at the threshold, or so little below that rounding may explain it."""
    a = xp.asarray(vectors[left].astype(np.float32))
    b = xp.asarray(vectors[right].astype(np.float32))
    i, j = _where(xp, a @ b.T >= threshold - _MARGIN)
    first, second = left[i], right[j]
    other = first != second
    return first[other], second[other]


def _where(xp: Any, mask: Any) -> Found:
    """Row and column of what is true; sought in one dimension, in which numpy is forty times faster where little is."""
    return np.divmod(to_numpy(xp.nonzero(xp.reshape(mask, (-1,)))[0]), mask.shape[1])


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
