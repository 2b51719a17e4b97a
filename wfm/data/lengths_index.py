"""The index of a table of lengths: its columns of numbers that an order and a loader begin with, uncompressed, to be mapped.

    samples.arrow    beside a part's samples.parquet: an Arrow file (pyarrow.ipc) of the columns of `INDEX`, row for row those
                     of the table; its schema says of which table it is (`sha256`, `crc32c`, `bytes`, `rows`), and the crc32c
                     of its own columns

The table stays what counts, and what everybody else reads. An index is used where it is of the table beside it, as a manifest
(in a store) or the bytes of both (in a folder that was pulled) say, and passed over by name where it is not: what comes out is
the same. What is not in it (text, and numbers that are wanted late or by few) is read from the table when somebody asks.
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from wfm.artifacts.verified import hash_file
from wfm.data.reading.reader import google_crc32c
from wfm.data.record_table import TableFile

FEW = ("split", "shard", "kind")
"""Columns of text of few values, which are read as numbers of them."""
CODES = pa.dictionary(pa.int32(), pa.string())
INDEX = pa.schema(
    [
        *((name, CODES) for name in FEW),
        ("start_frame", pa.int64()),
        ("fps", pa.float64()),
        ("num_frames", pa.int64()),
        ("channels", pa.int32()),
        ("latent_frames", pa.int64()),
        ("latent_height", pa.int64()),
        ("latent_width", pa.int64()),
        ("extrapolated", pa.bool_()),
        ("offset", pa.int64()),
        ("bytes", pa.int64()),
        ("crc32c", pa.uint32()),
        ("order_key", pa.uint64()),
    ]
)
"""Each as the table has it (`wfm.data.records.LENGTHS`): 92 bytes a row. Hashes of records would be 32 more, and only buckets
want them."""
_VERSION = b"1"
_BLOCK = 1 << 20  # bytes


class NotItsIndex(Exception):
    """An index is not of the table beside it, or is none."""


def write_index(table: pa.Table, parquet: Path, out: Path) -> None:
    """The index of `table`, which lies in `parquet`, with no value missing in `INDEX`."""
    columns = [table.column(name).combine_chunks() for name in INDEX.names]
    coded = [
        column.dictionary_encode().cast(CODES) if name in FEW else column
        for name, column in zip(INDEX.names, columns, strict=True)
    ]
    found = pa.table(coded, schema=INDEX)
    size, sha256 = hash_file(parquet)
    said = {
        "version": _VERSION, "bytes": str(size), "sha256": sha256, "crc32c": str(_crc32c_of(parquet)),
        "rows": str(len(table)), "own_crc32c": str(_own_crc32c(found)),
    }  # fmt: skip
    options = pa.ipc.IpcWriteOptions(compression=None)
    with pa.ipc.new_file(out, INDEX.with_metadata(said), options=options) as file:
        file.write_table(found)


def open_index(path: Path, file: TableFile) -> pa.Table:
    """The index at `path` of the table `file`, mapped: nothing of it is read but what is looked at.

    Raises NotItsIndex, with why, for what is no index, another table's, or damaged.
    """
    try:
        found = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        found.validate()
        for name in set(FEW) & set(found.column_names):  # before a word or a code of them is looked up
            found.column(name).validate(full=True)
        said = {name.decode(): value.decode("latin-1") for name, value in (found.schema.metadata or {}).items()}
    except (pa.ArrowException, OSError, ValueError) as error:
        raise NotItsIndex(f"it is no Arrow file that can be read: {error}") from None
    if said.get("version") != _VERSION.decode() or not found.schema.equals(INDEX):
        raise NotItsIndex(f"it is no index of this version: {said.get('version')!r}, {', '.join(found.column_names)}")
    if empty := [name for name in INDEX.names if has_nulls(found.column(name))]:
        raise NotItsIndex(f"rows without {', '.join(empty)}")
    if said.get("rows") != str(len(found)):
        raise NotItsIndex(f"it has {len(found)} rows, and says {said.get('rows')}")
    if file.is_checked:
        if said.get("sha256") != file.sha256:
            raise NotItsIndex(f"it is of a table of sha256 {said.get('sha256')}, and that beside it has {file.sha256}")
    else:
        _check_bytes(found, said, file.fetch())
    return found


def has_nulls(column: pa.ChunkedArray) -> bool:
    """Whether a row is without a value, or a value that rows may name is none."""
    if column.null_count:
        return True
    return column.type == CODES and any(chunk.dictionary.null_count for chunk in column.chunks)


def _check_bytes(found: pa.Table, said: dict[str, str], parquet: Path) -> None:
    """Of a folder, where nobody else says what its files hold: that both are as they were written."""
    try:
        own = {"bytes": parquet.stat().st_size, "crc32c": _crc32c_of(parquet)}
    except OSError as error:
        raise NotItsIndex(f"the table beside it cannot be read: {error}") from None
    for name, value in own.items():
        if said.get(name) != str(value):
            raise NotItsIndex(f"it is of a table of {name} {said.get(name)}, and that beside it has {value}")
    if said.get("own_crc32c") != str(_own_crc32c(found)):
        raise NotItsIndex("it is damaged: its columns are not those that were written")


def _crc32c_of(path: Path) -> int:
    crc, extend = 0, google_crc32c().extend
    with path.open("rb") as file:
        while data := file.read(_BLOCK):
            crc = extend(crc, data)
    return int(crc)


def _own_crc32c(table: pa.Table) -> int:
    """Of all that the columns say, chunk by chunk; of a mapped one a byte is read once, and none is copied."""
    crc, extend = 0, google_crc32c().extend
    for data in _buffers(table):
        crc = extend(crc, data)
    return int(crc)


def _buffers(table: pa.Table) -> Iterator[pa.Buffer]:
    for name in INDEX.names:
        for chunk in table.column(name).chunks:
            if name in FEW:
                yield pa.py_buffer("\x1f".join(chunk.dictionary.to_pylist()).encode())
                chunk = chunk.indices
            if chunk.type == pa.bool_():
                yield pa.py_buffer(chunk.cast(pa.uint8()).buffers()[1])
            else:
                width = chunk.type.byte_width
                yield chunk.buffers()[1].slice(chunk.offset * width, len(chunk) * width)
