"""Points -> overlapping cells small enough to compare within: k-means, split again where that saves more than it costs.

A point lives in the cell of its nearest centre and is a guest in those it lies close to the border of; the residents of a cell
are compared with each other and with its guests, guests never among themselves (they meet at home).

Why no pair is lost: let x live with centre c and y with c', and g = (|x - c'|^2 - |x - c|^2) / 2 be how far x is from changing
sides, h the same for y. Then g + h = (y - x).(c' - c) <= |y - x| |c' - c|, so of x and y one has at most half of that, and is
a guest where the other lives: with ``reach`` 1 every pair within the radius meets at each level. Directions are many, and a
difference hardly ever points straight across the border: a smaller ``reach`` allows fewer guests and costs little recall.
``most_probes`` bounds the cells a point enters; ``cut_short`` counts.

Two kinds of split. A cell of very many points is cut coarsely, and coarse cells that many points are guests across are joined
again: what is one round cloud, which every cut would fill with guests, stays together. A cloud, and whatever is smaller, is
cut finely, into three times the root of its number: in small cells a point is near the border of a small share of all.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from wfm.curation.arrays import array_module, to_numpy

MANY, COARSE = 65536, 256
"Points from which a coarse split is tried, and its cells."
FINE = 4096
"Cells of a fine split, at most."
FEW_GUESTS = 8
"A coarse split in which a point enters more cells than that, in the mean, cut through a cloud and is not taken."
CROWDED = 0.25
"Share of the points of two coarse cells that are guests of the other, from which the two are one."
_SAMPLE, _ITERATIONS = 64, 3  # points a centre is fitted to
_SAVED = 0.7  # a split must leave at most this share of the comparisons
_PRODUCTS = 1 << 21  # of points and centres at once


@dataclasses.dataclass(frozen=True)
class Cell:
    """Rows to compare: ``residents`` with ``guests``, and with each other."""

    residents: np.ndarray
    "int64 [R]."
    guests: np.ndarray
    "int64 [G]."
    within: bool = True
    "False: the residents are not compared with each other (they have met elsewhere)."

    def sides(self, fresh: np.ndarray | None) -> list[tuple[np.ndarray, np.ndarray, bool]]:
        """(left, right, whether left meets itself too), of which every row of left meets every row of right."""
        here, guests = self.residents, self.guests
        if fresh is None:
            return [(here, guests, self.within)]
        new, old = here[fresh[here]], here[~fresh[here]]
        other = np.concatenate([old, guests]) if self.within else guests
        return [(new, other, self.within), (old, guests[fresh[guests]], False)]

    def comparisons(self, fresh: np.ndarray | None) -> float:
        """How many pairs that is."""
        return sum(len(a) * (len(b) + within * (len(a) - 1) / 2) for a, b, within in self.sides(fresh))


class Cells:
    """Iterate for the cells; ``cut_short`` is complete afterwards.

    points float [N, d]; a row of zeros is in no cell. Pairs of points at most ``radius`` apart are to meet. A cell in which a
    point is compared with at most ``leaf`` others, in the mean, is not split. ``fresh`` bool [N]: only pairs with at least one
    fresh row are sought. The same seed and points give the same cells.
    """

    def __init__(
        self,
        points: np.ndarray,
        radius: float,
        *,
        leaf: int = 2048,
        reach: float = 1.0,
        most_probes: int = 512,
        seed: int = 0,
        block: int = 4096,
        device: str = "cpu",
        fresh: np.ndarray | None = None,
    ) -> None:
        self.points, self.leaf, self.most_probes = points, leaf, most_probes
        self.seed, self.block, self.fresh = seed, block, fresh
        self.margin = reach * 0.5 * radius
        self.cut_short = 0
        self._xp = array_module(device)

    def __iter__(self) -> Iterator[Cell]:
        """Depth first, so that few index arrays are alive at once."""
        none = np.zeros(0, np.int64)
        blocks = range(0, len(self.points), self.block)
        usable = np.concatenate(
            [none] + [a + np.flatnonzero(self.points[a : a + self.block].any(axis=1)) for a in blocks]
        )
        waiting = [Cell(usable, none)]
        while waiting:
            cell = waiting.pop()
            work = cell.comparisons(self.fresh)
            if not work:
                continue
            children = self._split(cell) if work > self.leaf * (len(cell.residents) + len(cell.guests)) else []
            if children and sum(child.comparisons(self.fresh) for child in children) < _SAVED * work:
                waiting.extend(children[::-1])
            else:  # small enough, or so dense that a split would cost more than it saves: compared block by block
                yield cell

    def _split(self, cell: Cell) -> list[Cell]:
        rows = np.concatenate([cell.residents, cell.guests])
        if len(rows) > MANY:
            home, visitor, visited, groups = _joined(*self._assign(rows, COARSE), COARSE)
            if len(visitor) < FEW_GUESTS * len(rows) and 2 * np.bincount(home, minlength=groups).max() < len(rows):
                return _children(cell, rows, home, visitor, visited, groups)
        count = max(2, min(len(cell.residents) // 32, round(3 * len(rows) ** 0.5), FINE))
        return _children(cell, rows, *self._assign(rows, count), count)

    def _assign(self, rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(nearest centre [n], positions of guests [G], the centre each is a guest of [G])."""
        centres = kmeans(self._xp, self.points, rows, count, self.seed)
        half = (centres * centres).sum(axis=1) / 2
        apart = np.sqrt(np.maximum(2 * (half[:, None] + half[None] - centres @ centres.T), 0))  # [K, K]
        allowed, weights = self._xp.asarray(self.margin * apart + 1e-6), self._xp.asarray(_beside(centres, -half).T)
        home, guests, cells = np.zeros(len(rows), np.int64), [], []
        step = max(256, _PRODUCTS // count)
        for start in range(0, len(rows), step):
            part = self.points[rows[start : start + step]].astype(np.float32)
            closeness = self._xp.asarray(_beside(part, 1)) @ weights  # [b, K]: (|x|^2 - |x - c|^2) / 2
            near, nearest = _borders(self._xp, closeness, allowed)
            home[start : start + step] = nearest
            visitor, visited = where(self._xp, near)
            probes = np.bincount(visitor, minlength=len(part))
            if probes.max() > self.most_probes:
                self.cut_short += int((probes > self.most_probes).sum())
                visitor, visited = _closest(to_numpy(closeness), visitor, visited, self.most_probes)
            other = visited != nearest[visitor]
            guests.append(start + visitor[other])
            cells.append(visited[other])
        return home, np.concatenate(guests), np.concatenate(cells)


def _borders(xp: Any, closeness: Any, allowed: Any) -> tuple[Any, np.ndarray]:
    """(bool [b, K]: at home in or near the border of a cell, int [b]: where a point is at home)."""
    nearest = xp.argmax(closeness, axis=1)
    best = xp.max(closeness, axis=1)
    return closeness >= best[:, None] - xp.take(allowed, nearest, axis=0), to_numpy(nearest)


def where(xp: Any, mask: Any) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of what is true in bool [n, m]; sought in one dimension, in which numpy is forty times faster."""
    return np.divmod(to_numpy(xp.nonzero(xp.reshape(mask, (-1,)))[0]), mask.shape[1])


def _closest(
    closeness: np.ndarray, visitor: np.ndarray, visited: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Of each visitor's cells, the ``most`` it is closest to; the first is its home."""
    order = np.lexsort((-closeness[visitor, visited], visitor))
    visitor, visited = visitor[order], visited[order]
    place = np.arange(len(visitor)) - np.searchsorted(visitor, visitor)
    return visitor[place < most], visited[place < most]


def _beside(x: np.ndarray, column: Any) -> np.ndarray:
    """[n, d] -> float32 [n, d + 1]: so that one matrix product adds a number a row."""
    wider = np.empty((len(x), x.shape[1] + 1), np.float32)
    wider[:, :-1], wider[:, -1] = x, column
    return wider


def _joined(
    home: np.ndarray, visitor: np.ndarray, visited: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Cells with crowded borders become one: the same three of the groups, and how many groups there are."""
    crowd = np.bincount(home[visitor] * count + visited, minlength=count * count).reshape(count, count)
    size = np.bincount(home, minlength=count)
    group = np.arange(count)
    for a, b in np.argwhere(np.triu(crowd + crowd.T) > CROWDED * (size[:, None] + size[None])):
        group[group == group[b]] = group[a]
    names, group = np.unique(group, return_inverse=True)
    home, visited = group[home], group[visited]
    other = home[visitor] != visited
    once = np.sort(visitor[other] * len(names) + visited[other])  # many times faster than numpy's unique
    visitor, visited = np.divmod(once[np.diff(once, prepend=-1) > 0], len(names))
    return home, visitor, visited, len(names)


def _children(
    cell: Cell, rows: np.ndarray, home: np.ndarray, visitor: np.ndarray, visited: np.ndarray, count: int
) -> list[Cell]:
    """The parts of a cell. What must meet in part k: residents at home there with everyone there (guests of the cell or of the
    part), and guests of the cell at home there with residents of the cell that are guests of the part."""
    here = len(cell.residents)  # `rows` are the residents, then the guests
    own = visitor < here
    at_home = _by(rows[:here], home[:here], count), _by(rows[here:], home[here:], count)
    visiting = (_by(rows[visitor[m]], visited[m], count) for m in (own, ~own))
    parts = []
    for residents, guests, residents_near, guests_near in zip(*at_home, *visiting, strict=True):
        met = [residents_near, guests, guests_near] if cell.within else [guests, guests_near]
        parts += [Cell(residents, np.concatenate(met), cell.within), Cell(residents_near, guests, within=False)]
    return parts


def _by(rows: np.ndarray, cells: np.ndarray, count: int) -> list[np.ndarray]:
    """Rows of each of ``count`` cells."""
    cells = cells.astype(np.uint16)  # which numpy sorts by digits
    order = np.argsort(cells, kind="stable")
    return np.split(rows[order], np.searchsorted(cells[order], np.arange(1, count)))


def kmeans(xp: Any, points: np.ndarray, rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    """k-means on at most 64 of ``rows`` a centre: float32 [K, d], the same for one seed; K is at most the number of rows.

    Few points a centre make cells of very unequal size, and large cells are those with many guests: at 8 points the cells
    of a round cloud held 2.7 times as many comparisons as at 117, at 64 and three iterations 1.5 times.
    """
    rng = np.random.default_rng(seed)
    count = min(count, len(rows))
    sample = points[np.sort(rng.choice(rows, min(len(rows), _SAMPLE * count), replace=False))].astype(np.float32)
    centres = sample[np.sort(rng.choice(len(sample), count, replace=False))]
    on_device = xp.asarray(_beside(sample, 1))
    for _ in range(_ITERATIONS):
        weights = xp.asarray(_beside(centres, -(centres * centres).sum(axis=1) / 2).T)
        step = max(256, _PRODUCTS // count)
        nearest = np.concatenate(
            [to_numpy(xp.argmax(on_device[a : a + step] @ weights, axis=1)) for a in range(0, len(sample), step)]
        )
        order = np.argsort(nearest, kind="stable")
        filled, starts, sizes = np.unique(nearest[order], return_index=True, return_counts=True)
        centres[filled] = np.add.reduceat(sample[order], starts, axis=0) / sizes[:, None]  # an empty one stays
    return centres
