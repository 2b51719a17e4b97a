"""Global steps see every row, but read and write by part, so that what follows depends only on the parts that changed."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from wfm.records import Record

if TYPE_CHECKING:
    from wfm.artifacts import Artifact

Row = TypeVar("Row", bound=Record)


def read_parts(artifact: "Artifact", table: str, record: type[Row]) -> dict[str, list[Row]]:
    """Part name -> its rows, in order of part name."""
    found: dict[str, list[Row]] = {}
    for name, piece in artifact.iterate_table(table):
        found.setdefault(name, []).extend(record.from_table(piece))
    return found


def read_rows(artifact: "Artifact", table: str, record: type[Row]) -> list[Row]:
    """All rows of a table."""
    return [row for rows in read_parts(artifact, table, record).values() for row in rows]


def read_folder(artifact: "Artifact", table: str, record: type[Row]) -> dict[str, list[Row]]:
    """Part name -> its rows, of a table that `write_parts` wrote."""
    import pyarrow.parquet as pq

    found = {}
    for entry in artifact.files(f"{table}.parquet/"):
        name = entry.path.rpartition("/")[2].removesuffix(".parquet")
        found[name] = record.from_table(pq.read_table(artifact.fetch(entry.path)))
    return dict(sorted(found.items()))


def read_optional(artifact: "Artifact | None", table: str, record: type[Row]) -> list[Row] | None:
    """All rows of a table that may not be there: None without the artifact, or where its parts do not hold the table."""
    parts = list(artifact.iterate_parts()) if artifact is not None else []
    if artifact is None or not parts or not artifact.part(parts[0].name).has_file(f"{table}.parquet"):
        return None
    return read_rows(artifact, table, record)


def parts_of(rows: Mapping[str, Iterable[Row]], key: Callable[[Row], str]) -> dict[str, str]:
    """Row key (such as the clip id) -> name of its part."""
    return {key(row): name for name, part in rows.items() for row in part}


def write_parts(
    rows: Iterable[Row], part_of: Callable[[Row], str], record: type[Row], out: Path, table: str, names: Iterable[str]
) -> None:
    """Write ``<table>.parquet/<part>.parquet`` for every part named, empty ones too, rows in the order given."""
    import pyarrow.parquet as pq

    by_part: dict[str, list[Row]] = {name: [] for name in names}
    for row in rows:
        by_part[part_of(row)].append(row)
    folder = out / f"{table}.parquet"
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in sorted(by_part.items()):
        pq.write_table(record.to_table(part), folder / f"{name}.parquet", compression="zstd")
