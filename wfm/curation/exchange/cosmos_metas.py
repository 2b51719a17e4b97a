"""A clip as cosmos-curate writes it, ``metas/v0/{uuid}.json``, to and from a row of our public table.

What that format has no place for stands under ``wfm`` (the whole row, its windows, the video's rights), so that what is
exported comes back whole. A meta that cosmos-curate
wrote has no such entry: then the clip id is the hash of its uuid, times count in microseconds, and the sessions are the source
videos.
"""

import dataclasses
import hashlib
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wfm.curation.dataset.clip_table import ClipRow
from wfm.curation.exchange.cosmos_windows import caption_of, from_windows, to_windows
from wfm.curation.rows import CaptionWindow
from wfm.curation.source.rights import COLUMNS
from wfm.curation.source.untrusted_rows import LONGEST_NAME, checked_row, count_of, rate_of, seconds_of, text_of
from wfm.errors import DataError
from wfm.records import Rights

MICROSECONDS = 1_000_000
_WFM, _WINDOWS, _RIGHTS = "wfm", "windows", "rights"
_OF_VIDEO: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "width": ("width_source", count_of),
    "height": ("height_source", count_of),
    "fps": ("framerate_source", rate_of),
}
LARGEST_META = 2**24
"""Bytes of one meta."""


def uuid_of(clip_id: str) -> str:
    """The uuid that stands for a clip: the first 128 bits of its id, so that it follows from the video and the span alone."""
    return str(uuid.UUID(clip_id[:32]))


@dataclasses.dataclass(frozen=True)
class Meta:
    """What a meta says."""

    row: ClipRow
    video: dict[str, Any]
    "Columns of the source video: width, height, fps, where they are known."
    rights: dict[str, str]
    "Of the source video, by the names of `rights.COLUMNS`; empty where nothing was stated."
    windows: list[dict[str, Any]]
    "Rows of ``caption_windows`` without the clip they are of."


def to_meta(
    row: dict[str, Any],
    video: dict[str, Any],
    num_bytes: int,
    codec: str,
    windows: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """A row of ``clips.parquet``, its video's row and its rows of ``caption_windows`` -> the meta."""
    told = {name: video[name] for name in COLUMNS if video.get(name)}
    own = {name: row[name] for name in _COLUMNS if name in row}
    meta: dict[str, Any] = {
        "span_uuid": uuid_of(row["clip_id"]),
        "source_video": row["source"],
        "duration_span": [row["start_seconds"], row["end_seconds"]],
        "width_source": video["width"],
        "height_source": video["height"],
        "framerate_source": video["fps"],
        "clip_location": f"clips/{uuid_of(row['clip_id'])}.mp4",
        "width": row["width"],
        "height": row["height"],
        "framerate": row["fps"],
        "num_frames": row["num_frames"],
        "video_codec": codec,
        "num_bytes": num_bytes,
        "windows": to_windows(windows, row["num_frames"], row["caption"], row["caption_source"]),
        "filtered_windows": [],
        "valid": bool(row["kept"]),
        "has_caption": bool(row["caption"]),
        _WFM: {**own, _WINDOWS: [dict(window) for window in windows], _RIGHTS: told},
    }
    if row.get("motion") is not None:
        meta["motion_score"] = {"global_mean": row["motion"], "per_patch_min_256": row["motion_patch_minimum"]}
    return meta


def from_meta(path: Path) -> Meta:
    """A meta -> what it says. Raises `DataError` naming the file and the field that is missing or wrong."""
    try:
        if path.stat().st_size > LARGEST_META:
            raise ValueError(f"more than {LARGEST_META:,} bytes")
        meta = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(meta, dict):
            raise ValueError("a JSON object was expected")
        ours = meta.get(_WFM)
        video = {name: read(meta[key]) for name, (key, read) in _OF_VIDEO.items() if meta.get(key)}
        if isinstance(ours, dict) and set(_REQUIRED) <= set(ours):
            values: dict[str, Any] = dict.fromkeys(_COLUMNS)
            values |= checked_row(ClipRow, {name: ours[name] for name in _COLUMNS if name in ours})
            rights = checked_row(Rights, ours.get(_RIGHTS, {}))
            windows = [checked_row(CaptionWindow, window) for window in ours.get(_WINDOWS, [])]
            return Meta(ClipRow(**values), video, rights, windows)
        windows = from_windows(meta.get("windows") or ())
        return Meta(_foreign(meta, *caption_of(windows)), video, {}, windows)
    except (OSError, ArithmeticError, AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise DataError(f"{path}: no clip as cosmos-curate writes it: {repr(error)[:500]}") from None


def _foreign(meta: dict[str, Any], caption: str, kind: str) -> ClipRow:
    """A meta without our entry. Scores of theirs that mean something else than ours stay in the file, unread."""
    span, source = str(uuid.UUID(meta["span_uuid"])), text_of(meta["source_video"])
    start, end = (seconds_of(moment) for moment in meta["duration_span"])
    if not start < end:
        raise ValueError(f"duration_span {start} to {end} is not a span")
    frames, fps = count_of(meta["num_frames"]), rate_of(meta["framerate"])
    video_id = hashlib.sha256(source.encode()).hexdigest()  # their bytes are not at hand: the name stands for them
    valid = bool(meta.get("valid", True))
    nothing: dict[str, Any] = dict.fromkeys(_COLUMNS)
    return ClipRow(
        **{
            **nothing,
            "clip_id": hashlib.sha256(span.encode()).hexdigest(),
            "clip_sha256": "",
            "video_id": video_id,
            "source": source,
            "session_id": video_id,
            "view": "",
            "start_seconds": start,
            "end_seconds": end,
            "num_frames": frames,
            "fps": fps,
            "width": count_of(meta["width"]),
            "height": count_of(meta["height"]),
            "transcode": "encode",
            "has_actions": False,
            "kept": valid,
            "reason": "" if valid else "not_valid",
            "duplicate_of": "",
            "duplicate_tier": "",
            "duplicate_cosine": 0.0,
            "split": "",
            "group": video_id,
            "caption": text_of(caption),
            "caption_source": text_of(kind, LONGEST_NAME),
            "shard": "",
        }
    )


_COLUMNS = tuple(field.name for field in dataclasses.fields(ClipRow))
_REQUIRED = ("clip_id", "clip_sha256", "video_id", "session_id", "start_seconds", "end_seconds", "kept", "split")
