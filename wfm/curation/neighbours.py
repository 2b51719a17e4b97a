"""Pairs of vectors that are nearly parallel, from different groups: all of them, or all that a bounded search finds.

`exact_pairs` multiplies everything with everything, block by block: right for some hundred thousand vectors, and the
oracle of the tests. `clustered_pairs` compares within k-means clusters, K ~ sqrt(N), with several clusters probed a
vector, so that pairs across a border are not lost: angles obey the triangle inequality, so a vector that probes every
cluster whose centre is at most 2 arccos(threshold) further than its nearest one meets all its neighbours. ``most_probes``
bounds the cost; how many vectors it cut short is returned, and 0 of them means that nothing was lost.
"""

import dataclasses
from typing import Any

import numpy as np

from wfm.curation.arrays import array_module, to_numpy

_ROUNDING = 1e-6  # radians
_MARGIN = 1e-3  # of a float32 product (a GPU may use fewer bits)
_ROWS = 65536


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
    vectors: np.ndarray, groups: np.ndarray, threshold: float, *, block: int = 4096, device: str = "cpu"
) -> Pairs:
    """Every pair of rows of different ``groups`` with cosine >= threshold.

    vectors float [N, D] of length 1 (or 0: equal to nothing), groups int [N]. Workspace: block x block.
    """
    xp = array_module(device)
    rows = np.arange(len(vectors))
    found = [
        _between(xp, vectors, rows[a : a + block], rows[b : b + block], threshold)
        for a in range(0, len(rows), block)
        for b in range(a, len(rows), block)
    ]
    return _tidy(vectors, found, groups, threshold)


def clustered_pairs(
    vectors: np.ndarray,
    groups: np.ndarray,
    threshold: float,
    *,
    clusters: int = 0,
    most_probes: int = 64,
    iterations: int = 10,
    seed: int = 0,
    block: int = 4096,
    device: str = "cpu",
) -> Pairs:
    """The same, comparing within clusters only; ``clusters`` 0 means sqrt(N). See the module for what is guaranteed."""
    xp = array_module(device)
    centres = _centres(xp, vectors, clusters or max(1, round(np.sqrt(len(vectors)))), iterations, seed)
    nearest, probed, cut_short = _probes(xp, vectors, centres, threshold, most_probes, block)
    found = []
    order = np.argsort(nearest, kind="stable")
    bounds = np.searchsorted(nearest[order], np.arange(len(centres) + 1))
    visitors, visited = np.nonzero(probed)
    by_cluster = np.argsort(visited, kind="stable")
    visitors, visitor_bounds = visitors[by_cluster], np.searchsorted(visited[by_cluster], np.arange(len(centres) + 1))
    for cluster in range(len(centres)):
        members = order[bounds[cluster] : bounds[cluster + 1]]
        guests = visitors[visitor_bounds[cluster] : visitor_bounds[cluster + 1]]
        for a in range(0, len(members), block):
            for b in range(0, len(guests), block):
                found.append(_between(xp, vectors, members[a : a + block], guests[b : b + block], threshold))
    return dataclasses.replace(_tidy(vectors, found, groups, threshold), cut_short=cut_short)


Found = tuple[np.ndarray, np.ndarray]


def _between(xp: Any, vectors: np.ndarray, left: np.ndarray, right: np.ndarray, threshold: float) -> Found:
    """(row, row) of candidates between two sets of rows: at the threshold, or so little below that rounding may explain it."""
    a = xp.asarray(vectors[left].astype(np.float32))
    b = xp.asarray(vectors[right].astype(np.float32))
    cosines = a @ b.T
    i, j = xp.nonzero(cosines >= threshold - _MARGIN)
    return left[to_numpy(i)], right[to_numpy(j)]


def _tidy(vectors: np.ndarray, found: list[Found], groups: np.ndarray, threshold: float) -> Pairs:
    """Each pair once, first < second, of different groups, sorted, and judged again in float64.

    A matrix product rounds differently for another shape of block, so the last digits of a cosine, and a decision at the very
    threshold, would depend on how many other clips there are. Here they depend on the two vectors alone.
    """
    first, second = (np.concatenate([part[k] for part in found]) if found else np.zeros(0, np.int64) for k in range(2))
    low, high = np.minimum(first, second), np.maximum(first, second)
    wanted = (low < high) & (groups[low] != groups[high])
    once = np.unique(low[wanted] * max(len(groups), 1) + high[wanted])
    low, high = np.divmod(once, max(len(groups), 1))
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


def _centres(xp: Any, vectors: np.ndarray, count: int, iterations: int, seed: int) -> np.ndarray:
    """Spherical k-means on a sample of at most 256 vectors a cluster: float32 [K, D] of length 1, the same for one seed."""
    rng = np.random.default_rng(seed)
    usable = np.flatnonzero(np.abs(vectors).max(axis=1) > 0) if len(vectors) else np.zeros(0, np.int64)
    if len(usable) == 0:
        return np.zeros((1, vectors.shape[1]), np.float32)
    count = min(count, len(usable))
    chosen = np.sort(rng.permutation(usable)[: 256 * count])
    sample = vectors[chosen].astype(np.float32)
    centres = sample[np.sort(rng.permutation(len(sample))[:count])]
    on_device = xp.asarray(sample)
    for _ in range(iterations):
        nearest = to_numpy(xp.argmax(on_device @ xp.asarray(centres).T, axis=1))
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, sample)
        length = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(length > 0, sums / np.maximum(length, 1e-12), centres)  # an empty cluster stays where it is
    return centres


def _probes(
    xp: Any, vectors: np.ndarray, centres: np.ndarray, threshold: float, most: int, block: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """(nearest cluster [N], clusters to probe bool [N, K], how many rows had to leave some out)."""
    margin = 2 * np.arccos(np.clip(threshold, -1, 1)) + _ROUNDING
    nearest = np.zeros(len(vectors), np.int64)
    probed = np.zeros((len(vectors), len(centres)), bool)
    cut_short = 0
    for start in range(0, len(vectors), block):
        rows = slice(start, start + block)
        cosines = to_numpy(xp.asarray(vectors[rows].astype(np.float32)) @ xp.asarray(centres).T)
        angles = np.arccos(np.clip(cosines, -1, 1))
        nearest[rows] = angles.argmin(axis=1)
        near = angles <= angles.min(axis=1, keepdims=True) + margin
        over = near.sum(axis=1) > most
        if over.any():
            limit = np.partition(angles[over], most - 1, axis=1)[:, most - 1 : most]
            near[over] &= angles[over] <= limit
            cut_short += int(over.sum())
        probed[rows] = near
    return nearest, probed, cut_short
