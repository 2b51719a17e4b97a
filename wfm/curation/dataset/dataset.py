"""What was kept -> shards that trainers open, and the two public tables. Part by part; the card sums up.

A part writes ``shards/<split>/<bin>/<part>-00000.tar`` (`bins`) with its ``.idx``, ``clips.parquet`` (every clip ever cut,
kept or not), ``videos.parquet`` (every input file, readable or not), ``caption_windows.parquet`` where a model captioned
windows, and ``members.parquet`` (where each member lies), from which the whole has its ``.nv-meta``: Megatron-Energon opens a
pulled dataset as it is. A sample is ``<clip_id>.mp4``, ``.json``, ``.txt``, ``.emb.npy`` (float16 [D]) where it was embedded
and, where there are actions, ``.actions.parquet``, copied byte for byte. A still image has ``.jpg``, ``.png`` or ``.webp`` in
place of ``.mp4``, and its json says ``"kind": "image"``; its shards hold images alone.
"""

import dataclasses
import hashlib
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wfm.config import Bytes, Config
from wfm.curation.cut.decoded import Decoded, as_decoded
from wfm.curation.dataset.bins import IMAGES, image_bin, shard_bin
from wfm.curation.dataset.clip_table import MORE, ClipFacts, ClipRow, Vector, clip_row, join
from wfm.curation.dataset.dataset_card import SCHEMA_VERSION, Card
from wfm.curation.dataset.dataset_readme import SHOWN_SOURCES, Source, readme
from wfm.curation.rows import SPLITS, Score, Selection
from wfm.curation.source.rights import COLUMNS, with_rights
from wfm.curation.step import SkippedRow, reason_code
from wfm.data.energon import MEMBERS, write_energon
from wfm.data.shards import ShardWriter
from wfm.errors import DataError
from wfm.parts.part import PartLike
from wfm.records import Caption, Clip, Record, Rights, Video

if TYPE_CHECKING:
    import pyarrow as pa

    from wfm.artifacts import Artifact, PartEntry, Store

_LONG = ["clip_sha256", "source", "caption"]
"""Of these the card asks only whether they hold anything, so they are never Python strings."""
_CARD_COLUMNS = [field.name for field in dataclasses.fields(ClipRow) if field.name not in _LONG]
Plan = tuple[dict[str, Any], dict[str, Any]]


class ShardsConfig(Config):
    """How samples are packed."""

    maximum_shard_bytes: Bytes = 500_000_000
    "A shard is closed before it grows beyond this [bytes]."
    binned: bool = True
    "Whether clips of different aspect, resolution and length go to shards of their own (`wfm.curation.dataset.bins`)."


def dataset_plan(inputs: dict[str, "Artifact"]) -> Plan:
    """(inputs, arguments) of ``map_parts``: one part for each part of ``videos``, with or without clips.

    A part depends on its own rows of every table, and on nothing of another part: one more video elsewhere leaves it alone.
    Raises `DataError` for clusters or categories that do not know a part.
    """
    tables = [name for name in ("videos", "clips", "scores", "captions", "embeddings") if name in inputs]
    entries = {table: {entry.name: entry for entry in inputs[table].parts} for table in tables}
    whole = [name for name in ("selection", "clusters", "categories") if name in inputs]
    decided = {entry.path: entry for of in whole for entry in inputs[of].files(f"{of}.parquet/")}
    names = sorted(set(entries["videos"]) | set(entries["clips"]))
    plan: dict[str, Any] = {}
    arguments: dict[str, Any] = {}
    for name in names:
        found = {table: entries[table][name] for table in tables if name in entries[table]}
        plan[name] = {table: entry.digest for table, entry in found.items()}
        arguments[name] = {table: entry.key for table, entry in found.items()}
        for of in whole:
            path = f"{of}.parquet/{name}.parquet"
            if path in decided:
                plan[name][of] = decided[path].sha256
                arguments[name][of] = [inputs[of].key, path]
            elif f"selection.parquet/{name}.parquet" in decided:
                raise DataError(
                    f"{inputs[of]!r} says nothing of part {name!r}, which has clips: made from another selection"
                )
    return plan, arguments


