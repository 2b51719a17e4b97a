"""What cosmos-curate left behind -> a data set of ours: ``metas/v0/*.json``, ``clips/*.mp4`` and an embedding folder.

Clips keep their bytes. Splits are taken where the meta has one of ours, else drawn by the hash of the source (90 / 5 / 5 %):
no video is on both sides. Metas without a clip file are counted, never passed over. The list of metas and the embeddings are
held in memory: this is for millions of clips, not for hundreds of millions.
"""

import dataclasses
import hashlib
from collections import Counter, defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from wfm.artifacts.verified import hash_file
from wfm.curation.dataset.clip_table import MORE, MORE_COLUMNS, SCORES, ClipFacts, ClipRow, clip_row
from wfm.curation.dataset.dataset import ShardsConfig, write_caption_windows, write_card, write_samples
from wfm.curation.exchange.cosmos_export import ACTIONS, CLIPS, METAS
from wfm.curation.exchange.cosmos_metas import MICROSECONDS, Meta, from_meta
from wfm.curation.rows import SPLITS, CaptionWindow, Score, Selection
from wfm.curation.source.rights import with_rights
from wfm.data.energon import MEMBERS
from wfm.errors import DataError, InputError
from wfm.records import Caption, Clip, Record, Rights, Video

if TYPE_CHECKING:
    from wfm.artifacts import Artifact, PartEntry, Store

STAGE, VERSION = "import_cosmos", 2
_PREFIX = 2


def import_cosmos(store: "Store", folder: Path, *, embeddings: str = "") -> "Artifact":
    """Commit the clips of a cosmos-curate folder as a dataset artifact; `embeddings` names one ``*_parquet`` folder.

    The same files give the same artifact. Raises InputError for a folder without metas or several embedding folders to
    choose from, DataError for a broken meta, an id that occurs twice, or when no clip is left.
    """
    metas = sorted((folder / METAS).glob("*.json"))
    if not metas:
        raise InputError(f"{folder}/{METAS} holds no .json: name the output folder of cosmos-curate's split pipeline")
    vectors = _read_embeddings(folder, embeddings)
    by_part: dict[str, list[Path]] = defaultdict(list)
    whole = hashlib.sha256(f"{STAGE} {VERSION}".encode())
    for path in metas:
        by_part[from_meta(path).row.video_id[:_PREFIX]].append(path)
    entries = []
    for name, paths in sorted(by_part.items()):
        entries.append(_import_part(store, folder, name, paths, vectors))
        whole.update(entries[-1].digest.encode())
    key = whole.hexdigest()
    if store.has(key):
        return store.artifact(key)
    counts, skipped = Counter[str](), Counter[str]()
    for entry in entries:
        counts.update(store.part(entry.key).manifest.counts)
        skipped.update(store.part(entry.key).manifest.skipped)
    with store.attempt(key) as attempt:
        write_card(store, entries, attempt.path)
        return attempt.commit(
            stage=STAGE, kind="dataset", code_id=f"v{VERSION}", parts=entries, counts=counts, skipped=skipped
        )


def _import_part(
    store: "Store", folder: Path, name: str, metas: list[Path], vectors: dict[str, np.ndarray]
) -> "PartEntry":
    import pyarrow as pa
    import pyarrow.parquet as pq

    known, files, skipped = [], dict[str, Path](), Counter[str]()
    told: dict[str, Meta] = {}
    seen = hashlib.sha256(f"part of {STAGE} {VERSION}".encode())
    for meta in metas:
        clip = folder / CLIPS / f"{meta.stem}.mp4"
        if not clip.is_file():
            skipped["no_clip_file"] += 1
            continue
        actions = folder / ACTIONS / f"{meta.stem}.parquet"
        said = from_meta(meta)
        item = _known(said, clip, actions, vectors.get(meta.stem))
        if f"clips/{item.clip.clip_id}.mp4" in files:
            raise DataError(f"{meta}: clip {item.clip.clip_id!r} occurs twice")
        known.append(item)
        told.setdefault(item.clip.video_id, said)
        files |= {f"clips/{item.clip.clip_id}.mp4": clip, f"actions/{item.clip.clip_id}.parquet": actions}
        vector = b"" if item.embedding is None else item.embedding.tobytes()
        for data in (meta.read_bytes(), clip.read_bytes(), actions.read_bytes() if actions.is_file() else b"", vector):
            seen.update(hashlib.sha256(data).digest())
    known.sort(key=lambda item: item.clip.clip_id)
    key = seen.hexdigest()
    if store.has_part(key):
        return store.part(key).entry(name)
    with store.part_attempt(key) as attempt:
        shards, members = write_samples(
            known,
            files.__getitem__,
            SimpleNamespace(name=name, out=attempt.path, config=ShardsConfig()),  # type: ignore[arg-type]
        )
        rows = [clip_row(item, shards.get(item.clip.clip_id, "")) for item in known]
        pq.write_table(
            pa.Table.from_pylist(members, schema=MEMBERS), attempt.path / "members.parquet", compression="zstd"
        )
        pq.write_table(ClipRow.to_table(rows), attempt.path / "clips.parquet", compression="zstd")
        videos, rights = _videos(known, told)
        pq.write_table(with_rights(videos, None, rights), attempt.path / "videos.parquet", compression="zstd")
        write_caption_windows(known, CaptionWindow.schema(), attempt.path)
        skipped.update(row.reason for row in rows if not row.kept)
        counts = {"inputs": len(metas), "outputs": len(shards)}
        return attempt.commit(stage=STAGE, kind="part", code_id=f"v{VERSION}", counts=counts, skipped=skipped).entry(
            name
        )


