"""What deduplication would drop at several thresholds, before one is chosen: nothing is stored, nothing is dropped.

The pairs are sought once, at the lowest threshold; each higher one takes those that reach it and chooses keepers anew, so its
answer is that of a run of its own.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from wfm.curation.dedup.dedup import DedupConfig, decide, find_pairs, merged
from wfm.curation.dedup.earlier import duplicates_of
from wfm.curation.rows import DuplicateRow, Score
from wfm.errors import ConfigError, InputError
from wfm.records import Clip

if TYPE_CHECKING:
    from wfm.artifacts import Artifact, Store


class Gone(NamedTuple):
    """A clip that would be dropped."""

    clip_id: str
    duplicate_of: str
    tier: str
    cosine: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class Trial:
    """What one threshold would do."""

    threshold: float
    pairs: int
    "By embedding and by look; equal bytes are not among them."
    groups: int
    "Of two clips and more that hang together."
    largest: int
    "Clips of the largest group."
    gone: tuple[Gone, ...]
    "In order of clip id."

    def by_tier(self) -> dict[str, int]:
        """How many would go by each tier."""
        return dict(Counter(line.tier for line in self.gone))


@dataclasses.dataclass(frozen=True)
class Tables:
    """What deduplication compares."""

    clips: Sequence[Clip]
    scores: Sequence[Score]
    embeddings: pa.Table
    signatures: pa.Table | None


def would_go(rows: Iterable[DuplicateRow], clips: Iterable[Clip]) -> list[Gone]:
    """What the rows of `dedup.find_duplicates` would drop and why, in order of clip id. (Only `select_clips` really drops.)"""
    length = {clip.clip_id: clip.end_seconds - clip.start_seconds for clip in clips}
    return [
        Gone(row.clip_id, row.duplicate_of, row.tier, row.cosine, length[row.clip_id])
        for row in sorted(rows, key=lambda row: row.clip_id)
        if row.duplicate_of
    ]


def trials(tables: Tables, config: DedupConfig, thresholds: Sequence[float]) -> list[Trial]:
    """One a threshold, in the order given. Raises `ConfigError` for a threshold that is no cosine."""
    wrong = [t for t in thresholds if not 0 < t <= 1]
    if wrong or not thresholds:
        raise ConfigError(f"thresholds = {list(thresholds)}: cosines above 0, at most 1, such as 0.95")
    lowest = config.model_copy(update={"threshold": min(thresholds)})
    near, looked, _ = find_pairs(tables.clips, tables.embeddings, lowest, tables.signatures)
    found = []
    for threshold in thresholds:
        pairs = merged([pair for pair in near if pair.cosine >= threshold], looked)
        rows = decide(tables.clips, tables.scores, pairs)
        sizes = [size for size in Counter(row.component for row in rows).values() if size > 1]
        gone = tuple(would_go(rows, tables.clips))
        found.append(Trial(threshold, len(pairs), len(sizes), max(sizes, default=0), gone))
    return found


def read(store: "Store", key: str, *, look: bool) -> Tables:
    """The tables behind a ``dataset``, ``duplicates`` or ``embeddings`` artifact (the last has no scores: sharpness does not
    count then). Raises `InputError` for another kind, and where ``look`` finds no signatures."""
    from wfm.parts.tables import read_rows

    given = store.artifact(key)
    if given.kind not in ("dataset", "duplicates", "embeddings"):
        raise InputError(f"{key!r} is of kind {given.kind!r}: give a dataset, duplicates or embeddings")
    if given.kind == "dataset":
        given = store.artifact(duplicates_of(store, given))
    inputs = given.manifest.inputs
    embeddings: Artifact = given if given.kind == "embeddings" else store.artifact(inputs["embeddings"])
    clips = read_rows(store.artifact(inputs["clips"]), "clips", Clip)
    scores = read_rows(store.artifact(inputs["scores"]), "scores", Score) if given.kind == "duplicates" else []
    signatures = embeddings.table("signatures") if look else None
    return Tables(clips, scores, embeddings.table("embeddings"), signatures)
