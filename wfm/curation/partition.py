"""Vectors -> overlapping cells small enough to compare within: spherical k-means, split again wherever a cell is large.

The number of cells grows with the number of vectors (about N / leaf), two levels for a million: so the work grows little
faster than N. A vector lives in the cell of its nearest centre and is a guest in those it lies close to the border of.

Why no pair is lost: let x live with centre c and y with c', and g = x.c - x.c' be how far x is from changing sides, h the same
for y. Then g + h = (y - x).(c' - c) <= |y - x| |c' - c|, so of x and y one has at most half of that, and is a guest
where the other lives: with ``reach`` 1 every pair of cosine >= threshold meets in a cell at each level. Directions are many,
and a difference hardly ever points straight across the border: a smaller ``reach`` allows fewer guests and costs little recall
(at 0.25 none of
4,051 pairs among a million vectors, tests/benchmarks/dedup_scale.py). ``most_probes`` bounds the cells a vector enters;
``cut_short`` counts. A dense round cloud cannot be split so: it is compared whole, which is quadratic in its own size.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from wfm.curation.arrays import array_module, to_numpy

FANOUT = 64
"Centres of one split, at most."
_ROUNDING = 2e-3  # of the squared lengths of vectors stored as float16
_SAMPLE = 256  # vectors a centre is fitted to


@dataclasses.dataclass(frozen=True)
class Cell:
    """Rows to compare: ``residents`` with each other and with ``guests``."""

    residents: np.ndarray
    "int64 [R]."
    guests: np.ndarray
    "int64 [G]."


class Partition:
    """Iterate for the cells; ``cut_short`` is complete afterwards.

    vectors float [N, D] of length 1 or 0 (the latter are in no cell). ``fresh`` bool [N]: only pairs with at least one fresh
    row are sought, cells without one are not split or given. The same seed and vectors give the same cells.
    """

    def __init__(
        self,
        vectors: np.ndarray,
        threshold: float,
        *,
        leaf: int = 512,
        reach: float = 1.0,
        most_probes: int = 64,
        iterations: int = 8,
        seed: int = 0,
        block: int = 4096,
        device: str = "cpu",
        fresh: np.ndarray | None = None,
    ) -> None:
        self.vectors, self.leaf, self.most_probes = vectors, leaf, most_probes
        self.iterations, self.seed, self.block, self.fresh = iterations, seed, block, fresh
        self.margin = reach * 0.5 * float(np.sqrt(max(0.0, 2 - 2 * threshold) + _ROUNDING))
        self.cut_short = 0
        self._xp = array_module(device)

    def __iter__(self) -> Iterator[Cell]:
        """Depth first, so that few index arrays are alive at once."""
        none = np.zeros(0, np.int64)
        blocks = range(0, len(self.vectors), self.block)
        usable = np.concatenate(
            [none] + [a + np.flatnonzero(self.vectors[a : a + self.block].any(axis=1)) for a in blocks]
        )
        waiting = [Cell(usable, none)]
        while waiting:
            cell = waiting.pop()
            rows = np.concatenate([cell.residents, cell.guests])
            if not len(cell.residents) or len(rows) < 2 or (self.fresh is not None and not self.fresh[rows].any()):
                continue
            children = self._split(rows) if len(rows) > self.leaf else []
            inside = len(cell.residents) * len(rows)
            if children and sum(len(c.residents) * (len(c.residents) + len(c.guests)) for c in children) < 0.7 * inside:
                waiting.extend(children[::-1])
            else:  # small enough, or so dense that a split would cost more than it saves: compared block by block
                yield cell

    def _split(self, rows: np.ndarray) -> list[Cell]:
        count = min(FANOUT, max(2, -(-len(rows) // self.leaf)))
        centres = kmeans(self._xp, self.vectors, rows, count, self.iterations, self.seed)
        nearest, guest, cluster = self._assign(rows, centres)
        order = np.argsort(nearest, kind="stable")
        bounds = np.searchsorted(nearest[order], np.arange(len(centres) + 1))
        by_cluster = np.argsort(cluster, kind="stable")
        guest, guest_bounds = guest[by_cluster], np.searchsorted(cluster[by_cluster], np.arange(len(centres) + 1))
        return [
            Cell(rows[order[bounds[c] : bounds[c + 1]]], rows[guest[guest_bounds[c] : guest_bounds[c + 1]]])
            for c in range(len(centres))
        ]

    def _assign(self, rows: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(nearest centre [n], positions of guests [G], the centre each is a guest of [G])."""
        apart = np.linalg.norm(centres[:, None] - centres[None], axis=2).astype(np.float32)  # [K, K]
        on_device = self._xp.asarray(centres).T
        nearest, guests, clusters = np.zeros(len(rows), np.int64), [], []
        for start in range(0, len(rows), self.block):
            part = rows[start : start + self.block]
            products = to_numpy(self._xp.asarray(self.vectors[part].astype(np.float32)) @ on_device)  # [b, K]
            home = products.argmax(axis=1)
            line = np.arange(len(part))
            gap = products[line, home][:, None] - products
            near = gap <= self.margin * apart[home] + 1e-6
            near[line, home] = False
            over = np.flatnonzero(near.sum(axis=1) >= self.most_probes)
            if len(over):
                self.cut_short += len(over)
                for i in over:  # the closest borders first
                    some = np.flatnonzero(near[i])
                    near[i, some[np.argsort(gap[i, some], kind="stable")[self.most_probes - 1 :]]] = False
            nearest[start : start + self.block] = home
            visitor, visited = np.nonzero(near)
            guests.append(start + visitor)
            clusters.append(visited)
        return nearest, np.concatenate(guests), np.concatenate(clusters)


def kmeans(xp: Any, vectors: np.ndarray, rows: np.ndarray, count: int, iterations: int, seed: int) -> np.ndarray:
    """Spherical k-means on at most 256 of ``rows`` a centre: float32 [K, D] of length 1, the same for one seed."""
    rng = np.random.default_rng(seed)
    count = min(count, len(rows))
    sample = vectors[np.sort(rng.choice(rows, min(len(rows), _SAMPLE * count), replace=False))].astype(np.float32)
    centres = sample[np.sort(rng.choice(len(sample), count, replace=False))]
    on_device = xp.asarray(sample)
    for _ in range(iterations):
        nearest = to_numpy(xp.argmax(on_device @ xp.asarray(centres).T, axis=1))
        order = np.argsort(nearest, kind="stable")
        filled, starts = np.unique(nearest[order], return_index=True)
        sums = np.add.reduceat(sample[order], starts, axis=0)
        length = np.linalg.norm(sums, axis=1, keepdims=True)
        centres[filled] = np.where(length > 0, sums / np.maximum(length, 1e-12), centres[filled])  # an empty one stays
    return centres
