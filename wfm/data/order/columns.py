"""Columns of a number a sample that take no memory of the process, however many samples there are: what follows from others is
worked out where it is looked at, what has to be kept lies in a file without a name, whose pages the system may take back.
"""

import math
import os
import tempfile
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

BLOCK = 2**16
"""Rows that are looked at at one time."""
_LEAST_BYTES = 2**20
"""What is smaller is an array like any other."""


class Column(Protocol):
    """Numbers by row: an array [N], or what is asked as one."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the numbers."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any) -> Any:
        """As of an array: a slice, integers or bool [N]."""


class Products:
    """int64 [N]: of each row of integers [N, k], k of 1 or more, the product."""

    dtype = np.dtype(np.int64)

    def __init__(self, of: np.ndarray) -> None:
        self._of = of

    def __len__(self) -> int:
        return len(self._of)

    def __getitem__(self, rows: Any) -> Any:
        first, *more = np.moveaxis(self._of[rows], -1, 0)  # side by side: a tenth of the time of `prod(-1)`
        found = first.astype(np.int64)
        for side in more:
            found = found * side
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)


class Places:
    """int64 [N]: 0 to N - 1."""

    dtype = np.dtype(np.int64)

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, rows: Any) -> Any:
        if isinstance(rows, slice):
            return np.arange(*rows.indices(self._count))
        found = np.asarray(rows)
        if found.dtype == bool:
            return np.flatnonzero(found)
        if found.size and not (-self._count <= found.min() and found.max() < self._count):
            raise IndexError(f"row {found.min()} or {found.max()} is none of {self._count}")
        return np.where(found < 0, found + self._count, found)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)


def blocks(count: int) -> Iterator[slice]:
    """All of so many rows, a piece that a cache of a processor holds at a time."""
    return (slice(first, min(first + BLOCK, count)) for first in range(0, count, BLOCK))


def total(column: Column) -> int:
    """The sum."""
    return sum(int(column[rows].sum()) for rows in blocks(len(column)))


def largest(column: Column) -> int:
    """Of one row or more."""
    return max(int(column[rows].max()) for rows in blocks(len(column)))


def any_of(wrong: Iterator[np.ndarray]) -> bool:
    """Whether one holds of any block."""
    return any(bool(block.any()) for block in wrong)


def zeros(count: int) -> np.ndarray:
    """int64 [N] of zeros, which are one number; read only."""
    return np.broadcast_to(np.int64(0), count)


def unnamed(shape: int | tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array to be filled, in a file without a name (of `tempfile`'s folder). Raises OSError where there is no room: a page
    that finds none later would end the process."""
    size = math.prod(shape if isinstance(shape, tuple) else (shape,)) * np.dtype(dtype).itemsize
    if size < _LEAST_BYTES:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile() as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        return np.asarray(np.memmap(file, dtype, "r+", shape=shape))


def kept(column: Column | np.ndarray) -> np.ndarray:
    """The same numbers in a file without a name; read only."""
    found = unnamed(len(column), column.dtype)
    for rows in blocks(len(column)):
        found[rows] = column[rows]
    found.flags.writeable = False
    return found


def has_twice(keys: np.ndarray) -> bool:
    """Whether two rows have the same."""
    in_order = unnamed(len(keys), keys.dtype)
    in_order[:] = keys
    in_order.sort()
    firsts = (slice(rows.start, rows.stop + 1) for rows in blocks(max(len(keys) - 1, 0)))
    return any_of(np.diff(in_order[rows]) == 0 for rows in firsts)
