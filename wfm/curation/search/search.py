"""Find clips of a finished data set: by words, or by an example clip, over an index that is built once and kept.

Two spaces, each with an index of its own (`search_index`):

    captions   what was said of a clip, as a sentence encoder sees it: for words, and for clips of a like content
    looks      the embedding that deduplication used: for clips that look and change like an example

The index lies in the data set's scratch folder of the store, under the hash of all that it depends on (the data set's
digest, the embeddings' digest or the encoder's identity, the index's config), so a stale one is never opened; garbage
collection takes it away and the next search builds it again. Only kept clips that
are not excluded are found.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wfm.curation.rows import vectors
from wfm.curation.search.search_index import FORMAT, IndexConfig, Piece, SearchIndex, open_or_build
from wfm.curation.select.kept_clips import KeptClips, Sentences, encoded
from wfm.data.exclusions import Exclusions, read_exclusions
from wfm.data.signatures import image_member
from wfm.errors import DataError, InputError

if TYPE_CHECKING:
    from wfm.artifacts import Artifact, Store

SPACES = ("captions", "looks")
SHOWN = (
    "clip_id", "clip_sha256", "caption", "source", "start_seconds", "end_seconds", "width", "height", "fps", "split", "shard"
)  # fmt: skip
"""Columns of the public table that the index keeps beside the vectors."""


@dataclasses.dataclass(frozen=True)
class Hit:
    """One clip that was found."""

    cosine: float
    clip_id: str
    caption: str
    source: str
    start_seconds: float
    end_seconds: float
    width: int
    height: int
    fps: float
    split: str
    shard: str
    "Path of its shard in the data set's artifact."
    clip_sha256: str


def open_dataset(store: "Store", reference: str) -> "Artifact":
    """The artifact of a data set by NAME, dataset/NAME@ALIAS or key. Raises InputError for anything else."""
    plain = "/" not in reference and not _is_key(reference)
    artifact = store.artifact(store.resolve(f"dataset/{reference}" if plain else reference))
    if artifact.kind != "dataset":
        raise InputError(
            f"--dataset {reference!r} is of kind {artifact.kind!r}: give a dataset (`wfm artifacts names`)"
        )
    return artifact


def captions_space(
    store: "Store", dataset: "Artifact", encode: Sentences, config: IndexConfig | None = None
) -> SearchIndex:
    """The index over the captions of the kept clips; clips without a caption are left out and counted."""
    config = config or IndexConfig()
    return _open(store, dataset, "captions", encode.identity, _caption_pieces(dataset, encode), config)


def looks_space(store: "Store", dataset: "Artifact", config: IndexConfig | None = None) -> SearchIndex:
    """The index over the embeddings that the data set was deduplicated with."""
    embeddings = embeddings_of(store, dataset)
    pieces = _embedding_pieces(dataset, embeddings)
    return _open(store, dataset, "looks", embeddings.manifest.digest, pieces, config or IndexConfig())


def embeddings_of(store: "Store", dataset: "Artifact") -> "Artifact":
    """The embeddings among what the data set was made from. Raises InputError when it was made without any."""
    found = [entry.key for entry in store.lineage(dataset.key) if entry.kind == "embeddings"]
    if not found:
        raise InputError(f"{dataset!r} was made without embeddings: search by words, or curate again with embed_clips")
    return store.artifact(found[0])


def search_words(index: SearchIndex, encode: Sentences, words: str, count: int, *, exact: bool = False) -> list[Hit]:
    """Clips whose captions are nearest to some words, best first."""
    if not words.strip():
        raise InputError("the words to search for are empty: say what is to be seen, such as 'red ball rolling'")
    return _hits(index, *index.nearest(encode([words])[0], count, exact=exact))


def search_like(index: SearchIndex, clip_id: str, count: int, *, exact: bool = False) -> list[Hit]:
    """Clips nearest to the one whose id begins with ``clip_id``, itself left out."""
    row = find_clip(index, clip_id)
    rows, cosines = index.nearest(index.vectors(np.array([row]))[0], count + 1, exact=exact)
    other = rows != row
    return _hits(index, rows[other][:count], cosines[other][:count])


def indexed_clips(dataset: "Artifact", index: SearchIndex) -> KeptClips:
    """All kept clips as vectors: those of an index, then, with zeros, those it had to leave out."""
    columns = ("clip_id", "caption", "split")
    ids, captions, splits = (index.rows.column(name).to_pylist() for name in columns)
    known = set(ids)
    for _, table in _kept(dataset):
        for clip_id, caption, split in zip(*(table.column(name).to_pylist() for name in columns), strict=True):
            if clip_id not in known:
                ids.append(clip_id)
                captions.append(caption)
                splits.append(split)
    found = np.zeros((len(ids), index.width), np.float32)
    found[: len(index)] = index.all_vectors()
    return KeptClips(ids, captions, splits, found)


def find_clip(index: SearchIndex, clip_id: str) -> int:
    """Row of the clip whose id begins with ``clip_id``. Raises InputError for none or several."""
    if len(clip_id) < 4:
        raise InputError(f"--clip {clip_id!r}: give a clip id, or at least its first 4 characters")
    column = index.rows.column("clip_id")
    found = np.flatnonzero(pc.starts_with(column, clip_id).to_numpy(zero_copy_only=False))
    if len(found) == 1:
        return int(found[0])
    if not len(found):
        raise InputError(f"--clip {clip_id!r}: no kept clip of this dataset that could be compared has such an id")
    some = ", ".join(column[int(row)].as_py()[:12] for row in found[:4])
    raise InputError(f"--clip {clip_id!r} is the beginning of {len(found)} clip ids: {some} ...")


def clip_bytes(dataset: "Artifact", hit: Hit) -> bytes:
    """The mp4 of a hit, or its image, out of its shard. Raises DataError when the shard holds other bytes than the table
    promised."""
    from wfm.data.shards import read_sample

    members = read_sample(dataset.fetch(hit.shard), hit.clip_id).members
    video = members[image_member(members) or "mp4"]
    if hashlib.sha256(video).hexdigest() != hit.clip_sha256:
        raise DataError(f"{hit.shard}: clip {hit.clip_id!r} has other bytes than the clips table says")
    return video


def _hits(index: SearchIndex, rows: np.ndarray, cosines: np.ndarray) -> list[Hit]:
    found = index.rows.take(pa.array(rows)).to_pylist()
    return [Hit(cosine=float(cosine), **row) for row, cosine in zip(found, cosines, strict=True)]


def _open(
    store: "Store", dataset: "Artifact", space: str, made_from: str, pieces: Iterator[Piece], config: IndexConfig
) -> SearchIndex:
    facts: dict[str, Any] = {
        "format": FORMAT, "space": space, "dataset": dataset.manifest.digest, "from": made_from, "config": config.what(),
    }  # fmt: skip
    stamp = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return open_or_build(store.scratch(dataset.key) / f"search-{space}-{stamp[:16]}", stamp, pieces, config)


def kept_rows(dataset: "Artifact", columns: list[str]) -> Iterator[pa.Table]:
    """These columns of the kept clips that are not excluded, part by part; nothing where the data set lacks one of them."""
    excluded = read_exclusions(dataset)
    for name, table in dataset.iterate_table("clips"):
        if not set(columns) <= set(table.column_names):
            return
        yield _left(table, excluded.of_part(name)).select(columns)


def _left(table: pa.Table, excluded: Exclusions) -> pa.Table:
    """The kept clips of a part's table without those that are excluded."""
    gone = pc.is_in(table.column("shard"), pa.array(sorted(excluded.shards), pa.string()))
    gone = pc.or_(gone, pc.is_in(table.column("clip_id"), pa.array(sorted(excluded.keys), pa.string())))
    return table.filter(pc.and_not(table.column("kept"), gone))


