"""Actions from a user's file: CSV, JSON or Parquet with named columns, checked against the model's action spec and
never guessed.

One row per video frame; the row of frame t says what happens between t and t + 1. Accepted shapes of a file:

- CSV: a header of column names, each optionally with its unit, ``camera_orbit_rate [deg/s]``; then numbers.
- JSON: a list of objects ``[{"camera_orbit_rate": 30}, ...]``, or an object of lists ``{"camera_orbit_rate": [30,
  ...]}``; the second may carry ``"units": {"camera_orbit_rate": "deg/s"}`` and ``"rate_hz": 24``.
- Parquet: one column per name, or a sidecar of this project (a list column ``action`` and the spec in the schema's
  metadata).

``pts_seconds`` and ``frame`` columns are allowed; the first is used to check the rate.
"""

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from wfm.actions import ActionSpec
from wfm.errors import DataError, InputError

BOOKKEEPING = ("pts_seconds", "frame")
"""Columns that may stand beside the actions."""

LARGEST_FILE_BYTES = 64 * 2**20


class Columns(NamedTuple):
    """A table of numbers as read: columns by name, and what the file itself says about them."""

    values: dict[str, np.ndarray]
    """Name -> float64 ``[rows]`` or ``[rows, k]`` (list columns)."""
    units: dict[str, str]
    """Name -> unit, where the file states one."""
    rate_hz: float | None
    """Rows a second, where the file states it or holds timestamps."""
    spec: ActionSpec | None
    """The spec of a sidecar of this project."""


def read_columns(path: Path) -> Columns:
    """Read a CSV, JSON or Parquet table of numbers. Raises InputError for a missing or unknown file, DataError for
    broken contents."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.stat().st_size > LARGEST_FILE_BYTES:
        raise InputError(
            f"{path}: {path.stat().st_size} bytes; an action or camera file of more than {LARGEST_FILE_BYTES} is refused"
        )
    readers = {".csv": _read_csv, ".json": _read_json, ".parquet": _read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            f"{path}: cannot read {path.suffix or 'a file without suffix'!r}; give one of {', '.join(sorted(readers))}"
        )
    try:
        columns = reader(path)
    except (ValueError, TypeError, KeyError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a table of numbers: {error}") from error
    check_columns(path, columns.values)
    return columns


def check_columns(source: Path | str, values: Mapping[str, np.ndarray]) -> None:
    """Refuse columns of several lengths, or with values that are missing."""
    lengths = {name: len(column) for name, column in values.items()}
    if not lengths or 0 in lengths.values() or len(set(lengths.values())) > 1:
        raise DataError(f"{source}: columns must be of one length and not empty, found {lengths or 'no columns'}")
    for name, column in values.items():
        if not np.isfinite(column).all():
            raise DataError(
                f"{source}: column {name!r} has a value that is missing or not finite in row {_first_bad(column)}"
            )


def read_actions(path: Path, spec: ActionSpec) -> np.ndarray:
    """The rows of an action file in the order of ``spec.names``: float32 ``[rows, A]`` in the spec's units.

    Raises InputError, naming every missing or foreign column with its unit, unless the file says exactly what the spec
    says.
    """
    require_actions(path, spec)
    return actions_of(read_columns(path), spec, path)


def require_actions(source: Path | str, spec: ActionSpec) -> None:
    """Raise InputError for a model that takes no actions."""
    if spec.width == 0:
        raise InputError(f"{source}: this model takes no actions (its action spec is empty); leave them out")


def actions_of(columns: Columns, spec: ActionSpec, source: Path | str) -> np.ndarray:
    """The same of a table that was read; ``source``: what errors call it."""
    if columns.spec is not None:
        spec.require_same(columns.spec, whose=str(source))
        return as_rows(columns.values["action"], source, spec)
    check_names(source, spec, set(columns.values) - set(BOOKKEEPING), wanted=spec.names)
    check_units_and_rate(source, spec, columns)
    return as_rows(np.stack([columns.values[name] for name in spec.names], axis=-1), source, spec)


def check_names(path: Path | str, spec: ActionSpec, found: set[str], *, wanted: tuple[str, ...]) -> None:
    """Refuse columns that are missing or that the model does not know."""
    missing, foreign = [n for n in wanted if n not in found], sorted(found - set(wanted))
    if not missing and not foreign:
        return
    units = dict(zip(spec.names, spec.units, strict=True))
    parts = []
    if missing:
        parts.append("lacks " + ", ".join(f"{name} [{units[name]}]" for name in missing))
    if foreign:
        parts.append("has columns the model does not know: " + ", ".join(foreign))
    expected = ", ".join(f"{name} [{units[name]}]" for name in wanted)
    raise InputError(
        f"{path} {' and '.join(parts)}. The model takes, in frame {spec.frame!r} at {spec.rate_hz:g} rows/s: {expected}"
    )


def check_units_and_rate(path: Path | str, spec: ActionSpec, columns: Columns) -> None:
    """Refuse a stated unit or rate that is not the spec's."""
    for name, unit in zip(spec.names, spec.units, strict=True):
        stated = columns.units.get(name)
        if stated is not None and stated != unit:
            raise InputError(
                f"{path}: {name} is given in {stated!r}, the model takes {unit!r}: convert the column and its header"
            )
    if columns.rate_hz is not None and not math.isclose(columns.rate_hz, spec.rate_hz, rel_tol=0.01):
        raise InputError(
            f"{path}: {columns.rate_hz:.4g} rows/s, the model takes {spec.rate_hz:g}: give one row per model frame"
        )