def _known(said: Meta, clip: Path, actions: Path, vector: np.ndarray | None) -> ClipFacts:
    """What a sample is made from. Raises DataError when the file is not the clip that the meta was written for."""
    row = said.row
    digest = hash_file(clip)[1]
    if row.clip_sha256 not in ("", digest):
        raise DataError(f"{clip} is not the clip that its meta describes (sha256 differs): export it again")
    values = {field.name: getattr(row, field.name) for field in dataclasses.fields(ClipRow)}
    values |= {"clip_sha256": digest}
    if row.kept and row.split not in SPLITS:
        values["split"] = _split(row.group)
    cut = {
        "start_pts": round(row.start_seconds * MICROSECONDS),
        "end_pts": round(row.end_seconds * MICROSECONDS),
        "time_base": f"1/{MICROSECONDS}",
        "path": f"clips/{row.clip_id}.mp4",
        "action_path": f"actions/{row.clip_id}.parquet" if actions.is_file() else "",
    }
    score: dict[str, Any] = {name: values[name] for name in SCORES}
    named: dict[str, Any] = {"clip_id": row.clip_id, "clip_sha256": digest}
    return ClipFacts(
        Clip(**{**_fields(Clip, values), **cut}),
        Selection(**_fields(Selection, values)),
        Score(**named, **score) if all(value is not None for value in score.values()) else None,
        Caption(**_fields(Caption, values)) if row.caption else None,
        vector,
        _more(named, values),
        tuple(dataclasses.asdict(CaptionWindow(**{**window, **named})) for window in said.windows),
    )


def _more(named: dict[str, str], values: dict[str, Any]) -> dict[str, Record]:
    """Rows of the tables that need not be there, of those of whose columns something is known."""
    found: dict[str, Record] = {}
    for table, columns in MORE_COLUMNS.items():
        mine = {name: values[name] for name in columns}
        if any(value is not None for value in mine.values()):
            found[table] = MORE[table](**_fields(MORE[table], {**named, **mine}))
    return found


def _fields(record: type[Any], values: dict[str, Any]) -> dict[str, Any]:
    return {field.name: values[field.name] for field in dataclasses.fields(record) if field.name in values}


def _split(group: str) -> str:
    """The split of a source video, by its hash."""
    draw = int.from_bytes(hashlib.sha256(f"split:{group}".encode()).digest()[:4], "big") / 2**32
    return "train" if draw < 0.9 else "val" if draw < 0.95 else "test"


def _videos(known: list[ClipFacts], told: dict[str, Meta]) -> tuple[list[Video], list[Rights]]:
    """(one row a source video, as far as metas tell, its rights): its file was not at hand."""
    first = {item.clip.video_id: item.clip for item in reversed(known)}
    videos, rights = [], []
    for key, clip in sorted(first.items()):
        name = clip.source.rpartition("/")[2]
        video = {"source": clip.source, "name": name, "video_id": key, "session_id": clip.session_id, **told[key].video}
        videos.append(Video(**video))
        rights.append(Rights(source=clip.source, video_id=key, **told[key].rights))
    return videos, rights


def _read_embeddings(folder: Path, name: str) -> dict[str, np.ndarray]:
    """Clip uuid -> float16 [D]."""
    import pyarrow.parquet as pq

    found = sorted(path.name for path in folder.glob("*_parquet") if path.is_dir() and path.name != "cds_parquet")
    if name and name not in found:
        raise InputError(f"embeddings: {folder} has no {name!r}; choices: {', '.join(found) or 'none'}")
    if not name and len(found) > 1:
        raise InputError(f"embeddings: {folder} has several; name one of {', '.join(found)}")
    vectors: dict[str, np.ndarray] = {}
    for path in sorted((folder / (name or found[0])).glob("*.parquet")) if name or found else ():
        table = pq.read_table(path, columns=["id", "embedding"])
        for key, values in zip(table["id"].to_pylist(), table["embedding"].to_pylist(), strict=True):
            if key in vectors:
                raise DataError(f"{path}: id {key!r} occurs twice: a clip has one embedding")
            vectors[key] = np.array(values, np.float16)
    return vectors
