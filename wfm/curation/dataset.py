"""What was kept -> shards that trainers open, and the two public tables. Part by part; the card sums up.

A part writes ``shards/<split>/<part>-00000.tar`` with its ``.idx``, ``clips.parquet`` (every clip ever cut, kept or not),
``videos.parquet`` (every input file, readable or not) and ``members.parquet`` (where each member lies), from which the whole
has its ``.nv-meta``: Megatron-Energon opens a pulled dataset as it is. A sample is ``<clip_id>.mp4``, ``.json``, ``.txt`` and,
where there are actions, ``.actions.parquet``, copied byte for byte.
"""

import dataclasses
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wfm.config import Config
from wfm.curation.clip_table import SCORES, ClipRow, Known, clip_row, join
from wfm.curation.part import PartLike
from wfm.curation.rows import SPLITS, Score, Selection
from wfm.curation.step import reason_code
from wfm.data.energon import MEMBERS, write_energon
from wfm.data.shards import ShardWriter
from wfm.errors import DataError
from wfm.records import Caption, Clip, Record, Video

if TYPE_CHECKING:
    from wfm.artifacts import Artifact, PartEntry, Store

SCHEMA_VERSION = 1
"""Of a sample's JSON and of the card."""

Plan = tuple[dict[str, Any], dict[str, Any]]


class ShardsConfig(Config):
    """How samples are packed."""

    maximum_shard_bytes: int = 500_000_000
    "A shard is closed before it grows beyond this [bytes]."


def dataset_plan(inputs: dict[str, "Artifact"]) -> Plan:
    """(inputs, arguments) of ``map_parts``: one part for each part of ``videos``, with or without clips.

    A part depends on its own rows of every table, and on nothing of another part: one more video elsewhere leaves it alone.
    """
    tables = ("videos", "clips", "scores", "captions")
    entries = {table: {entry.name: entry for entry in inputs[table].parts} for table in tables}
    decided = {entry.path: entry for entry in inputs["selection"].files("selection.parquet/")}
    names = sorted(set(entries["videos"]) | set(entries["clips"]))
    plan: dict[str, Any] = {}
    arguments: dict[str, Any] = {}
    for name in names:
        found = {table: entries[table][name] for table in tables if name in entries[table]}
        path = f"selection.parquet/{name}.parquet"
        plan[name] = {table: entry.digest for table, entry in found.items()}
        arguments[name] = {table: entry.key for table, entry in found.items()}
        if path in decided:
            plan[name]["selection"] = decided[path].sha256
            arguments[name]["selection"] = [inputs["selection"].key, path]
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
        _selection(store, arguments) if clips else [],
        _rows(store, arguments, "scores", Score),
        _rows(store, arguments, "captions", Caption),
    )
    videos = _rows(store, arguments, "videos", Video)
    shards, members = write_samples(known, _fetcher(store, arguments), part)
    pq.write_table(pa.Table.from_pylist(members, schema=MEMBERS), part.out / "members.parquet", compression="zstd")
    rows = [clip_row(item, shards.get(item.clip.clip_id, "")) for item in known]
    pq.write_table(ClipRow.to_table(rows), part.out / "clips.parquet", compression="zstd")
    pq.write_table(Video.to_table(videos), part.out / "videos.parquet", compression="zstd")
    refused = Counter(row.reason for row in rows if not row.kept)
    return {"inputs": len(rows), "outputs": len(shards), "videos": len(videos)}, dict(sorted(refused.items()))


def write_samples(
    known: Iterable[Known], fetch: Any, part: PartLike
) -> tuple[dict[str, str], list[dict[str, str | int]]]:
    """Write the kept clips, split by split in order of clip id; returns clip id -> path of its shard, and where each member
    lies."""
    by_split: dict[str, list[Known]] = defaultdict(list)
    for item in known:
        if item.selection.kept:
            by_split[item.selection.split].append(item)
    written: dict[str, str] = {}
    members: list[dict[str, str | int]] = []
    for split, items in sorted(by_split.items()):
        if split not in SPLITS:
            raise DataError(f"clip {items[0].clip.clip_id!r} has the split {split!r}; choices are {', '.join(SPLITS)}")
        folder = part.out / "shards" / split
        with ShardWriter(folder, part.name, maximum_bytes=part.config.maximum_shard_bytes) as writer:
            for item in items:
                shard = writer.write(item.clip.clip_id, sample_members(item, fetch))
                written[item.clip.clip_id] = f"shards/{split}/{shard}"
        members += [{**row, "shard": f"shards/{split}/{row['shard']}"} for row in writer.members]
    return written, members