def as_rows(actions: np.ndarray, path: Path | str, spec: ActionSpec) -> np.ndarray:
    """Actions as float32 ``[rows, A]``. Raises DataError for another shape and for what float32 cannot hold."""
    if actions.ndim != 2 or actions.shape[1] != spec.width:
        raise DataError(f"{path}: actions have shape {actions.shape}, wanted [rows, {spec.width}]")
    huge = np.argwhere(np.abs(actions) > np.finfo(np.float32).max)
    if len(huge):
        row, column = huge[0]
        raise DataError(
            f"{path}: {spec.names[column]} is {actions[row, column]:g} in row {row}: too large for a 32-bit number"
        )
    return actions.astype(np.float32)


def name_and_unit(heading: str) -> tuple[str, str | None]:
    """``camera_orbit_rate [deg/s]`` -> its name and unit; None where it states no unit."""
    name, bracket, unit = heading.strip().partition("[")
    return name.strip(), unit.rstrip().removesuffix("]").strip() if bracket else None


def _first_bad(column: np.ndarray) -> int:
    return int(np.argwhere(~np.isfinite(column.reshape(len(column), -1)).all(axis=1))[0, 0])


def _rate_of(values: dict[str, np.ndarray]) -> float | None:
    """Rows a second from ``pts_seconds``, if there are at least two rows."""
    pts = values.get("pts_seconds")
    if pts is None or len(pts) < 2:
        return None
    steps = np.diff(pts)
    if not (steps > 0).all():
        raise ValueError("pts_seconds does not rise from row to row")
    return float(1.0 / np.median(steps))


def _read_csv(path: Path) -> Columns:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file) if row]
    if len(rows) < 2:
        raise ValueError("a header and at least one row of numbers are needed")
    names, units = [], {}
    for cell in rows[0]:
        name, unit = name_and_unit(cell)
        names.append(name)
        if unit is not None:
            units[name] = unit
    if len(set(names)) != len(names):
        raise ValueError(f"a column name occurs twice: {names}")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(names):
            raise ValueError(f"line {number} has {len(row)} fields, the header {len(names)}")
    table = np.array([[float(cell) for cell in row] for row in rows[1:]])
    values = {name: table[:, index] for index, name in enumerate(names)}
    return Columns(values, units, _rate_of(values), None)


def _read_json(path: Path) -> Columns:
    content: Any = json.loads(path.read_text(encoding="utf-8"))
    units: dict[str, str] = {}
    rate: float | None = None
    if isinstance(content, list):
        if not content or not all(isinstance(row, dict) for row in content):
            raise ValueError("a list must hold one object per row")
        if any(set(row) != set(content[0]) for row in content):
            raise ValueError("all rows must have the same names")
        content = {name: [row[name] for row in content] for name in content[0]}
    elif isinstance(content, dict):
        units = {str(name): str(unit) for name, unit in content.pop("units", {}).items()}
        rate = float(content.pop("rate_hz")) if "rate_hz" in content else None
    else:
        raise ValueError("wanted a list of objects or an object of lists")
    values = {str(name): np.asarray(column, dtype=np.float64) for name, column in content.items()}
    if any(column.ndim not in (1, 2) for column in values.values()):
        raise ValueError("every column must be a list of numbers")
    return Columns(values, units, rate if rate is not None else _rate_of(values), None)


def _read_parquet(path: Path) -> Columns:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(str(error)) from error
    values = {name: np.asarray(table.column(name).to_pylist(), dtype=np.float64) for name in table.column_names}
    note = json.loads((table.schema.metadata or {}).get(b"wfm", b"{}"))
    spec = ActionSpec.from_json(note["action_spec"]) if "action" in values and "action_spec" in note else None
    return Columns(values, {}, _rate_of(values), spec)
