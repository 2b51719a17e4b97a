"""Rows of a list of videos: text, JSONL or Parquet -> dictionaries of texts, none of them trusted.

A row that is wrong is yielded with its ``problem``, so that it becomes a row of ``videos`` with that reason and the others go
on; only a list that is none at all raises. Nothing here is a place yet: `listing` looks at where a row points.
"""

import io
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from wfm.credentials import carries_credentials
from wfm.curation.source.untrusted_rows import LONGEST_NAME
from wfm.errors import InputError
from wfm.process import python, safe_environment

RIGHTS = ("licence", "consent", "rights_holder", "url")
"""What a list may say of who may do what with a video, and where it came from."""

FIELDS = ("source", "session_id", "view", "actions", "attributes", *RIGHTS, "license")
LARGEST_LIST = 2**28
"""Most bytes of a list that is fetched, or that a Parquet list unpacks to."""
MOST_ROWS = 10_000_000
"""Of a Parquet list, where a row may cost no byte at all."""
LONGEST_SOURCE = 4096
"""Characters of a name, URL or path."""

_LOOK = """
import pyarrow.parquet as pq
metadata = pq.ParquetFile("/dev/stdin").metadata
for group in range(metadata.num_row_groups):
    for index in range(metadata.num_columns):
        metadata.row_group(group).column(index)
"""
"""What `table_problem` does, in a process of its own."""
_LOOK_SECONDS = 300

_LONGEST = {
    **dict.fromkeys(("session_id", "view"), LONGEST_NAME),
    **dict.fromkeys(("licence", "license", "consent"), 10_000),
}
_SHOWN = 200

Row = dict[str, str]
"""Field -> text; ``problem`` says why the row is refused."""


def parse_list(data: bytes, where: str) -> Iterator[Row]:
    """Rows of a list: a name a line (``.txt``; blank lines and ``#`` lines are passed over), or JSON objects (``.jsonl``)."""
    for number, raw in enumerate(io.BytesIO(data), 1):
        line = raw.removesuffix(b"\n")
        if not line.strip() or (line.startswith(b"#") and not where.lower().endswith(".jsonl")):
            continue
        if where.lower().endswith(".jsonl"):
            yield _json_row(line, where, f"line {number}")
        else:  # a name that is not UTF-8 is refused as such, by itself
            yield {"source": line.removesuffix(b"\r").decode("utf-8", "surrogateescape")}


def parse_table(file: BinaryIO, where: str) -> Iterator[Row]:
    """Rows of a Parquet list, a batch at a time: text columns as in a JSONL list; a null is a field that is not given.

    Other columns are passed over, since such tables carry more than names. Raises `InputError` for a table that is no list,
    naming the column that is wrong.
    """
    import pyarrow
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)
        kinds = {field.name: field.type for field in table.schema_arrow if field.name in FIELDS}
        for name in ("source", *kinds):
            kind = kinds.get(name)
            if kind is None or not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
                raise InputError(
                    f"{where!r} column {name!r} is {kind or 'not there'}; texts are wanted: source, and if known "
                    f"{', '.join(FIELDS[1:])}"
                )
        if not _survives(file):
            raise InputError(f"the list {where!r} is no Parquet that can be read: its footer ends whatever looks at it")
        if problem := table_problem(table.metadata, list(kinds), LARGEST_LIST, MOST_ROWS, MOST_ROWS):
            raise InputError(f"the list {where!r} {problem}")
        # A text that repeats stays one text: a few bytes may claim a million rows of a million characters
        table = pq.ParquetFile(file, read_dictionary=list(kinds))
        number = 0
        # no threads: nothing of a bad list works on beside us
        for batch in table.iter_batches(columns=list(kinds), use_threads=False):
            columns = {name: _texts(batch[name]) for name in kinds}
            for row in zip(*columns.values(), strict=True):
                number += 1
                given = {name: value for name, value in zip(columns, row, strict=True) if value is not None}
                if given.get("source"):
                    yield _checked(given, where, f"row {number}")
                else:
                    yield _refused(where, f"row {number}", "it names no source")
    except (pyarrow.ArrowException, OSError, ValueError, LookupError, subprocess.TimeoutExpired) as error:
        raise InputError(f"the list {where!r} is no Parquet that can be read: {str(error)[:300]}") from None


