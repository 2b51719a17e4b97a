"""The kept clips of a corpus as vectors, for steps that look at all of them at once: by what is said, or by how they look.

Everything is held in memory, as in `dedup`: 1 million clips of 384 numbers take 1.5 GB.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from wfm.curation.rows import Selection, vectors
from wfm.errors import DataError
from wfm.parts.tables import read_folder

if TYPE_CHECKING:
    from wfm.artifacts import Artifact

Space = Literal["captions", "looks"]


class Sentences(Protocol):
    """A sentence encoder, given by whoever may load models."""

    identity: str
    "Equal identities give equal vectors."

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [N, D], one vector a text."""
        ...


@dataclasses.dataclass(frozen=True)
class KeptClips:
    """N clips, those of a selection in order of part, then of clip id."""

    clip_ids: list[str]
    captions: list[str]
    "Empty where nothing is said."
    splits: list[str]
    vectors: np.ndarray
    "float32 [N, D]; zeros for a clip that cannot be compared."
    part_of: dict[str, str] = dataclasses.field(default_factory=dict)
    "Clip id -> its part; empty where nothing is written by part."
    parts: list[str] = dataclasses.field(default_factory=list)
    "Names of all parts, those without a kept clip too."

    @property
    def comparable(self) -> np.ndarray:
        """Rows, int64, of the clips that can be compared."""
        return np.flatnonzero(self.vectors.any(axis=1))


def kept_clips(
    selection: "Artifact",
    captions: "Artifact",
    *,
    embeddings: "Artifact | None" = None,
    encode: Sentences | None = None,
) -> KeptClips:
    """The kept clips with the vectors of ``embeddings``, or else of their captions by ``encode``."""
    by_part = read_folder(selection, "selection", Selection)
    rows = [(row, part) for part, found in sorted(by_part.items()) for row in found if row.kept]
    said = captions.table("captions", ["clip_id", "caption"])
    text = dict(zip(said.column("clip_id").to_pylist(), said.column("caption").to_pylist(), strict=True))
    clip_ids = [row.clip_id for row, _ in rows]
    sentences = [text.get(clip_id, "") for clip_id in clip_ids]
    if embeddings is not None:
        found = _embedded(embeddings, clip_ids)
    elif encode is not None:
        found = encoded(encode, sentences)
    else:
        raise ValueError("kept_clips needs embeddings or an encoder")
    part_of = {row.clip_id: part for row, part in rows}
    return KeptClips(clip_ids, sentences, [row.split for row, _ in rows], found, part_of, sorted(by_part))


def encoded(encode: Sentences, sentences: Sequence[str]) -> np.ndarray:
    """float32 [N, D]; a sentence that several clips share is encoded once, an empty one is zeros (no direction)."""
    if not len(sentences):
        return np.zeros((0, 1), np.float32)
    once, back = np.unique(np.array(sentences, dtype=object).astype(str), return_inverse=True)
    made = np.asarray(encode(list(once)), np.float32)  # [U, D]
    made[[not text.strip() for text in once]] = 0
    return made[back]


def _embedded(embeddings: "Artifact", clip_ids: Sequence[str]) -> np.ndarray:
    """float32 [N, D] of these clips, in this order; zeros where there is no embedding."""
    place = {clip_id: row for row, clip_id in enumerate(clip_ids)}
    found: np.ndarray | None = None
    for _, table in embeddings.iterate_table("embeddings", ["clip_id", "embedding"]):
        if not len(table):
            continue
        matrix = vectors(table)
        if found is None:
            found = np.zeros((len(clip_ids), matrix.shape[1]), np.float32)
        if matrix.shape[1] != found.shape[1]:
            raise DataError(f"{embeddings!r} has vectors of {found.shape[1]} and of {matrix.shape[1]} numbers")
        ids = table.column("clip_id").to_pylist()
        mine = [(row, place[clip_id]) for row, clip_id in enumerate(ids) if clip_id in place]
        if mine:
            rows, places = map(list, zip(*mine, strict=True))
            found[places] = matrix[rows]
    return found if found is not None else np.zeros((len(clip_ids), 1), np.float32)
