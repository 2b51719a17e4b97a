"""The table of lengths of encoded records, opened for the rows of one split: numbers at once, text when somebody asks for it.

A run needs numbers, and text that says little (`FEW`), to begin; ids, clips, sessions and sources of a million rows take longer
to decode than all of that. A piece that has an index (`lengths_index`) is not decoded at all. Numbers are written to files
without a name, column by column, and mapped from there, and so is text once it was read: what a million rows take in memory is
what was looked at last, and the system may take it back.
"""

import mmap
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wfm.data.lengths_index import CODES, FEW, INDEX, NotItsIndex, has_nulls, open_index
from wfm.data.order.sources import sample_keys
from wfm.data.record_table import OPENERS, RecordPlace, TableFile
from wfm.data.records import LENGTHS, ORDER_KEY
from wfm.errors import DataError
from wfm.log import get_logger

_LATER = [field.name for field in LENGTHS if field.type == pa.string() and field.name not in FEW]
"""Ids, keys, clips, sessions, videos, sources: only on demand."""
_FLAGS = [field.name for field in LENGTHS if field.type == pa.bool_()]
_NUMBERS = [field.name for field in LENGTHS if field.type not in (pa.string(), pa.bool_())]
_AT_ONCE = [name for name in LENGTHS.names if name not in _LATER]
_AS_READ = pa.schema([field.with_type(CODES) if field.name in FEW else field for field in LENGTHS])
_LOOKED_AT = 256  # rows whose order key is worked out when ids are read


