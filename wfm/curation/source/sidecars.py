"""The sidecars of a video: actions (a table by time) and attributes (what is said of its shots). Checked, and cut by time.

Actions: Parquet with ``pts_seconds`` float64, ``action`` list<float32>[A] and any further columns; the schema metadata ``wfm``
holds JSON {schema_version, action_spec, session_id, view}. Attributes: JSON {schema_version, session_id, view, shots: [...]}.
Seconds count from the start of the video.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wfm.actions import ActionSpec
from wfm.curation.source.listing_rows import table_problem
from wfm.curation.source.untrusted_rows import LONGEST_NAME
from wfm.errors import DataError, WfmError

if TYPE_CHECKING:
    import pyarrow as pa

NEWEST_SCHEMA = 1
LONGEST_SHOT = 100_000
"Characters of a shot as JSON; every clip of it holds it."
LARGEST_ATTRIBUTES = 2**24
"Bytes of an attributes file; as Python's objects it takes some twenty times as much."
LARGEST_ACTIONS = 2**29
"Bytes that an actions table unpacks to."
MOST_ACTIONS = 10_000_000
"Rows of an actions table, and a tenth of the numbers in it."
_METADATA = b"wfm"


def check_actions(path: Path) -> dict[str, str]:
    """session_id and view of an actions table. Raises `DataError` unless it is whole: sorted times, finite actions of the
    spec's width."""
    table = read_actions(path)
    header = actions_header(table, path.name)
    spec = action_spec(table, path.name)
    times = table["pts_seconds"].to_numpy()
    if table.num_rows == 0:
        raise DataError(f"actions {path.name!r}: the table has no rows")
    if not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        raise DataError(f"actions {path.name!r}: pts_seconds must be finite and rising")
    import pyarrow.compute as pc

    widths = set(pc.unique(pc.list_value_length(table["action"])).to_pylist())
    if widths != {spec.width}:
        raise DataError(
            f"actions {path.name!r}: rows are {sorted(widths)} wide, the action spec has {spec.width} names"
        )
    if spec.width and not np.isfinite(pc.list_flatten(table["action"]).to_numpy()).all():
        raise DataError(f"actions {path.name!r}: an action is not finite")
    return _recording(header)


def read_actions(path: Path) -> "pa.Table":
    """The table. Raises `DataError` when it is not Parquet, lacks a column, or has one of another type."""
    import pyarrow as pa

    try:
        table = _read_bounded(path)
    except (pa.ArrowException, OSError, LookupError, ValueError) as error:
        raise DataError(f"actions {path.name!r} cannot be read as Parquet: {error}") from error
    missing = [name for name in ("action", "pts_seconds") if table.column_names.count(name) != 1]
    if missing:
        raise DataError(f"actions {path.name!r} lacks the columns {', '.join(missing)}, or has them twice")
    times, action = (table.schema.field(name).type for name in ("pts_seconds", "action"))
    kinds = pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list
    if times != pa.float64() or not any(kind(action) for kind in kinds) or not pa.types.is_floating(action.value_type):
        raise DataError(
            f"actions {path.name!r}: pts_seconds is {times}, action {action}: float64 and list<float> are wanted"
        )
    if table["action"].null_count:
        raise DataError(f"actions {path.name!r}: {table['action'].null_count} rows have no action")
    return table


