"""A clip as cosmos-curate writes it, ``metas/v0/{uuid}.json``, to and from a row of our public table.

What that format has no place for stands under ``wfm``, so that what we export comes back whole. A meta that cosmos-curate
wrote has no such entry: then the clip id is the hash of its uuid, times count in microseconds, and the sessions are the source
videos.
"""

import dataclasses
import hashlib
import json
import uuid
from fractions import Fraction
from pathlib import Path
from typing import Any

from wfm.curation.clip_table import ClipRow
from wfm.errors import DataError

MICROSECONDS = 1_000_000
_WFM = "wfm"


def uuid_of(clip_id: str) -> str:
    """The uuid that stands for a clip: the first 128 bits of its id, so that it follows from the video and the span alone."""
    return str(uuid.UUID(clip_id[:32]))


def to_meta(row: dict[str, Any], video: dict[str, Any], num_bytes: int, codec: str) -> dict[str, Any]:
    """A row of ``clips.parquet`` and its video's row -> the meta. ``wfm`` holds the whole row."""
    window: dict[str, Any] = {"start_frame": 0, "end_frame": row["num_frames"]}
    if row["caption"]:
        window[f"{row['caption_source'] or 'wfm'}_caption"] = row["caption"]
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
        "windows": [window],
        "filtered_windows": [],
        "valid": bool(row["kept"]),
        "has_caption": bool(row["caption"]),
        _WFM: {name: row[name] for name in _COLUMNS if name in row},
    }
    if row.get("motion") is not None:
        meta["motion_score"] = {"global_mean": row["motion"], "per_patch_min_256": row["motion_patch_minimum"]}
    return meta


def from_meta(path: Path) -> ClipRow:
    """A meta -> the row. Raises `DataError` naming the file and the field that is missing or wrong."""
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(meta, dict):
            raise ValueError("a JSON object was expected")
        ours = meta.get(_WFM)
        if isinstance(ours, dict) and set(_REQUIRED) <= set(ours):
            values: dict[str, Any] = {name: ours.get(name) for name in _COLUMNS}
            return ClipRow(**values)
        return _foreign(meta)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: no clip as cosmos-curate writes it: {error!r}") from None


def _foreign(meta: dict[str, Any]) -> ClipRow:
    """A meta without our entry. Scores of theirs that mean something else than ours stay in the file, unread."""
    span, source = str(uuid.UUID(meta["span_uuid"])), str(meta["source_video"])
    start, end = (float(moment) for moment in meta["duration_span"])
    if not start < end:
        raise ValueError(f"duration_span {start} to {end} is not a span")
    frames, fps = int(meta["num_frames"]), float(Fraction(str(meta["framerate"])))
    video_id = hashlib.sha256(source.encode()).hexdigest()  # their bytes are not at hand: the name stands for them
    caption, kind = _caption(meta)
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
            "width": int(meta["width"]),
            "height": int(meta["height"]),
            "transcode": "encode",
            "has_actions": False,
            "kept": valid,
            "reason": "" if valid else "not_valid",
            "duplicate_of": "",
            "duplicate_tier": "",
            "duplicate_cosine": 0.0,
            "split": "",
            "group": video_id,
            "caption": caption,
            "caption_source": kind,
            "shard": "",
        }
    )


def _caption(meta: dict[str, Any]) -> tuple[str, str]:
    """The first window's caption, an enhanced one before a plain one, and the model it names."""
    for window in meta.get("windows") or ():
        for end in ("_enhanced_caption", "_caption"):
            for name in sorted(window):
                if name.endswith(end) and isinstance(window[name], str) and window[name]:
                    return window[name], name.removesuffix(end)
    return "", ""


_COLUMNS = tuple(field.name for field in dataclasses.fields(ClipRow))
_REQUIRED = ("clip_id", "clip_sha256", "video_id", "session_id", "start_seconds", "end_seconds", "kept", "split")