@dataclass(frozen=True)
class _Piece:
    """A file of the table, and which of its rows are of the split."""

    file: TableFile
    mark: tuple[int, ...]
    "Of the file that was opened: another in its place is refused."
    rows: int
    chosen: slice | np.ndarray
    "bool [rows] where they do not lie side by side."

    def of_split(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """Its rows of a column."""
        if isinstance(self.chosen, slice):
            return column.slice(self.chosen.start, self.chosen.stop - self.chosen.start)
        return column.filter(pa.array(self.chosen))


class Lengths:
    """The rows of a split, in the order of the parts and of their shards, with the columns of `LENGTHS`. Several threads may
    ask; a column of text is read once. Made by `open_lengths`."""

    def __init__(self, place: RecordPlace, split: str, pieces: Sequence[_Piece], at_once: "_Collected") -> None:
        self.split = split
        self.codes = {name: at_once.numbers[name] for name in FEW if name != "split"}
        "int32 [N] of `shard` and `kind`: which of `values`."
        self.values = {name: list(at_once.values[name]) for name in self.codes}
        "Those that any row has."
        self._place, self._pieces, self._count = place, pieces, at_once.count
        self._numbers = at_once.numbers
        self._columns: dict[str, pa.ChunkedArray] = {}
        self._locks = {name: threading.RLock() for name in LENGTHS.names}

    def __len__(self) -> int:
        return self._count

    def numbers(self, name: str) -> np.ndarray:
        """A column of numbers or bool [N], or of hashes as uint8 [N, 32], without a copy. Raises as `column` does, where it is
        read now."""
        with self._locks[name]:
            if name not in self._numbers:
                found = _Collected([name])
                for column in self._of_pieces(name):
                    found.add({name: column})
                self._numbers |= found.map()
            return self._numbers[name]

    def late(self, name: str) -> "LateNumbers":
        """The same of a column that may never be wanted: it is read once a row is."""
        return LateNumbers(self, name)

    def has_read(self, name: str) -> bool:
        """Whether a column is at hand."""
        return name in self._columns

    def column(self, name: str) -> pa.ChunkedArray:
        """A column. Raises DataError for text that is none, rows without a value, ids that do not have their order keys, keys
        that are not their ids', and a file that is not the one any more that was opened."""
        with self._locks[name]:
            if name not in self._columns:
                self._columns[name] = self._read(name)
            return self._columns[name]

    def table(self, names: Iterable[str] = LENGTHS.names) -> pa.Table:
        """Columns as a table."""
        return pa.table({name: self.column(name) for name in names})

    def refuse(
        self, wrong: np.ndarray, columns: Sequence[str], what: str, held: Mapping[str, pa.ChunkedArray] | None = None
    ) -> None:
        """Raise DataError where `wrong`, bool [N], holds for a row, with what the first says in `columns`. `held`: of columns
        that are not to be read for it."""
        if not wrong.any():
            return
        row, held = int(np.flatnonzero(wrong)[0]), held or {}
        told = {
            name: (held[name] if name in held else self.column(name))[row].as_py() for name in ("sample_id", *columns)
        }
        says = ", ".join(f"{name} {told[name]!r}" for name in columns)
        raise DataError(
            f"samples.parquet of {self._place}, split {self.split!r}: {int(wrong.sum())} of {len(self)} rows have {what}, "
            f"such as sample {told['sample_id']}: {says}"
        )

    def _read(self, name: str) -> pa.ChunkedArray:
        if name == "split":
            return pa.chunked_array([pa.repeat(pa.scalar(self.split), len(self))])
        if name in _FLAGS:
            return pa.chunked_array([pa.array(self.numbers(name))])
        if name in _NUMBERS:
            return pa.chunked_array([_as_arrow(self.numbers(name), LENGTHS.field(name).type)])
        if name in FEW:
            values = pa.array(self.values[name], pa.string())
            return pa.chunked_array([values.take(pa.array(self.codes[name]))])
        schema = pa.schema([LENGTHS.field(name)])
        with tempfile.NamedTemporaryFile(suffix=".arrow") as words:
            with pa.ipc.new_file(words.name, schema) as out:
                for column in self._of_pieces(name):
                    out.write_table(pa.table([column], schema=schema))
            found = pa.ipc.open_file(pa.memory_map(words.name)).read_all().column(0)
        if name == "sample_id":
            self._check_ids(found)
        elif name == "key":
            self.refuse(
                _other_keys(found, self.column("sample_id")), ["key"], "the key of another sample", {name: found}
            )
        return found

    def _of_pieces(self, name: str) -> Iterator[pa.ChunkedArray]:
        """A column, read of one table after the other."""
        return _several(partial(_later, name, self._place), self._pieces, [piece.file.fetch for piece in self._pieces])

    def _check_ids(self, ids: pa.ChunkedArray) -> None:
        """A few rows are looked at; all others when they are read."""
        rows = np.unique(np.linspace(0, len(self) - 1, min(len(self), _LOOKED_AT)).astype(np.int64))
        wrong, keys = np.zeros(len(self), bool), self.numbers(ORDER_KEY)
        wrong[rows] = sample_keys([ids[row].as_py() for row in rows.tolist()]) != keys[rows]
        self.refuse(wrong, [ORDER_KEY], "the order key of another sample", {"sample_id": ids})


class LateNumbers:
    """A column of numbers, as `Lengths.numbers` has it, which is read when a row is asked for."""

    def __init__(self, table: Lengths, name: str) -> None:
        kind = LENGTHS.field(name).type
        self.dtype = _dtype(kind)
        self.shape = (len(table), kind.byte_width) if pa.types.is_fixed_size_binary(kind) else (len(table),)
        self._read = partial(table.numbers, name)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        found: np.ndarray = self._read()[rows]
        return found


def open_lengths(place: RecordPlace, split: str) -> Lengths:
    """The rows of a split; of a file nothing is read but what has a fixed width, and `FEW`.

    Raises DataError for a table that lacks a column, has one of another type, or in what is read a row without a value.
    """
    files = place.files()
    if not files:
        raise DataError(f"{place} holds no encoded samples: no samples.parquet is in it (encode_latents makes one)")
    pieces, at_once = [], _Collected([name for name in _AT_ONCE if name != "split"])
    for piece, columns in _several(partial(_opened, place, split), files, [file.index or file.fetch for file in files]):
        pieces.append(piece)
        at_once.add(columns)
    at_once.map()
    return Lengths(place, split, pieces, at_once)


class _Collected:
    """Columns that grow by those of piece after piece, and are mapped then."""

    def __init__(self, names: Sequence[str]) -> None:
        self._files: dict[str, Any] = {name: tempfile.TemporaryFile() for name in names}  # noqa: SIM115 - they stay mapped
        self.numbers: dict[str, np.ndarray] = {}
        self.values: dict[str, dict[str, int]] = {name: {} for name in FEW}
        self.count = 0

    def add(self, columns: Mapping[str, pa.ChunkedArray]) -> None:
        """A piece's. A column that a piece does not have is none of the whole."""
        self.count += len(next(iter(columns.values())))
        for name in self._files.keys() - columns.keys():
            self._files.pop(name).close()
        for name, file in self._files.items():
            for chunk in columns[name].chunks:
                if len(chunk):
                    file.write(self._codes(name, chunk) if name in FEW else _values(chunk))

    def map(self) -> dict[str, np.ndarray]:
        """`numbers`, once all are there."""
        for name, file in self._files.items():
            kind = LENGTHS.field(name).type
            width = kind.byte_width if pa.types.is_fixed_size_binary(kind) else 0
            dtype = np.dtype(np.int32) if name in FEW else _dtype(kind)
            held = None
            if self.count:
                file.flush()
                held = mmap.mmap(file.fileno(), file.tell(), access=mmap.ACCESS_READ)
            file.close()
            found = np.frombuffer(held, dtype) if held else np.zeros(0, dtype)
            self.numbers[name] = found.reshape(-1, width) if width else found
        return self.numbers

    def _codes(self, name: str, chunk: pa.DictionaryArray) -> np.ndarray:
        """int32: which of `values`, to which those that are new are added."""
        codes, known = _values(chunk.indices), self.values[name]
        if len(chunk.dictionary) == 1:  # as of a part whose records are in one shard
            return np.full(len(codes), known.setdefault(chunk.dictionary[0].as_py(), len(known)), np.int32)
        used = np.flatnonzero(np.bincount(codes, minlength=len(chunk.dictionary)))  # others are of other splits
        ours = np.zeros(len(chunk.dictionary), np.int32)
        for code in used.tolist():
            ours[code] = known.setdefault(chunk.dictionary[code].as_py(), len(known))
        return ours[codes]


def _several(do: Callable[[Any, Path], Any], of: Sequence[Any], fetches: Sequence[Callable[[], Path]]) -> Iterator[Any]:
    """`do` of each and its file's path, in order. Threads fetch; one decodes: a file takes 3 ms, and among several threads
    handing over the interpreter takes as long."""
    with ThreadPoolExecutor(OPENERS, thread_name_prefix="parts") as threads:
        for first in range(0, len(of), OPENERS):  # no more than that waits to be decoded
            began = [threads.submit(fetch) for fetch in fetches[first : first + OPENERS]]
            yield from map(do, of[first:], (each.result() for each in began))


def _opened(place: RecordPlace, split: str, file: TableFile, path: Path) -> tuple[_Piece, dict[str, pa.ChunkedArray]]:
    """`path`: of its index, where it has one."""
    mark = () if file.is_checked else _mark(file.fetch(), file)
    found = None if file.index is None else _indexed(file, path)
    if found is None:
        found = _decoded(place, file, path if file.index is None else file.fetch())
    of_split = _is(found["split"], split)
    where = np.flatnonzero(of_split)
    first, after = (int(where[0]), int(where[-1]) + 1) if len(where) else (0, 0)
    piece = _Piece(file, mark, len(of_split), slice(first, after) if after - first == len(where) else of_split)
    return piece, {name: piece.of_split(column) for name, column in found.items() if name != "split"}


def _indexed(file: TableFile, path: Path) -> dict[str, pa.ChunkedArray] | None:
    """What the index has; None where it is not the table's."""
    try:
        found = open_index(path, file)
    except NotItsIndex as error:
        get_logger(__name__).warning(
            "%s is not used: %s; %s is decoded instead, which takes longer", file.index_label, error, file.label
        )
        return None
    return dict(zip(INDEX.names, found.columns, strict=True))


def _decoded(place: RecordPlace, file: TableFile, path: Path) -> dict[str, pa.ChunkedArray]:
    with _parquet(path, file) as parquet:
        hashed = ORDER_KEY not in parquet.schema_arrow.names  # schema 3
        _require_columns(parquet.schema_arrow, place, hashed)
        names = [name for name in _AT_ONCE if name != ORDER_KEY or not hashed]
        found = _columns(parquet, [*names, "sample_id"] if hashed else names, file, place)
    if hashed:
        found[ORDER_KEY] = pa.chunked_array([pa.array(sample_keys(found.pop("sample_id").to_pylist()))])
    return found


def _later(name: str, place: RecordPlace, piece: _Piece, path: Path) -> pa.ChunkedArray:
    with _parquet(path, piece.file) as parquet:
        if _mark(path, piece.file) != piece.mark or parquet.metadata.num_rows != piece.rows:
            raise DataError(
                f"samples.parquet of {place}: {piece.file.label} is another file since it was opened, and {name} is to be read "
                "of it now: nobody may write to it while samples are read; begin again"
            )
        _require_columns(parquet.schema_arrow, place, ORDER_KEY not in parquet.schema_arrow.names)
        found = piece.of_split(_columns(parquet, [name], piece.file, place)[name])
    return found if found.num_chunks < 2 else pa.chunked_array([found.combine_chunks()])


def _mark(path: Path, file: TableFile) -> tuple[int, ...]:
    if file.is_checked:  # a cache may have fetched it again
        return ()
    try:
        found = os.stat(path)
    except OSError as error:
        raise DataError(f"{file.label} is not a Parquet file that can be read: {error}") from None
    return found.st_size, found.st_mtime_ns, found.st_ino


def _parquet(path: Path, file: TableFile) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, read_dictionary=list(FEW))
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{file.label} is not a Parquet file that can be read: {error}") from None


