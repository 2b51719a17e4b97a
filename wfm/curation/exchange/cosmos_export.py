"""A data set as cosmos-curate leaves one, for tools that read that layout; a view, not the store's own form.

    metas/v0/{uuid}.json          facts, scores, captions of a clip and its windows (`cosmos_metas`, `cosmos_windows`)
    clips/{uuid}.mp4              its bytes, as in our shards
    actions/{uuid}.parquet        ours alone: where there are actions
    wfm_embd_parquet/{part}.parquet   id, embedding (list<float>)

Kept clips only; what the data set excludes is left out, and both are counted. That layout has no place for still images: they
are counted too.
"""

import io
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wfm.artifacts.atomic import write_new
from wfm.curation.exchange.cosmos_metas import to_meta, uuid_of
from wfm.data.exclusions import read_exclusions
from wfm.data.shards import Sample, iter_samples
from wfm.data.signatures import image_member
from wfm.errors import DataError, InputError

if TYPE_CHECKING:
    from wfm.artifacts import Artifact

METAS, CLIPS, ACTIONS, EMBEDDINGS = "metas/v0", "clips", "actions", "wfm_embd_parquet"


def export_cosmos(dataset: "Artifact", out: Path, *, force: bool = False) -> dict[str, int]:
    """Write the clips of a data set below `out`; returns counts (exported, refused, excluded, and images where there are any).

    A killed export is started again and ends the same: files are whole or not there. Raises InputError for an artifact that
    is no data set and, without ``force``, for a file of other bytes in the way; DataError when nothing is left to export.
    """
    if not any(entry.path.endswith(".tar") for entry in dataset.files()):
        raise InputError(f"{dataset!r} has no shards: name a dataset (`wfm artifacts list dataset`)")
    excluded = read_exclusions(dataset)
    counts: Counter[str] = Counter(exported=0, refused=0, excluded=0)
    for folder in (METAS, CLIPS):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for entry in dataset.iterate_parts():
        _export_part(dataset.part(entry.name), entry.name, excluded.keys, excluded.shards, out, counts, force)
    if not counts["exported"]:
        raise DataError(f"{dataset!r}: nothing to export, of {sum(counts.values())} clips all are refused or excluded")
    return dict(counts)


def _export_part(
    part: "Artifact",
    name: str,
    keys: frozenset[str],
    shards: frozenset[str],
    out: Path,
    counts: Counter[str],
    force: bool,
) -> None:
    rows = {row["clip_id"]: row for row in part.table("clips").to_pylist()}
    videos = {row["video_id"]: row for row in part.table("videos").to_pylist() if row["status"] == "ok"}
    counts["refused"] += sum(not row["kept"] for row in rows.values())
    windows: dict[str, list[dict[str, Any]]] = {}
    if part.has_file("caption_windows.parquet"):
        for window in part.table("caption_windows").to_pylist():
            windows.setdefault(window.pop("clip_id"), []).append(window)
    vectors: dict[str, np.ndarray] = {}
    for path in sorted(entry.path for entry in part.files("shards/") if entry.path.endswith(".tar")):
        for sample in iter_samples(part.fetch(path)):
            if path in shards or sample.key in keys:
                counts["excluded"] += 1
                continue
            if image_member(sample.members):
                counts["images"] += 1
                continue
            row = rows[sample.key]
            _export_sample(sample, row, videos[row["video_id"]], windows.get(sample.key, []), out, force)
            if "emb.npy" in sample.members:
                vectors[uuid_of(sample.key)] = np.load(io.BytesIO(sample.members["emb.npy"]), allow_pickle=False)
            counts["exported"] += 1
    if vectors:
        _write_embeddings(vectors, out / EMBEDDINGS / f"{name}.parquet", force)


def _export_sample(
    sample: Sample, row: dict[str, Any], video: dict[str, Any], windows: list[dict[str, Any]], out: Path, force: bool
) -> None:
    from wfm.data.probe import probe

    name = uuid_of(sample.key)
    clip = out / CLIPS / f"{name}.mp4"
    _write(clip, sample.members["mp4"], force)
    if "actions.parquet" in sample.members:
        _write(out / ACTIONS / f"{name}.parquet", sample.members["actions.parquet"], force)
    meta = to_meta(row, video, len(sample.members["mp4"]), probe(clip).codec, windows)
    text = json.dumps(meta, indent=1, ensure_ascii=False, allow_nan=False)
    _write(out / METAS / f"{name}.json", text.encode(), force)  # last: a meta has its clip


def _write(path: Path, data: bytes, force: bool) -> None:
    """Write a file, unless its bytes are there; over others only with ``force``."""
    if not (path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data):
        write_new(path, data, force=force)


def _write_embeddings(vectors: dict[str, np.ndarray], path: Path, force: bool) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    values = [vector.astype(np.float32).tolist() for vector in vectors.values()]
    table = pa.table({"id": list(vectors), "embedding": pa.array(values, pa.list_(pa.float32()))})
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd")
    _write(path, buffer.getvalue().to_pybytes(), force)
