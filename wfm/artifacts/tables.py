"""Parquet tables that lie in pieces: read one, join many."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from wfm.errors import DataError, InputError

if TYPE_CHECKING:
    import pyarrow as pa


def read(file: Path, columns: list[str] | None, label: str) -> "pa.Table":
    """Read one Parquet file. Raises InputError for an unknown column, DataError for a file that is not Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as parquet:
            known = parquet.schema_arrow.names
            unknown = [name for name in columns or [] if name not in known]
            if unknown:
                raise InputError(f"the table {label} has no column {unknown[0]!r}: it has {', '.join(known)}")
            return parquet.read(columns=columns)
    except pa.ArrowInvalid as error:
        raise DataError(f"{label} is not a Parquet file that can be read: {error}") from None


def concatenate(found: list["pa.Table"], name: str, owner: str, choices: Callable[[], list[str]]) -> "pa.Table":
    """Join the pieces of a table. Raises InputError when there is none, DataError when their columns do not agree."""
    import pyarrow as pa

    if not found:
        raise InputError(f"{owner} has no table {name!r}: it has {', '.join(choices()) or 'none'}")
    first = found[0].schema.names
    for piece in found[1:]:
        if piece.schema.names != first:
            raise DataError(
                f"the pieces of table {name!r} of {owner} disagree: columns {first} and {piece.schema.names}"
            )
    try:
        return pa.concat_tables(found, promote_options="default")
    except pa.ArrowInvalid as error:
        raise DataError(f"the pieces of table {name!r} of {owner} do not fit together: {error}") from None
