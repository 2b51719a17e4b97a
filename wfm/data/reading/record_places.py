"""Where records lie, as arrays: a million of them are 56 MB, and no Python object is made for any."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from wfm.errors import DataError

_BLOCK = 512
_DIGEST = 32
_ROWS = 65536  # that are looked at at one time


class Hashes(Protocol):
    """uint8 [N, 32]: an array, or what reads one once a row is asked for."""

    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    def __getitem__(self, rows: Any) -> Any: ...


@dataclasses.dataclass(frozen=True)
class RecordPlaces:
    """Byte ranges of shards, each of one sample with its tar headers and padding. Raises `DataError` for arrays that cannot be
    such places, naming the first row that is wrong.

    The arrays may be memory-mapped; none is copied.
    """

    shards: Sequence[str]
    "Where each shard is: a path, or a file://, s3:// or gs:// address."
    shard: np.ndarray
    "Integers [N]: which of `shards`."
    offset: np.ndarray
    "int64 [N]: of the sample's first header in its shard [bytes]."
    size: np.ndarray
    "int64 [N]: of the range [bytes]."
    sha256: Hashes
    "uint8 [N, 32]: of the range. Of records on a local disk no row is asked for where there is `crc32c`."
    crc32c: np.ndarray | None = None
    "uint32 [N]: of the range, to check what is read of a local disk in a tenth of the time; without it sha256 is compared."

    def __post_init__(self) -> None:
        rows = len(self.shard)
        if self.offset.shape != (rows,) or self.size.shape != (rows,) or self.sha256.shape != (rows, _DIGEST):
            shapes = ", ".join(str(array.shape) for array in (self.shard, self.offset, self.size, self.sha256))
            raise DataError(f"places of records: arrays of [N], [N], [N] and [N, 32] are expected, these are {shapes}")
        kinds = "".join(array.dtype.kind for array in (self.shard, self.offset, self.size))
        if self.sha256.dtype != np.uint8 or kinds.strip("iu"):
            raise DataError("places of records: sha256 is of uint8, all else of integers; these are of other types")
        if self.crc32c is not None and (self.crc32c.shape != (rows,) or self.crc32c.dtype != np.uint32):
            raise DataError(
                f"places of records: crc32c is {self.crc32c.dtype} {self.crc32c.shape}, uint32 ({rows},) is expected"
            )
        for first in range(0, rows, _ROWS):
            self._look_at(slice(first, first + _ROWS))

    def _look_at(self, rows: slice) -> None:
        shard, offset, size = self.shard[rows], self.offset[rows], self.size[rows]
        lies = [
            (
                (shard < 0) | (shard >= len(self.shards)),
                shard,
                f"shard number {{}} is none of the {len(self.shards)} shards",
            ),
            ((offset < 0) | (offset & (_BLOCK - 1) != 0), offset, "offset {} is no block of a tar"),
            ((size <= 0) | (size & (_BLOCK - 1) != 0), size, "{} bytes are no whole blocks of a tar"),
            (offset > 2**62, offset, "offset {} lies beyond any file"),
            (size > 2**62, size, "{} bytes are more than any file has"),
        ]
        for wrong, values, words in lies:
            if wrong.any():
                row = int(np.argmax(wrong))
                number = int(values[row])
                raise DataError(f"places of records: row {rows.start + row} lies: {words.format(number)}")

    def __len__(self) -> int:
        return len(self.shard)

    def ends(self) -> np.ndarray:
        """int64 [shards]: how many bytes each shard needs to have, at least."""
        ends = np.zeros(len(self.shards), np.int64)
        for first in range(0, len(self), _ROWS):
            rows = slice(first, first + _ROWS)
            np.maximum.at(ends, self.shard[rows], self.offset[rows] + self.size[rows])
        return ends