def _kept(dataset: "Artifact") -> Iterator[tuple[str, pa.Table]]:
    """(part name, the kept clips of a part that are not excluded), with ``shard`` as the path in the artifact."""
    excluded = read_exclusions(dataset)
    for name, table in dataset.iterate_table("clips", [*SHOWN, "kept"]):
        table = _left(table, excluded.of_part(name)).select(list(SHOWN))
        if name:
            paths = pc.binary_join_element_wise(f"parts/{name}/", table.column("shard"), "")
            table = table.set_column(SHOWN.index("shard"), "shard", paths)
        yield name, table


def _caption_pieces(dataset: "Artifact", encode: Sentences) -> Iterator[Piece]:
    """One piece a part."""
    for _, table in _kept(dataset):
        if not len(table):
            continue
        yield Piece(encoded(encode, table.column("caption").to_pylist()), table)


def _embedding_pieces(dataset: "Artifact", embeddings: "Artifact") -> Iterator[Piece]:
    """One piece a part; a kept clip without an embedding gets zeros, so it is left out and counted."""
    names = {entry.name: entry.key for entry in embeddings.iterate_parts()}
    for name, table in _kept(dataset):
        if not len(table):
            continue
        if name not in names:
            raise DataError(f"{embeddings!r} has no part {name!r}, which the dataset has: rerun embed_clips")
        known = embeddings.part(name).table("embeddings")
        matrix = vectors(known) if len(known) else np.zeros((0, 1), np.float16)
        place = dict(zip(known.column("clip_id").to_pylist(), range(len(known)), strict=True))
        hashes = known.column("clip_sha256").to_pylist()
        found = np.zeros((len(table), matrix.shape[1]), np.float16)
        ids, digests = (table.column(column).to_pylist() for column in ("clip_id", "clip_sha256"))
        for row, (clip_id, digest) in enumerate(zip(ids, digests, strict=True)):
            if clip_id in place:
                if hashes[place[clip_id]] != digest:
                    raise DataError(f"embedding of clip {clip_id!r} was made from other bytes: rerun embed_clips")
                found[row] = matrix[place[clip_id]]
        yield Piece(found, table)


def _is_key(reference: str) -> bool:
    return len(reference) >= 8 and all(letter in "0123456789abcdef" for letter in reference)