def _require_columns(schema: pa.Schema, place: RecordPlace, hashed: bool) -> None:
    """Of text too, which is not read yet."""
    if schema.equals(_AS_READ):
        return
    names = [name for name in LENGTHS.names if name != ORDER_KEY or not hashed]
    if missing := [name for name in names if name not in schema.names]:
        raise DataError(
            f"samples.parquet of {place} lacks {', '.join(missing)}: it is no table of lengths as wfm writes it"
        )
    try:
        schema.empty_table().select(names).cast(pa.schema([LENGTHS.field(name) for name in names]))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, KeyError) as error:  # KeyError: a column twice
        raise DataError(f"samples.parquet of {place}: {error}") from None


def _columns(
    parquet: pq.ParquetFile, names: list[str], file: TableFile, place: RecordPlace
) -> dict[str, pa.ChunkedArray]:
    """Columns of all rows of a file, each of its type, with a value in every row."""
    found = {}
    try:
        table = parquet.read(columns=names, use_threads=False)
        for name in names:
            column, kind = table.column(name), _AS_READ.field(name).type
            found[name] = column = column if column.type == kind else column.cast(LENGTHS.field(name).type).cast(kind)
            column.validate(
                full=name in FEW or name in _LATER
            )  # text that is none would be found at its row, long after
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise DataError(f"samples.parquet of {place}: {file.label}: {error}") from None
    if empty := [name for name, column in found.items() if has_nulls(column)]:
        raise DataError(f"samples.parquet of {place}: rows without {', '.join(empty)}")
    return found