def dataset_part(part: PartLike) -> tuple[dict[str, int], dict[str, int]]:
    """Write the shards and tables of one part; returns (counts, clips refused by reason)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    store = part.open_store()
    arguments = part.arguments
    clips = _rows(store, arguments, "clips", Clip)
    known = join(
        clips,
        _decided(store, arguments, "selection", Selection) if clips else [],
        _rows(store, arguments, "scores", Score),
        _rows(store, arguments, "captions", Caption),
        _embeddings(store, arguments),
        _more(store, arguments),
    )
    known, schema = _with_windows(store, arguments, known)
    part.work.update(
        clips=len(clips), video_seconds=round(sum(clip.end_seconds - clip.start_seconds for clip in clips))
    )
    videos = as_decoded(_rows(store, arguments, "videos", Video), _decoded(store, arguments))
    shards, members = write_samples(known, _fetcher(store, arguments), part)
    pq.write_table(pa.Table.from_pylist(members, schema=MEMBERS), part.out / "members.parquet", compression="zstd")
    rows = [clip_row(item, shards.get(item.clip.clip_id, "")) for item in known]
    pq.write_table(ClipRow.to_table(rows), part.out / "clips.parquet", compression="zstd")
    of_videos = store.part(arguments["videos"]).fetch if "videos" in arguments else None
    listed = _rights(store, arguments)
    pq.write_table(with_rights(videos, of_videos, listed), part.out / "videos.parquet", compression="zstd")
    skips = _rows(store, arguments, "skips", SkippedRow, of="clips")
    pq.write_table(SkippedRow.to_table(skips), part.out / "skips.parquet", compression="zstd")
    write_caption_windows(known, schema, part.out)
    refused = Counter(row.reason for row in rows if not row.kept)
    return {"inputs": len(rows), "outputs": len(shards), "videos": len(videos)}, dict(sorted(refused.items()))


def write_caption_windows(known: Iterable[ClipFacts], schema: "pa.Schema | None", out: Path) -> None:
    """Write ``caption_windows.parquet`` of the kept clips; nothing where no window was captioned."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [row for item in known if item.selection.kept for row in item.windows]
    if rows and schema is not None:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), out / "caption_windows.parquet", compression="zstd")


def write_samples(
    known: Iterable[ClipFacts], fetch: Any, part: PartLike
) -> tuple[dict[str, str], list[dict[str, str | int]]]:
    """Write the kept clips, folder by folder (split, then bin) in order of clip id; returns clip id -> path of its shard, and
    where each member lies."""
    by_folder: dict[str, list[ClipFacts]] = defaultdict(list)
    for item in known:
        if not item.selection.kept:
            continue
        clip, split = item.clip, item.selection.split
        if split not in SPLITS:
            raise DataError(f"clip {clip.clip_id!r} has the split {split!r}; choices are {', '.join(SPLITS)}")
        by_folder[f"shards/{split}{_folder(clip, binned=part.config.binned)}"].append(item)
    written: dict[str, str] = {}
    members: list[dict[str, str | int]] = []
    for folder, items in sorted(by_folder.items()):
        with ShardWriter(part.out / folder, part.name, maximum_bytes=part.config.maximum_shard_bytes) as writer:
            for item in items:
                shard = writer.write(item.clip.clip_id, sample_members(item, fetch))
                written[item.clip.clip_id] = f"{folder}/{shard}"
        members += [{**row, "shard": f"{folder}/{row['shard']}"} for row in writer.members]
    return written, members


def _folder(clip: Clip, *, binned: bool) -> str:
    """Below that of the split."""
    if clip.is_image:
        return f"/{image_bin(clip.width, clip.height) if binned else IMAGES}"
    return f"/{shard_bin(clip.width, clip.height, clip.end_seconds - clip.start_seconds)}" if binned else ""


def sample_members(known: ClipFacts, fetch: Any) -> dict[str, bytes]:
    """The members of one sample. Raises `DataError` if the clip's bytes are not those its row speaks of."""
    clip = known.clip
    shown = Path(fetch(clip.path)).read_bytes()
    if hashlib.sha256(shown).hexdigest() != clip.clip_sha256:
        raise DataError(f"{clip.path} is not the clip that its row describes (sha256 differs): rerun split_clips")
    text = known.caption.caption if known.caption is not None else ""
    facts = {
        "schema_version": SCHEMA_VERSION,
        **dataclasses.asdict(clip),
        "caption": text,
        "caption_source": known.caption.caption_source if known.caption is not None else "",
        "scores": known.scores,
        "split": known.selection.split,
        "group": known.selection.group,
        **({"caption_windows": [_of_window(row) for row in known.windows]} if known.windows else {}),
        **({"kind": "image"} if clip.is_image else {}),
    }
    members = {
        clip.path.rpartition(".")[2]: shown,
        "json": json.dumps(facts, sort_keys=True, ensure_ascii=False, allow_nan=False).encode(),
        "txt": text.encode(),
    }
    if known.embedding is not None:
        array = io.BytesIO()
        np.save(array, known.embedding, allow_pickle=False)
        members["emb.npy"] = array.getvalue()
    if clip.action_path:
        members["actions.parquet"] = Path(fetch(clip.action_path)).read_bytes()
    return members


