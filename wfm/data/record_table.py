"""The table of lengths of encoded records (`wfm.data.records`) and the shards it speaks of: of an artifact, whose parts' tables
are read as one, or of a folder that ``wfm artifacts pull`` made.

The rows are written to a file without a name, column by column, and mapped from there: what a million of them take in memory is
what was looked at last, and the system may take it back.
"""

import mmap
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wfm.artifacts import tables
from wfm.artifacts.address import below
from wfm.data.order.sources import sample_keys
from wfm.data.records import LENGTHS, ORDER_KEY
from wfm.errors import DataError

if TYPE_CHECKING:
    from wfm.artifacts import Artifact

OPENERS = 16
"""Parts that are opened at once, and whose tables are read at once."""
_FIXED = (pa.int32(), pa.uint32(), pa.int64(), pa.uint64(), pa.float64(), pa.binary(32))
_NUMBERS = [field for field in LENGTHS if field.type in _FIXED]


class RecordPlace(Protocol):
    """Where records lie."""

    store: Any
    "The `Store` whose credentials the shards are read with; None: those of the environment."

    def tables(self) -> Iterator[pa.Table]:
        """The table of lengths in pieces."""

    def address(self, shard: str) -> str:
        """A path or an address, by the path that the table says."""

    def size(self, shard: str) -> int:
        """How many bytes it has; -1 where there is no such shard."""


class _OfArtifact:
    """An artifact's, in its store."""

    def __init__(self, artifact: "Artifact") -> None:
        self._artifact, self.store = artifact, artifact.store
        # each waits for its manifest: thousands of parts one after the other take minutes on a bucket
        with ThreadPoolExecutor(OPENERS, thread_name_prefix="parts") as threads:
            entries = list(artifact.iterate_parts())
            opened = threads.map(artifact.open_part, entries)
            self._parts = dict(zip((entry.name for entry in entries), opened, strict=True))
        self._sizes: dict[str, int] = {}
        self._urls: dict[str, str] = {}
        for one in (artifact, *self._parts.values()):
            for file in one.files("shards/"):
                self._sizes[file.path], self._urls[file.path] = file.size, one.url

    def __str__(self) -> str:
        return f"{self._artifact.kind} {self._artifact.key[:12]}"

    def tables(self) -> Iterator[pa.Table]:
        for part, table in self._artifact.iterate_table("samples"):
            if part:
                break  # from here on by several threads
            yield table
        parts = list(self._parts.values())
        with ThreadPoolExecutor(OPENERS, thread_name_prefix="parts") as threads:
            for first in range(0, len(parts), OPENERS):
                for found in threads.map(_tables_of, parts[first : first + OPENERS]):
                    yield from found

    def address(self, shard: str) -> str:
        return f"{self._urls[shard]}/{shard}"

    def size(self, shard: str) -> int:
        return self._sizes.get(shard, -1)


def _tables_of(part: "Artifact") -> list[pa.Table]:
    return [table for _, table in part.iterate_table("samples")]


class _OfFolder:
    """A folder's."""

    store = None

    def __init__(self, root: Path) -> None:
        self._root = root

    def __str__(self) -> str:
        return str(self._root)

    def tables(self) -> Iterator[pa.Table]:
        whole = self._root / "samples.parquet"
        for piece in sorted(whole.glob("*.parquet")) if whole.is_dir() else [whole] if whole.is_file() else []:
            yield tables.read(piece, None, str(piece))

    def address(self, shard: str) -> str:
        return str(below(self._root, shard))

    def size(self, shard: str) -> int:
        found = below(self._root, shard)
        return found.stat().st_size if found.is_file() else -1


def place_of(source: "Artifact | Path") -> RecordPlace:
    """Of an artifact or a pulled folder."""
    return _OfFolder(source) if isinstance(source, Path) else _OfArtifact(source)


def mapped(place: RecordPlace, split: str) -> pa.Table:
    """The rows of a split, in the order of the parts and of their shards, as `LENGTHS` has them. Memory is that of one part.

    Raises DataError for a table that lacks a column, has one of another type, or a row without a value.
    """
    files: dict[str, Any] = {field.name: tempfile.TemporaryFile() for field in _NUMBERS}  # noqa: SIM115 - they stay mapped
    text = pa.schema([field for field in LENGTHS if field not in _NUMBERS])
    pieces = 0
    with tempfile.NamedTemporaryFile(suffix=".arrow") as words:
        with pa.ipc.new_file(words.name, text) as out:
            for pieces, table in enumerate(place.tables(), start=1):  # noqa: B007 - how many there were
                rows = _checked(table, place)
                rows = rows.filter(pc.equal(rows.column("split"), split))
                out.write_table(rows.select(text.names))
                for name, file in files.items():
                    for chunk in rows.column(name).chunks:
                        file.write(_values(chunk))
        if not pieces:
            raise DataError(f"{place} holds no encoded samples: no samples.parquet is in it (encode_latents makes one)")
        whole = pa.ipc.open_file(pa.memory_map(words.name)).read_all()
    columns = {name: whole.column(name) for name in text.names}
    columns |= {field.name: _mapped_numbers(files[field.name], field.type) for field in _NUMBERS}
    return pa.table([columns[name] for name in LENGTHS.names], schema=LENGTHS)


def numbers(table: pa.Table, name: str) -> np.ndarray:
    """A column of numbers [N], or of hashes as uint8 [N, 32], of such a table, without a copy."""
    (chunk,) = table.column(name).chunks
    return _values(chunk)


def _values(chunk: pa.Array) -> np.ndarray:
    if pa.types.is_fixed_size_binary(chunk.type):
        width = chunk.type.byte_width
        found = np.frombuffer(chunk.buffers()[1], np.uint8).reshape(-1, width)
        return found[chunk.offset : chunk.offset + len(chunk)]
    return np.asarray(chunk.to_numpy())


def _checked(table: pa.Table, place: RecordPlace) -> pa.Table:
    if ORDER_KEY not in table.column_names and "sample_id" in table.column_names:  # schema 3
        ids = [str(each) for each in table.column("sample_id").to_pylist()]
        table = table.append_column(ORDER_KEY, pa.array(sample_keys(ids)))
    missing = [name for name in LENGTHS.names if name not in table.column_names]
    if missing:
        raise DataError(
            f"samples.parquet of {place} lacks {', '.join(missing)}: it is no table of lengths as wfm writes it"
        )
    try:
        found = table.select(LENGTHS.names).cast(LENGTHS)
        found.validate(full=True)  # text that is none would be found at its row, long after
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, KeyError) as error:  # KeyError: a column twice
        raise DataError(f"samples.parquet of {place}: {error}") from None
    empty = [name for name in LENGTHS.names if found.column(name).null_count]
    if empty:
        raise DataError(f"samples.parquet of {place}: rows without {', '.join(empty)}")
    return found


def _mapped_numbers(file: Any, kind: pa.DataType) -> pa.Array:
    size = file.tell()
    if not size:
        return pa.array([], kind)
    file.flush()
    buffer = pa.py_buffer(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ))
    file.close()
    return pa.Array.from_buffers(kind, size // (kind.bit_width // 8), [None, buffer])
