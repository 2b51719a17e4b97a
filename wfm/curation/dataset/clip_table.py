"""The public table of a data set: one row for every clip ever cut, kept or not, with everything that is known about it.

``clips.parquet/`` and, beside it, ``videos.parquet/`` (`wfm.records.Video`, one row an input file) are public interfaces:
columns are added, never renamed or removed, within a schema version.
"""

import dataclasses
import typing
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from wfm.curation.measure.measurements import Measures
from wfm.curation.rows import AestheticRow, CategoryRow, ClusterRow, Score, Selection
from wfm.errors import DataError
from wfm.records import Caption, Clip, Record, with_columns

SCORES = tuple(field.name for field in dataclasses.fields(Score) if field.name not in ("clip_id", "clip_sha256"))
"""Names of the score columns, in order."""
MORE: dict[str, type[Record]] = {
    "measures": Measures, "aesthetic": AestheticRow, "clusters": ClusterRow, "categories": CategoryRow,
}  # fmt: skip
"""Tables that need not be there -> their records; each has a row a clip at most."""
_KEYS = ("clip_id", "clip_sha256")
MORE_COLUMNS = {
    table: tuple(field.name for field in dataclasses.fields(record) if field.name not in _KEYS)
    for table, record in MORE.items()
}
"""Table -> its columns in the public table."""
MEASURED = (*SCORES, *MORE_COLUMNS["measures"], *MORE_COLUMNS["aesthetic"])
"""Columns that say something of the clip by itself, not beside others."""


def _nullable(record: type[Record], columns: Iterable[str]) -> dict[str, Any]:
    """Column -> type, null where nothing is known of the clip."""
    hints = typing.get_type_hints(record)
    return {name: hints[name] | None for name in columns}


def _beside() -> dict[str, Any]:
    """The columns of the tables that need not be there."""
    return {name: kind for table, names in MORE_COLUMNS.items() for name, kind in _nullable(MORE[table], names).items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
@with_columns(_nullable(Score, SCORES), after="caption_source")
@with_columns(_beside(), optional=_beside(), words=Measures.column_words)
class ClipRow(Record):
    """One clip. Scores are null where the clip could not be scored; so is what stands in `MORE` where that table has no row of
    the clip: nobody asked for it (score_clips.measures), or the clip is not kept (clusters and categories)."""

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
    "Whether the sample has actions (``.actions.parquet``)."
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
    shard: str
    "Path of its shard in the data set; empty if not kept."
    audio: str | None = None
    "As in `wfm.records.Clip`, like the next two; null where clips come from elsewhere, and nothing is known of it."
    interlaced: str | None = None
    uncommon: str | None = None


Vector = tuple[str, np.ndarray]
"""(sha256 of the clip bytes it was made from, float16 [D])."""


@dataclasses.dataclass(frozen=True)
class ClipFacts:
    """What the stages found out about one clip."""

    clip: Clip
    selection: Selection
    score: Score | None
    caption: Caption | None
    embedding: np.ndarray | None = None
    more: Mapping[str, Record] = dataclasses.field(default_factory=dict)
    "Table of `MORE` -> the clip's row, where there is one."
    windows: tuple[dict[str, Any], ...] = ()
    "Its rows of ``caption_windows``, where a model captioned windows."

    @property
    def scores(self) -> dict[str, Any]:
        """Score name -> value; None for a clip without scores. What was measured beside them is there where it is known."""
        values = {name: getattr(self.score, name) if self.score is not None else None for name in SCORES}
        return values | {name: value for name, value in self.others.items() if name in MEASURED and value is not None}

    @property
    def others(self) -> dict[str, Any]:
        """Column -> value of the rows in ``more``."""
        return {name: getattr(row, name) for table, row in self.more.items() for name in MORE_COLUMNS[table]}


def join(
    clips: Iterable[Clip],
    selection: Iterable[Selection],
    scores: Iterable[Score],
    captions: Iterable[Caption],
    embeddings: Mapping[str, Vector] | None = None,
    more: Mapping[str, Iterable[Record]] | None = None,
) -> list[ClipFacts]:
    """The tables of one part, clip by clip in order of clip id; ``more`` has those of `MORE` that are there.

    Raises `DataError` if a clip has no decision, or if a score or caption was made from other bytes than the clip's: a caption
    beside the wrong clip must never reach a data set.
    """
    chosen = {row.clip_id: row for row in selection}
    scored = {row.clip_id: row for row in scores}
    captioned = {row.clip_id: row for row in captions}
    others = {table: {row.clip_id: row for row in rows} for table, rows in (more or {}).items()}  # type: ignore[attr-defined]
    known = []
    for clip in sorted(clips, key=lambda clip: clip.clip_id):
        if clip.clip_id not in chosen:
            raise DataError(f"clip {clip.clip_id!r} has no row in the selection: rerun select_clips")
        score, caption = scored.get(clip.clip_id), captioned.get(clip.clip_id)
        found = {table: rows[clip.clip_id] for table, rows in others.items() if clip.clip_id in rows}
        beside: list[tuple[str, str, Any]] = [
            ("score", "score", score),
            ("caption", "caption", caption),
            ("measures", "score", found.get("measures")),
            ("aesthetic score", "embed", found.get("aesthetic")),
        ]
        for name, stage, row in beside:
            if row is not None and row.clip_sha256 != clip.clip_sha256:
                raise DataError(f"the {name} of clip {clip.clip_id!r} was made from other bytes: rerun {stage}_clips")
        made_from, vector = (embeddings or {}).get(clip.clip_id, (clip.clip_sha256, None))
        if made_from != clip.clip_sha256:
            raise DataError(f"the embedding of clip {clip.clip_id!r} was made from other bytes: rerun embed_clips")
        known.append(ClipFacts(clip, chosen[clip.clip_id], score, caption, vector, found))
    return known


def clip_row(known: ClipFacts, shard: str) -> ClipRow:
    """The public row of one clip; ``shard`` is empty for one that is not kept."""
    caption = known.caption
    values: dict[str, Any] = {name: getattr(known.clip, name) for name in _FROM_CLIP}
    values |= {name: getattr(known.selection, name) for name in _FROM_SELECTION}
    values |= known.scores | known.others
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
