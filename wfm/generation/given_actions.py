"""The actions of a prediction, however they are given, as one row for every frame.

A file (`action_files`, `camera_files`), a table of columns by name, or an array in the order of the model's action spec.
"""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from wfm.actions import ActionSpec
from wfm.errors import DataError, InputError
from wfm.generation.action_files import (
    Columns,
    actions_of,
    as_rows,
    check_columns,
    name_and_unit,
    read_actions,
    require_actions,
)
from wfm.generation.camera_files import camera_of, read_camera, require_camera

Table = Mapping[str, "float | Sequence[float] | Sequence[Sequence[float]] | np.ndarray"]
"""Columns by name, each optionally with its unit (``"camera_orbit_rate [deg/s]"``): a value for every row, or one for all."""
Actions = str | PathLike[str] | Table | np.ndarray
"""A file, a table, or raw values ``[rows, A]`` in the order of the spec."""
Camera = str | PathLike[str] | Table
"""A file or a table: rates, or poses (`camera_files`)."""
_IN_MEMORY = {"action": "actions", "camera": "camera"}
"""What errors call those that come from no file."""


def given_actions(
    actions: Actions | None, camera: Camera | None, spec: ActionSpec, *, past: int, total: int
) -> tuple[np.ndarray | None, dict[str, Any]]:
    """Raw actions float32 ``[total, A]`` in the spec's units, or None where none are given; and what was done to get them, for
    the sidecar.

    past: how many of the ``total`` frames are given. Rows are for every predicted frame (the first acts between the last given
    frame and the first predicted one), or for every frame. Raises InputError that names the column, row or number of rows that
    does not fit.
    """
    if actions is None and camera is None:
        return None, {"kind": "none", "words": "no action was given: the model without its actions"}
    require_one(actions, camera)
    kind, given = ("camera", camera) if actions is None else ("action", actions)
    name, rows = _rows(kind, given, spec, rows=total - past)
    if len(rows) in (total, total - 1):
        words = "rows cover the given and the predicted frames"
    elif len(rows) == total - past:
        rows = np.concatenate([np.repeat(rows[:1], past - 1, axis=0), rows])
        words = (
            "rows cover the predicted frames alone; the first one is taken to have acted during the given frames too"
        )
    else:
        raise InputError(
            f"{name}: {len(rows)} rows; give {total - past} (one for each predicted frame, the first acting between the last "
            f"given frame and the first predicted one), or {total} (one for every frame, the {past} given ones included)"
        )
    if len(rows) == total - 1:
        rows = np.concatenate([rows, rows[-1:]])  # what acts after the last frame is never seen
    return rows, {"kind": kind, "file": "" if name == _IN_MEMORY[kind] else name, "words": words, "rows": rows.tolist()}


def require_one(actions: object, camera: object) -> None:
    """Raise InputError where both are given."""
    if actions is not None and camera is not None:
        raise InputError("both actions and a camera path were given: give one (actions may hold those of the camera)")


def _rows(kind: str, given: Any, spec: ActionSpec, *, rows: int) -> tuple[str, np.ndarray]:
    """What errors and the sidecar call it, and its rows; ``rows``: as many where every column is one value."""
    if isinstance(given, str | PathLike):
        path = Path(given)
        return path.name, (read_actions if kind == "action" else read_camera)(path, spec)
    what = _IN_MEMORY[kind]
    (require_actions if kind == "action" else require_camera)(what, spec)
    if isinstance(given, Mapping):
        return what, (actions_of if kind == "action" else camera_of)(_columns(what, given, rows), spec, what)
    if kind == "camera":
        raise InputError(f"camera is a {type(given).__name__}: give a file, or columns by name as a dict")
    values = _numbers(what, given)
    if values.ndim != 2 or values.shape[1] != spec.width:
        expected = ", ".join(f"{name} [{unit}]" for name, unit in zip(spec.names, spec.units, strict=True))
        raise InputError(f"actions have shape {values.shape}, wanted [rows, {spec.width}]: {expected}")
    for index, name in enumerate(spec.names):
        check_columns(what, {name: values[:, index]})
    return what, as_rows(values, what, spec)


def _columns(what: str, table: Mapping[str, Any], rows: int) -> Columns:
    values, units = {}, {}
    for heading, given in table.items():
        name, unit = name_and_unit(str(heading))
        if name in values:
            raise InputError(f"{what}: {name!r} is given twice")
        values[name] = _numbers(f"{what}: {name}", given)
        if unit is not None:
            units[name] = unit
    longest = max((len(column) for column in values.values() if column.ndim), default=rows)
    values = {name: np.full(longest, column) if column.ndim == 0 else column for name, column in values.items()}
    check_columns(what, values)
    return Columns(values, units, None, None)


def _numbers(what: str, given: Any) -> np.ndarray:
    try:
        values = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{what}: not numbers: {error}") from None
    return values
