"""Where records lie, as arrays: a million of them are 52 MB, and no Python object is made for any."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from wfm.errors import DataError

_BLOCK = 512
_DIGEST = 32


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
    sha256: np.ndarray
    "uint8 [N, 32]: of the range."

    def __post_init__(self) -> None:
        rows = len(self.shard)
        if self.offset.shape != (rows,) or self.size.shape != (rows,) or self.sha256.shape != (rows, _DIGEST):
            shapes = ", ".join(str(array.shape) for array in (self.shard, self.offset, self.size, self.sha256))
            raise DataError(f"places of records: arrays of [N], [N], [N] and [N, 32] are expected, these are {shapes}")
        kinds = "".join(array.dtype.kind for array in (self.shard, self.offset, self.size))
        if self.sha256.dtype != np.uint8 or kinds.strip("iu"):
            raise DataError("places of records: sha256 is of uint8, all else of integers; these are of other types")
        wrong_shard = (self.shard < 0) | (self.shard >= len(self.shards))
        self._refuse(wrong_shard, self.shard, f"shard number {{}} is none of the {len(self.shards)} shards")
        self._refuse((self.offset < 0) | (self.offset % _BLOCK != 0), self.offset, "offset {} is no block of a tar")
        self._refuse((self.size <= 0) | (self.size % _BLOCK != 0), self.size, "{} bytes are no whole blocks of a tar")
        self._refuse(self.offset > 2**62, self.offset, "offset {} lies beyond any file")
        self._refuse(self.size > 2**62, self.size, "{} bytes are more than any file has")

    def _refuse(self, wrong: np.ndarray, values: np.ndarray, words: str) -> None:
        if wrong.any():
            row = int(np.argmax(wrong))
            raise DataError(f"places of records: row {row} lies: {words.format(int(values[row]))}")

    @classmethod
    def of_table(cls, root: str, table: Any) -> Self:
        """Of an Arrow table with the columns ``shard`` (path below `root`), ``offset``, ``bytes`` and ``sha256`` (hex)."""
        import pyarrow as pa
        import pyarrow.compute as pc

        table = table.combine_chunks()
        names = pc.unique(table["shard"]).sort() if len(table) else pa.array([], pa.string())
        paths = names.to_pylist()
        for path in paths:
            if path is None or path.startswith("/") or ".." in path.split("/") or "\\" in path:
                raise DataError(f"table of records: the shard {path!r} is no path below {root}")
        for name in ("offset", "bytes", "sha256"):
            if table[name].null_count:
                raise DataError(f"table of records: column {name!r} has {table[name].null_count} empty fields")
        return cls(
            shards=[f"{root.rstrip('/')}/{path}" for path in paths],
            shard=pc.index_in(table["shard"], names).cast(pa.int32()).to_numpy(),
            offset=table["offset"].cast(pa.int64()).to_numpy(),
            size=table["bytes"].cast(pa.int64()).to_numpy(),
            sha256=_digests(table["sha256"]),
        )

    def __len__(self) -> int:
        return len(self.shard)

    def ends(self) -> np.ndarray:
        """int64 [shards]: how many bytes each shard needs to have, at least."""
        ends = np.zeros(len(self.shards), np.int64)
        np.maximum.at(ends, self.shard, self.offset + self.size)
        return ends


def _digests(column: Any) -> np.ndarray:
    """uint8 [N, 32] of hex strings."""
    found = np.empty((len(column), _DIGEST), np.uint8)
    at = 0
    for chunk in column.chunks:
        for piece in (chunk[start : start + 65536] for start in range(0, len(chunk), 65536)):
            try:
                data = bytes.fromhex("".join(piece.to_pylist()))
            except ValueError:
                data = b""
            if len(data) != _DIGEST * len(piece):
                wrong = next((text for text in piece.to_pylist() if len(text) != 2 * _DIGEST), piece[0].as_py())
                raise DataError(f"table of records: sha256 {wrong!r} (or one near it) is not 64 hex digits")
            found[at : at + len(piece)] = np.frombuffer(data, np.uint8).reshape(-1, _DIGEST)
            at += len(piece)
    return found