def _read_bounded(path: Path) -> "pa.Table":
    """The table. A text that repeats is stored once and read as often as it counts, so its length is looked at in between."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        problem = table_problem(file.metadata, schema.names, LARGEST_ACTIONS, MOST_ACTIONS, 10 * MOST_ACTIONS)
    if problem:
        raise DataError(f"actions {path.name!r} {problem}")
    kinds = pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary
    texts = [field.name for field in schema if any(kind(field.type) for kind in kinds)]
    with pq.ParquetFile(path, read_dictionary=texts) as file:
        table = file.read()
    for name in texts:
        field = schema.field(name)
        column = table[name]
        if not pa.types.is_dictionary(column.type) or column.type == field.type:
            continue
        for chunk in column.chunks:
            chunk.validate(full=True)  # what is cast must not point beyond the texts that there are
        lengths = [pc.sum(pc.take(pc.binary_length(chunk.dictionary), chunk.indices)) for chunk in column.chunks]
        if (size := sum(length.as_py() or 0 for length in lengths)) > LARGEST_ACTIONS:
            raise DataError(
                f"actions {path.name!r}: the texts of {name!r} unpack to {size:,} bytes; leave the column out"
            )
        table = table.set_column(table.column_names.index(name), field, column.cast(field.type))
    return table


def actions_header(table: "pa.Table", name: str) -> dict[str, Any]:
    """The JSON in the schema metadata. Raises `DataError` when it is missing or newer than this code."""
    if _METADATA not in (table.schema.metadata or {}):
        raise DataError(f"actions {name!r}: the schema metadata 'wfm' must hold JSON with action_spec")
    return _header(table.schema.metadata[_METADATA], f"actions {name!r}")


def action_spec(table: "pa.Table", name: str) -> ActionSpec:
    """What the action vectors mean. Raises `DataError`."""
    try:
        return ActionSpec.from_json(actions_header(table, name)["action_spec"])
    except (KeyError, TypeError, WfmError) as error:
        raise DataError(f"actions {name!r}: action_spec is missing or wrong: {error}") from error


def check_attributes(path: Path) -> dict[str, str]:
    """session_id and view of an attributes file. Raises `DataError` unless every shot has a span."""
    header = read_attributes(path)
    return _recording(header)


def read_attributes(path: Path) -> dict[str, Any]:
    """The whole file, its shots with ``start_seconds`` < ``end_seconds``. Raises `DataError`."""
    where = f"attributes {path.name!r}"
    try:
        if path.stat().st_size > LARGEST_ATTRIBUTES:
            raise DataError(f"{where} is larger than {LARGEST_ATTRIBUTES:,} bytes")
        header = _header(path.read_bytes(), where)
        for shot in header.get("shots", []):
            if len(json.dumps(shot)) > LONGEST_SHOT:
                raise DataError(f"{where}: a shot has more than {LONGEST_SHOT:,} characters")
            if not float(shot["start_seconds"]) < float(shot["end_seconds"]):
                raise DataError(f"{where}: a shot ends before it begins: {shot}")
    except (ArithmeticError, ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise DataError(f"{where}: not a JSON object with shots of start_seconds and end_seconds: {error!r}") from error
    return header


def cut_actions(table: "pa.Table", start_seconds: float, end_seconds: float, frame_seconds: float) -> "pa.Table | None":
    """The rows of ``[start, end)``, times from the start of the clip, metadata kept; None when they do not cover the clip.

    Times may differ from frame times by rounding: half a frame is allowed for. Covered means that the first row comes within
    a frame (or a row's own spacing) of the start and the last one of the end.
    """
    import pyarrow as pa

    times = table["pts_seconds"].to_numpy()
    slack = 0.5 * frame_seconds
    keep = (times >= start_seconds - slack) & (times < end_seconds - slack)
    if not keep.any():
        return None
    kept = times[keep]
    spacing = float(np.median(np.diff(times))) if len(times) > 1 else frame_seconds
    allowed = 1.5 * max(spacing, frame_seconds)
    if kept[0] > start_seconds + allowed or kept[-1] < end_seconds - frame_seconds - allowed:
        return None
    clip = table.filter(pa.array(keep))
    column = clip.column_names.index("pts_seconds")
    clip = clip.set_column(column, clip.schema.field(column), pa.array(np.maximum(kept - start_seconds, 0.0)))
    return clip.replace_schema_metadata(table.schema.metadata)


def overlapping_shot(attributes: dict[str, Any], start_seconds: float, end_seconds: float) -> str:
    """JSON of the shot that the clip shows most of, with the share of the clip it covers; "" when it shows none. Of an empty
    span, as a still image's is, the first shot of that moment."""
    best, share = None, 0.0
    if end_seconds <= start_seconds:
        end_seconds = start_seconds + 1e-6
    for shot in attributes.get("shots", []):
        seconds = min(end_seconds, float(shot["end_seconds"])) - max(start_seconds, float(shot["start_seconds"]))
        if seconds / (end_seconds - start_seconds) > share:
            best, share = shot, seconds / (end_seconds - start_seconds)
    if best is None:
        return ""
    return json.dumps({**best, "overlap_fraction": round(share, 6)}, sort_keys=True, ensure_ascii=False)


def _recording(header: dict[str, Any]) -> dict[str, str]:
    """session_id and view as texts; view may be the number 0."""
    return {name: "" if header.get(name) is None else str(header[name]) for name in ("session_id", "view")}


def _header(data: bytes, where: str) -> dict[str, Any]:
    """Checked JSON from outside; what tables cannot hold (NaN, halves of characters) is refused here, not where it is used."""
    try:
        header = json.loads(data)
        json.dumps(header, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON: {type(error).__name__}: {str(error)[:200]}") from error
    if not isinstance(header, dict):
        raise DataError(f"{where}: a JSON object was expected")
    version = header.get("schema_version", 1)
    if not isinstance(version, int) or version > NEWEST_SCHEMA:
        raise DataError(f"{where}: schema version {version} is newer than {NEWEST_SCHEMA}: upgrade wfm")
    long = [name for name in ("session_id", "view") if len(str(header.get(name))) > LONGEST_NAME]
    if long:
        raise DataError(f"{where}: {long[0]} has more than {LONGEST_NAME} characters")
    return header