def sample_members(known: Known, fetch: Any) -> dict[str, bytes]:
    """The members of one sample. Raises `DataError` if the clip's bytes are not those its row speaks of."""
    clip = known.clip
    video = Path(fetch(clip.path)).read_bytes()
    if hashlib.sha256(video).hexdigest() != clip.clip_sha256:
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
    }
    members = {
        "mp4": video,
        "json": json.dumps(facts, sort_keys=True, ensure_ascii=False, allow_nan=False).encode(),
        "txt": text.encode(),
    }
    if clip.action_path:
        members["actions.parquet"] = Path(fetch(clip.action_path)).read_bytes()
    return members


def write_card(store: "Store", parts: Sequence["PartEntry"], out: Path) -> dict[str, Any]:
    """Sum up the committed parts into ``card.json`` and Energon's ``.nv-meta``; returns what the card holds."""
    rows: list[dict[str, Any]] = []
    videos: Counter[str] = Counter()
    shards: dict[str, list[int]] = {split: [] for split in SPLITS}
    columns = [
        field.name for field in dataclasses.fields(ClipRow) if field.name not in ("clip_sha256", "caption", "source")
    ]
    for entry in parts:
        part = store.part(entry.key)
        rows += part.table("clips", columns).to_pylist()
        for row in part.table("videos", ["status", "reason"]).to_pylist():
            videos["ok" if row["status"] == "ok" else reason_code(row["reason"]) or row["status"]] += 1
        for file in part.files("shards/"):
            if file.path.endswith(".tar"):
                shards[file.path.split("/")[1]].append(file.size)
    card = describe(rows, videos, shards)
    write_energon((store.part(entry.key).table("members") for entry in parts), SPLITS, out)
    (out / "card.json").write_text(json.dumps(card, indent=1, sort_keys=True, allow_nan=False) + "\n")
    return card


def describe(rows: list[dict[str, Any]], videos: Counter[str], shards: dict[str, list[int]]) -> dict[str, Any]:
    """The card: counts, reasons, splits, captions, and the spread of every score among kept and refused clips."""
    kept = [row for row in rows if row["kept"]]
    return {
        "schema_version": SCHEMA_VERSION,
        "videos": {"total": sum(videos.values()), "ok": videos["ok"]},
        "videos_not_used": {reason: count for reason, count in sorted(videos.items()) if reason != "ok"},
        "clips": {"total": len(rows), "kept": len(kept), "with_actions": sum(row["has_actions"] for row in kept)},
        "clips_refused": dict(sorted(Counter(row["reason"] for row in rows if not row["kept"]).items())),
        "caption_sources": dict(sorted(Counter(row["caption_source"] or "none" for row in kept).items())),
        "motion_sources": dict(sorted(Counter(row["motion_source"] or "none" for row in kept).items())),
        "picture_sizes": dict(sorted(Counter(f"{row['width']}x{row['height']}" for row in kept).items())),
        "splits": {split: _side([row for row in kept if row["split"] == split], shards[split]) for split in SPLITS},
        "scores_kept": _spread(kept),
        "scores_refused": _spread([row for row in rows if not row["kept"]]),
    }


def _side(rows: list[dict[str, Any]], shards: list[int]) -> dict[str, Any]:
    return {
        "clips": len(rows),
        "sessions": len({row["session_id"] for row in rows}),
        "groups": len({row["group"] for row in rows}),
        "frames": sum(row["num_frames"] for row in rows),
        "seconds": round(sum(row["end_seconds"] - row["start_seconds"] for row in rows), 6),
        "shards": len(shards),
        "bytes": sum(shards),
    }


def _spread(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Score -> minimum, 5, 50, 95 % and maximum, over the clips that have it."""
    spread = {}
    for name in SCORES:
        values = [row[name] for row in rows if isinstance(row[name], float)]
        if values:
            marks = np.quantile(np.array(values), [0, 0.05, 0.5, 0.95, 1])
            spread[name] = dict(
                zip(("min", "p05", "p50", "p95", "max"), (round(float(m), 6) for m in marks), strict=True)
            )
    return spread


def _rows(store: "Store", arguments: Any, table: str, record: type[Any]) -> list[Any]:
    if table not in arguments:
        return []
    rows: list[Record] = record.from_table(store.part(arguments[table]).table(table))
    return rows


def _selection(store: "Store", arguments: Any) -> list[Selection]:
    import pyarrow.parquet as pq

    if "selection" not in arguments:
        return []
    key, path = arguments["selection"]
    return Selection.from_table(pq.read_table(store.artifact(key).fetch(path)))


def _fetcher(store: "Store", arguments: Any) -> Any:
    """Fetch from the part of the clips, which is opened once."""
    return store.part(arguments["clips"]).fetch if "clips" in arguments else None