def _survives(file: BinaryIO) -> bool:
    """Whether the facts of a Parquet file's columns can be asked for: over some that contradict each other pyarrow ends the
    process, so another one asks first."""
    with tempfile.TemporaryFile() as copy:
        file.seek(0)
        shutil.copyfileobj(file, copy)
        copy.flush()
        ended = subprocess.run(
            python("-c", _LOOK), stdin=copy, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=_LOOK_SECONDS,
            env=safe_environment(os.environ), check=False,
        )  # fmt: skip
    file.seek(0)
    return ended.returncode >= 0


def table_problem(metadata: Any, columns: list[str], most_bytes: int, most_rows: int, most_values: int) -> str:
    """Why the columns of a Parquet file are not read, by what its footer claims of bytes (unpacked) and values, or ""."""
    if metadata.num_rows > most_rows:
        return f"claims {metadata.num_rows:,} rows; at most {most_rows:,} are read"
    unpacked = values = 0
    for group in range(metadata.num_row_groups):
        for index in range(metadata.num_columns):
            column = metadata.row_group(group).column(index)
            if column.path_in_schema.partition(".")[0] in columns:
                unpacked += max(column.total_uncompressed_size, 0)
                values = max(values, column.num_values)
    if unpacked > most_bytes or values > most_values:
        return f"unpacks to {unpacked:,} bytes, {values:,} values a column; at most {most_bytes:,} and {most_values:,} are read"
    return ""


def unsafe_name(name: str) -> str:
    """Why a name from a list or a bucket is refused, or ""."""
    if "\0" in name:
        return "unsafe_name: the name holds a NUL character"
    if len(name) > LONGEST_SOURCE:
        return f"unsafe_name: the name has {len(name):,} characters, at most {LONGEST_SOURCE:,} are taken"
    if any(part in ("..", ".") for part in name.split("/")):
        return "unsafe_name: the name holds ./ or ../ and could lead out of its folder"
    if as_text(name) != name:
        return "unsafe_name: the name is not valid UTF-8"
    return ""


def as_text(name: str) -> str:
    """A name as tables can hold it: bytes that are not UTF-8 are written as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def shown_name(name: str) -> str:
    """A refused name as a table shows it: as text, without credentials, and not longer than names may be."""
    text = as_text(name)
    if len(text) > LONGEST_SOURCE:
        return f"{text[:_SHOWN]}… ({len(text):,} characters)"
    if "://" in text and carries_credentials(text):
        scheme, _, rest = text.partition("://")
        return f"{scheme}://***{rest.partition('?')[0].rpartition('@')[2]}"
    return text


def _json_row(line: bytes, where: str, place: str) -> Row:
    try:
        row = json.loads(line.decode(), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        return _refused(where, place, f"it is not JSON with each name once: {str(error)[:_SHOWN]}")
    if not isinstance(row, dict) or not isinstance(row.get("source"), str) or not row["source"].strip():
        return _refused(where, place, "it must be an object with 'source'")
    wrong = sorted(set(row) - set(FIELDS)) or sorted(name for name, value in row.items() if not isinstance(value, str))
    if wrong:
        words = f"{', '.join(map(repr, wrong))[:_SHOWN]}: fields are texts out of {', '.join(FIELDS)}"
        return _refused(where, place, as_text(words))
    return _checked(row, where, place)


def _checked(row: Row, where: str, place: str) -> Row:
    """``license`` is ``licence``; where a row has both, the latter counts. The url is shown to whoever has the data set."""
    for name, value in row.items():
        if name == "source":
            continue  # `unsafe_name` looks at it
        most = _LONGEST.get(name, LONGEST_SOURCE)
        if len(value) > most:
            return _refused(where, place, f"its {name} has {len(value):,} characters, at most {most:,} are taken")
        if as_text(value) != value:
            return _refused(where, place, f"its {name} holds half of a character, which no table can")
    if carries_credentials(row.get("url", "")):
        return _refused(where, place, "its url carries credentials: take them out, the data set will show it")
    other = row.pop("license", "")
    return {**row, "licence": row.get("licence") or other} if other else row


def _refused(where: str, place: str, words: str) -> Row:
    """The row of a row that says nothing usable; it is named by where it stands."""
    return {"source": f"{where} {place}", "problem": f"bad_row: {place} of {os.path.basename(where)}: {words}"}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in it")
    return found


def _texts(column: Any) -> list[str | None]:
    """The values of a dictionary-encoded column, each text once in memory."""
    texts = column.dictionary.to_pylist()
    return [None if index is None else texts[index] for index in column.indices.to_pylist()]
