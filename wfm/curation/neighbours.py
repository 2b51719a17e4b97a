"""Pairs of vectors that are nearly parallel, from different groups: all of them, or all that a bounded search finds.

`exact_pairs` multiplies everything with everything, block by block: right for some ten thousand vectors, and the oracle of
the tests. `clustered_pairs` compares within the overlapping cells of a `partition`, whose number grows with that of the
vectors; with ``reach`` 1 and nothing ``cut_short`` it finds the same pairs. Given ``fresh`` rows it looks only for pairs
with at least one of them: with the pairs found before, that is all of them again.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from wfm.curation.arrays import array_module, to_numpy
from wfm.curation.partition import Cell, Partition
from wfm.errors import DataError

_MARGIN = 1e-3  # of a float32 product (a GPU may use fewer bits)
_ROWS = 65536

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
    leaf: int = 512,
    reach: float = 1.0,
    most_probes: int = 64,
    most_pairs: int = 0,
    seed: int = 0,
    block: int = 4096,
    device: str = "cpu",
    fresh: np.ndarray | None = None,
) -> Pairs:
    """The same, comparing within cells of about ``leaf`` rows; see `partition` for what is guaranteed.

    fresh bool [N]: only pairs with at least one of these rows. Raises `DataError` at more than ``most_pairs`` (0: any number).
    """
    xp = array_module(device)
    cells = Partition(
        vectors, threshold, leaf=leaf, reach=reach, most_probes=most_probes, seed=seed, block=block, device=device,
        fresh=fresh,
    )  # fmt: skip
    found: list[Found] = []
    waiting = 0
    for cell in cells:
        for left, right in _sides(cell, fresh, block):
            for b in range(0, len(right), block):
                found.append(_between(xp, vectors, left, right[b : b + block], threshold))
                waiting += len(found[-1][0])
                if most_pairs and waiting > 4 * most_pairs:
                    found = [_once(found, groups)]
                    waiting = len(found[0][0])
                    if waiting > most_pairs:
                        raise DataError(f"more than {most_pairs} pairs of {len(vectors)} are at {threshold} or above")
    return dataclasses.replace(_tidy(vectors, found, groups, threshold), cut_short=cells.cut_short)


def _sides(cell: Cell, fresh: np.ndarray | None, block: int) -> Iterator[Found]:
    """What is multiplied with what in a cell: left sides of at most ``block`` rows; residents meet each other once."""
    here, guests = cell.residents, cell.guests
    if fresh is None:
        for a in range(0, len(here), block):
            yield here[a : a + block], np.concatenate([here[a:], guests])
        return
    new, old, new_guests = here[fresh[here]], here[~fresh[here]], guests[fresh[guests]]
    for a in range(0, len(new), block):
        yield new[a : a + block], np.concatenate([new[a:], old, guests])
    for a in range(0, len(old), block):
        yield old[a : a + block], new_guests


def _between(xp: Any, vectors: np.ndarray, left: np.ndarray, right: np.ndarray, threshold: float) -> Found:
    """(row, row) of candidates between two sets of rows: at the threshold, or so little below that rounding may explain it."""
    a = xp.asarray(vectors[left].astype(np.float32))
    b = xp.asarray(vectors[right].astype(np.float32))
    cosines = a @ b.T
    i, j = xp.nonzero(cosines >= threshold - _MARGIN)
    first, second = left[to_numpy(i)], right[to_numpy(j)]
    other = first != second
    return first[other], second[other]


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
    cosine = np.concatenate(
        [np.zeros(0)]
        + [
            (vectors[low[k : k + _ROWS]].astype(np.float64) * vectors[high[k : k + _ROWS]].astype(np.float64)).sum(
                axis=1
            )
            for k in range(0, len(low), _ROWS)
        ]
    ).round(9)
    near = cosine >= threshold
    return Pairs(low[near], high[near], cosine[near])
