"""What is measured of a clip: rows of declared columns, a file for each thing that is looked at, found by its being here.

`wfm.curation.measure.measurement` says what a file declares. Those of the first day only declare; the maths stands in the wing
(`quality`, `camera_moves`, ...), so that whoever reads a column does not follow the code that fills it. A new measurement may
hold its own.

Keys: `from wfm.curation.measure.measurements import Measures` takes a name from a package, for which the code id of a stage
counts every module of the package.
"""

import dataclasses
import functools
import importlib
import pkgutil
from typing import Any

from wfm.curation.measure.measurement import Limit, Measurement
from wfm.curation.rows import Score
from wfm.errors import ConfigError
from wfm.records import Record, with_columns

__all__ = ["Measures", "limits", "measurements", "values_of"]


@functools.cache
def measurements() -> tuple[Measurement, ...]:
    """The declared rows by place. Raises ConfigError for a file that declares none, and for a name or reason of another's."""
    found: list[Measurement] = []
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        rows = getattr(importlib.import_module(f"{__name__}.{module.name}"), "MEASUREMENTS", ())
        if not rows or not all(isinstance(row, Measurement) for row in rows):
            raise ConfigError(
                f"{__name__}.{module.name}: no MEASUREMENTS, which a file here must define (wfm.curation.measure.measurement)"
            )
        found += rows
    found.sort(key=lambda row: row.place)
    for kind, names in (
        ("measurement", [row.name for row in found]),
        ("reason", [limit.reason for row in found for limit in row.limits]),
        ("option", [limit.option for row in found for limit in row.limits]),
    ):
        twice = next((name for name in names if names.count(name) > 1), "")
        if twice:
            raise ConfigError(f"{__name__}: {kind} {twice!r} is declared twice; choose another name")
    scores = [field.name for field in dataclasses.fields(Score) if field.name not in ("clip_id", "clip_sha256")]
    if scores != (declared := [row.name for row in found if row.table == "scores"]):
        raise ConfigError(f"{__name__}: of the table scores {declared} are declared, and rows.Score has {scores}")
    return tuple(found)


def limits(table: str) -> list[tuple[Measurement, Limit]]:
    """The limits on columns of a table, in the order in which they refuse."""
    found = [(row, limit) for row in measurements() if row.table == table for limit in row.limits]
    return sorted(found, key=lambda pair: pair[1].place)


def _columns() -> dict[str, Any]:
    """Column -> type, of the table of measures."""
    return {
        row.name: row.kind | None if row.null or row.time else row.kind
        for row in measurements()
        if row.table == "measures"
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
@with_columns(
    _columns(),
    optional=[row.name for row in measurements() if row.null],
    words={row.name: row.words for row in measurements() if row.table == "measures"},
)
class Measures(Record):
    """The second table of scores, one row a clip, in ``measures.parquet``: all of `measurements` that is not in the first.

    Shares are of the clip's frames or of its picture, 0 to 1; upright. What was not asked for, or whose model is not there, is
    null: never a guess.
    """

    null_where_needed = tuple(
        row.name for row in measurements() if row.table == "measures" and row.time and not row.null
    )

    clip_id: str
    clip_sha256: str
    "The clip bytes they were made from."


def values_of(table: str, seen: Any) -> dict[str, Any]:
    """Column -> value, of a clip that was seen (`score.Seen`); None for what takes time, of a still image."""
    still = seen.clip.is_image
    return {row.name: None if still and row.time else row.of(seen) for row in measurements() if row.table == table}