def _is(column: pa.ChunkedArray, value: str) -> np.ndarray:
    """bool [N]: where a column of codes has a value."""
    found = [np.zeros(0, bool)]
    for chunk in column.chunks:
        is_one = np.array([each == value for each in chunk.dictionary.to_pylist()], bool)
        found.append(np.full(len(chunk), is_one[0]) if len(is_one) == 1 else is_one[_values(chunk.indices)])
    return np.concatenate(found)


def _values(chunk: pa.Array) -> np.ndarray:
    """Of an array without nulls; not by `to_numpy`, which imports pandas, for longer than a table takes."""
    data, first, after = chunk.buffers()[1] or b"", chunk.offset, chunk.offset + len(chunk)
    if chunk.type == pa.bool_():
        return np.unpackbits(np.frombuffer(data, np.uint8), count=after, bitorder="little")[first:].view(bool)
    found = np.frombuffer(data, _dtype(chunk.type))
    if pa.types.is_fixed_size_binary(chunk.type):
        found = found.reshape(-1, chunk.type.byte_width)
    return found[first:after]


def _dtype(kind: pa.DataType) -> np.dtype[Any]:
    """Of numbers as of numpy; hashes are bytes."""
    return np.dtype(np.uint8 if pa.types.is_fixed_size_binary(kind) else str(kind))


def _as_arrow(numbers: np.ndarray, kind: pa.DataType) -> pa.Array:
    return pa.Array.from_buffers(kind, len(numbers), [None, pa.py_buffer(numbers)])


def _other_keys(keys: pa.ChunkedArray, ids: pa.ChunkedArray) -> np.ndarray:
    """bool [N]: whether a row's key is not its sample's (`record_key`)."""
    found = [
        pc.not_equal(*pair)
        for pair in zip(keys.chunks, (pc.replace_substring(one, ":", "-") for one in ids.chunks), strict=True)
    ]
    return np.asarray(pa.chunked_array(found, pa.bool_()).to_numpy())