def write_card(store: "Store", parts: Sequence["PartEntry"], out: Path) -> dict[str, Any]:
    """Sum up the committed parts into ``card.json``, ``README.md`` and Energon's ``.nv-meta``; returns what the card holds.

    Memory is that of one part. Raises `DataError` when no clip is left: an empty data set is no success.
    """
    card = Card()
    sources: list[Source] = []
    for entry in parts:
        part = store.part(entry.key)
        rights = {}
        for row in part.table("videos").to_pylist():
            ok = row["status"] == "ok"
            card.add_video("ok" if ok else reason_code(row["reason"]) or row["status"], row)
            if ok:
                rights[row["video_id"]] = (row["licence"], row["consent"])
                if len(sources) < SHOWN_SOURCES:
                    sources.append((row["name"], row["video_id"], *(row[name] for name in COLUMNS)))
        clips = part.table("clips", _CARD_COLUMNS).to_pylist()
        card.add_clips(clips, rights)
        card.add_long("clips.parquet", part.table("clips", _LONG))
        card.add_outcome(rights, clips, part.table("skips").to_pylist() if part.has_file("skips.parquet") else ())
        for file in part.files("shards/"):
            if file.path.endswith(".tar"):
                card.add_shard(file.path.split("/")[1], file.size)
    values = card.values()
    if not card.kept:
        why = {**values["videos_not_used"], **values["clips_refused"]}
        reasons = ", ".join(f"{reason}: {count}" for reason, count in why.items()) or "no clip was cut"
        raise DataError(f"the data set is empty: of {values['videos']['total']} videos no clip was kept ({reasons})")
    write_energon((store.part(entry.key).table("members") for entry in parts), SPLITS, out)
    (out / "card.json").write_text(json.dumps(values, indent=1, sort_keys=True, allow_nan=False) + "\n")
    (out / "README.md").write_text(readme(values, sources))
    return values


def _rights(store: "Store", arguments: Any) -> list[Rights]:
    """What a list said of the videos; data sets of other makers and older parts have no such table."""
    if "videos" not in arguments or not store.part(arguments["videos"]).has_file("rights.parquet"):
        return []
    return _rows(store, arguments, "rights", Rights, of="videos")


def _decoded(store: "Store", arguments: Any) -> list[Decoded]:
    """What decoding the videos found; data sets of other makers have no such table."""
    if "clips" not in arguments or not store.part(arguments["clips"]).has_file("decoded.parquet"):
        return []
    return _rows(store, arguments, "decoded", Decoded, of="clips")


def _rows(store: "Store", arguments: Any, table: str, record: type[Any], of: str = "") -> list[Any]:
    """The rows of a table of the part's input of that name, or of the one named; empty without the input."""
    if (of or table) not in arguments:
        return []
    rows: list[Record] = record.from_table(store.part(arguments[of or table]).table(table))
    return rows


def _decided(store: "Store", arguments: Any, name: str, record: type[Any]) -> list[Any]:
    """The part's rows of what was decided over the whole corpus: ``<name>.parquet/<part>.parquet`` of the input ``name``."""
    import pyarrow.parquet as pq

    if name not in arguments:
        return []
    key, path = arguments[name]
    rows: list[Record] = record.from_table(pq.read_table(store.artifact(key).fetch(path)))
    return rows


def _more(store: "Store", arguments: Any) -> dict[str, list[Any]]:
    """The part's rows of the tables that need not be there."""
    found: dict[str, list[Any]] = {
        name: _decided(store, arguments, name, MORE[name]) for name in ("clusters", "categories")
    }
    for name, of in (("measures", "scores"), ("aesthetic", "embeddings")):
        if of in arguments and store.part(arguments[of]).has_file(f"{name}.parquet"):
            found[name] = _rows(store, arguments, name, MORE[name], of=of)
    return found


def _with_windows(store: "Store", arguments: Any, known: list[ClipFacts]) -> tuple[list[ClipFacts], "pa.Schema | None"]:
    """The clips with what a model said of their windows, and the schema of that table; None where there is none."""
    if "captions" not in arguments or not store.part(arguments["captions"]).has_file("caption_windows.parquet"):
        return known, None
    table = store.part(arguments["captions"]).table("caption_windows")
    by_clip: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in table.to_pylist():
        by_clip[row["clip_id"]].append(row)
    for item in known:
        if any(row["clip_sha256"] != item.clip.clip_sha256 for row in by_clip[item.clip.clip_id]):
            raise DataError(f"a caption of clip {item.clip.clip_id!r} was made from other bytes: rerun caption_clips")
    order = {
        clip: tuple(sorted(rows, key=lambda row: (row["start_frame"], row["model"]))) for clip, rows in by_clip.items()
    }
    return [dataclasses.replace(item, windows=order[item.clip.clip_id]) for item in known], table.schema


def _of_window(row: dict[str, Any]) -> dict[str, Any]:
    """A window's row inside a sample, which says itself which clip it is."""
    return {name: value for name, value in row.items() if name not in ("clip_id", "clip_sha256")}


def _fetcher(store: "Store", arguments: Any) -> Any:
    """Fetch from the part of the clips, which is opened once."""
    return store.part(arguments["clips"]).fetch if "clips" in arguments else None


def _embeddings(store: "Store", arguments: Any) -> dict[str, Vector]:
    """Clip id -> (sha256 of the bytes it was made from, float16 vector of whatever width the model has)."""
    if "embeddings" not in arguments:
        return {}
    table = store.part(arguments["embeddings"]).table("embeddings", ["clip_id", "clip_sha256", "embedding"])
    vectors = (np.array(row, np.float16) for row in table.column("embedding").to_pylist())
    ids, hashes = (table.column(name).to_pylist() for name in ("clip_id", "clip_sha256"))
    return {clip: (sha256, vector) for clip, sha256, vector in zip(ids, hashes, vectors, strict=True)}
