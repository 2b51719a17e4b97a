"""Rows of the tables between score and the data set: what later steps know of earlier ones.

Kept apart from the steps that write them: a step's key follows the code it imports, so an edited filter must not be a change to
whoever only reads its rows.
"""

import dataclasses
from typing import ClassVar

import numpy as np
import pyarrow as pa

from wfm.records import Record

SPLITS = ("train", "val", "test")
EMBEDDING_WIDTH = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score(Record):
    """The scores of one clip. Shares are of its frames or of its picture, 0 to 1. What takes time to see is null for a still
    image."""

    null_where_needed = (
        *("motion", "motion_patch_minimum", "pan_x", "pan_y", "motion_source", "static_share", "frozen_share"),
        *("text_score", "moving_share"),
    )

    clip_id: str
    clip_sha256: str
    "The clip bytes the scores were made from."
    motion: float | None
    "Mean speed, longer picture sides a second."
    motion_patch_minimum: float | None
    "The same in the calmest of 4 x 4 patches: about 0 with a camera at rest."
    pan_x: float | None
    "Mean velocity of the picture's content to the right, longer sides a second."
    pan_y: float | None
    "The same, downwards."
    motion_source: str | None
    "``codec_vectors``, or ``block_difference`` where the codec holds none."
    static_share: float | None
    "Share of frames that equal the picture a quarter of a second later."
    frozen_share: float | None
    "Share of frames that repeat the one before."
    black_share: float
    "Share of frames that are black."
    sharpness: float
    "Variance of the Laplacian times 10,000."
    brightness: float
    "Mean, 0 to 1."
    contrast: float
    "Standard deviation of brightness within a frame, of 1."
    text_score: float | None
    "Share of the picture under overlaid strokes."
    moving_share: float | None
    "Share of edge strength that does not stay in place: near 0, the text score says nothing."


@dataclasses.dataclass(frozen=True, kw_only=True)
class CaptionWindow(Record):
    """What a model said of a part of a clip (table ``caption_windows``)."""

    SCHEMA_VERSION = 2

    clip_id: str
    clip_sha256: str
    start_frame: int
    end_frame: int
    caption: str
    "In the model's first words."
    model: str
    prompt_sha256: str
    "Of the template."
    short: str = ""
    medium: str = ""
    long: str = ""
    "Rewritten; empty where not asked for."
    rewrite_model: str = ""
    rewrite_prompt_sha256: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Embedding(Record):
    """The embedding of one clip; in tables the vector is a fixed-size list of float16."""

    clip_id: str
    clip_sha256: str
    "The clip bytes the embedding was made from."
    session_id: str
    model: str
    flat: bool
    "No contrast, so no direction: the vector is zeros."
    embedding: list[float]
    "Length 1 (or zeros), as many numbers as the model has: 256 for the one without weights."

    WIDTH: ClassVar[int] = EMBEDDING_WIDTH

    @classmethod
    def of_width(cls, width: int) -> "type[Embedding]":
        """The same record with vectors of another width, so that parts without a row have the schema of the others."""
        return type("Embedding", (cls,), {"WIDTH": width})

    @classmethod
    def schema(cls) -> pa.Schema:
        """The record's schema with the vector as fixed_size_list<float16>."""
        plain = super().schema()
        index = plain.get_field_index("embedding")
        return plain.set(index, pa.field("embedding", pa.list_(pa.float16(), cls.WIDTH), nullable=False))


def vectors(table: pa.Table) -> np.ndarray:
    """The embeddings of a table as float16 [N, D], without a copy per row."""
    Embedding.check(table.schema)
    column = table.column("embedding").combine_chunks()
    flat = column.flatten() if not isinstance(column, pa.ChunkedArray) else column.chunk(0).flatten()
    return flat.to_numpy(zero_copy_only=False).reshape(-1, table.schema.field("embedding").type.list_size)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DuplicateRow(Record):
    """One clip's place among its duplicates."""

    clip_id: str
    component: str
    "Smallest clip id of the connected component; the clip's own if it has no duplicate."
    quality_rank: int
    "0 is the best clip of the corpus; keepers are chosen in this order."
    duplicate_of: str
    "A kept clip this one repeats, or empty: this clip is kept."
    tier: str
    "``bytes``, ``perceptual``, ``embedding``, or empty."
    cosine: float
    "With ``duplicate_of``; 1 for equal bytes, 0 if there is none."


@dataclasses.dataclass(frozen=True, kw_only=True)
class DuplicatePair(Record):
    """Two clips that are the same thing, ``clip_id`` < ``other_id``. (Equal bytes show in the clips table.)"""

    clip_id: str
    other_id: str
    cosine: float
    "Of the embeddings; for ``perceptual`` the mean correlation of aligned thumbnails."
    tier: str = "embedding"
    "``perceptual`` or ``embedding``."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection(Record):
    """The decision about one clip."""

    clip_id: str
    kept: bool
    "Whether it is in the data set."
    reason: str
    "Empty if kept, else the code of the first filter that refused it."
    duplicate_of: str
    "The kept clip it repeats, where the reason is ``duplicate``."
    duplicate_tier: str
    "``bytes``, ``perceptual``, ``embedding``, or empty."
    duplicate_cosine: float
    "Of the two embeddings; 1 for equal bytes, 0 if it is no duplicate."
    split: str
    "``train``, ``val`` or ``test``; empty if not kept."
    group: str
    "Smallest clip id of the session and duplicate group: the unit of splitting."


@dataclasses.dataclass(frozen=True, kw_only=True)
class AestheticRow(Record):
    """What a head over the embeddings says of one clip."""

    clip_id: str
    clip_sha256: str
    "The clip bytes the embedding was made from."
    aesthetic: float | None
    "In the unit of the head (published ones: 1 to 10); null for a clip whose embedding has no direction."


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClusterRow(Record):
    """One kept clip's cluster; a clip that could not be compared has none."""

    clip_id: str
    cluster: int
    "0 is the largest."
    cluster_name: str
    "Words that its captions have more often than others."
    cluster_cosine: float
    "To the centre of its cluster."


@dataclasses.dataclass(frozen=True, kw_only=True)
class CategoryRow(Record):
    """One kept clip's category."""

    clip_id: str
    category: str
    "Its name in the taxonomy, or other."
    category_cosine: float
    "To the category; where it is other, to the nearest."
    category_margin: float
    "By how much the second nearest is further away."


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixtureRow(Record):
    """One kept clip's weight in training (`wfm.data.mixture`)."""

    clip_id: str
    category: str
    weight: float
    "How often it is drawn, relative to the mean of the clips to train on."
