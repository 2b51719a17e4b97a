"""The public table of a data set: one row for every clip ever cut, kept or not, with everything that is known about it.

``clips.parquet/`` and, beside it, ``videos.parquet/`` (`wfm.records.Video`, one row an input file) are public interfaces:
columns are added, never renamed or removed, within a schema version.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from wfm.curation.rows import Score, Selection
from wfm.errors import DataError
from wfm.records import Caption, Clip, Record


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipRow(Record):
    """One clip. Scores are null where the clip could not be scored."""

    clip_id: str
    clip_sha256: str
    video_id: str
    source: str
    "Path or URL of the video, as given."
    session_id: str
    view: str
    start_seconds: float
    "In the source, from the start of its video stream."
    end_seconds: float
    num_frames: int
    fps: float
    width: int
    height: int
    transcode: str
    "``copy`` or ``encode``."
    has_actions: bool
    kept: bool
    reason: str
    "Why it is not kept, one code; empty if kept."
    duplicate_of: str
    "The kept clip it repeats; empty unless the reason is ``duplicate``."
    duplicate_tier: str
    duplicate_cosine: float
    split: str
    "``train``, ``val``, ``test``; empty if not kept."
    group: str
    "Unit of splitting: clips that share sessions or duplicates."
    caption: str
    caption_source: str
    "``attributes``, ``measured``, or empty."
    motion: float | None
    motion_patch_minimum: float | None
    pan_x: float | None
    pan_y: float | None
    motion_source: str | None
    static_share: float | None
    frozen_share: float | None
    black_share: float | None
    sharpness: float | None
    brightness: float | None
    contrast: float | None
    text_score: float | None
    moving_share: float | None
    shard: str
    "Path of its shard in the data set; empty if not kept."


SCORES = tuple(field.name for field in dataclasses.fields(Score) if field.name not in ("clip_id", "clip_sha256"))
"""Names of the score columns, in order."""


Vector = tuple[str, np.ndarray]
"""(sha256 of the clip bytes it was made from, float16 [D])."""


@dataclasses.dataclass(frozen=True)
class Known:
    """What the stages found out about one clip."""

    clip: Clip
    selection: Selection
    score: Score | None
    caption: Caption | None
    embedding: np.ndarray | None = None

    @property
    def scores(self) -> dict[str, float | str | None]:
        """Score name -> value; None for a clip without scores."""
        return {name: getattr(self.score, name) if self.score is not None else None for name in SCORES}


def join(
    clips: Iterable[Clip],
    selection: Iterable[Selection],
    scores: Iterable[Score],
    captions: Iterable[Caption],
    embeddings: Mapping[str, Vector] | None = None,
) -> list[Known]:
    """The tables of one part, clip by clip in order of clip id.

    Raises `DataError` if a clip has no decision, or if a score or caption was made from other bytes than the clip's: a caption
    beside the wrong clip must never reach a data set.
    """
    chosen = {row.clip_id: row for row in selection}
    scored = {row.clip_id: row for row in scores}
    captioned = {row.clip_id: row for row in captions}
    known = []
    for clip in sorted(clips, key=lambda clip: clip.clip_id):
        if clip.clip_id not in chosen:
            raise DataError(f"clip {clip.clip_id!r} has no row in the selection: rerun select_clips")
        score, caption = scored.get(clip.clip_id), captioned.get(clip.clip_id)
        for name, row in (("score", score), ("caption", caption)):
            if row is not None and row.clip_sha256 != clip.clip_sha256:
                raise DataError(f"the {name} of clip {clip.clip_id!r} was made from other bytes: rerun {name}_clips")
        made_from, vector = (embeddings or {}).get(clip.clip_id, (clip.clip_sha256, None))
        if made_from != clip.clip_sha256:
            raise DataError(f"the embedding of clip {clip.clip_id!r} was made from other bytes: rerun embed_clips")
        known.append(Known(clip, chosen[clip.clip_id], score, caption, vector))
    return known


def clip_row(known: Known, shard: str) -> ClipRow:
    """The public row of one clip; ``shard`` is empty for one that is not kept."""
    caption = known.caption
    values: dict[str, Any] = {name: getattr(known.clip, name) for name in _FROM_CLIP}
    values |= {name: getattr(known.selection, name) for name in _FROM_SELECTION}
    values |= known.scores
    return ClipRow(
        **values,
        has_actions=bool(known.clip.action_path),
        caption=caption.caption if caption is not None else "",
        caption_source=caption.caption_source if caption is not None else "",
        shard=shard,
    )


_COLUMNS = {field.name for field in dataclasses.fields(ClipRow)}
_FROM_CLIP = tuple(field.name for field in dataclasses.fields(Clip) if field.name in _COLUMNS)
_FROM_SELECTION = tuple(
    field.name for field in dataclasses.fields(Selection) if field.name in _COLUMNS and field.name != "clip_id"
)
