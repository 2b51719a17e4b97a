"""A data set's parts as the inputs of stages that encode it, part by part, and the files of a split in what they make.

A part depends on what is read of it and on nothing else: a new caption moves no key of encoded video, a clip in another part
moves none here.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wfm.data.exclusions import Exclusions, read_exclusions

if TYPE_CHECKING:
    from wfm.artifacts import Artifact, PartEntry, Store

Plan = tuple[dict[str, Any], dict[str, Any]]
VIDEO = ("clip_id", "clip_sha256", "session_id", "video_id", "source", "start_seconds", "fps", "split", "shard")
"""Columns of a data set's clips that say which frames they are, and of what."""
TEXT = ("clip_id", "caption", "split", "shard")
"""Columns that say what is said of them."""
_READERS = 16


def part_plan(dataset: "Artifact", columns: Sequence[str], more: Mapping[str, Any] | None = None) -> Plan:
    """(inputs, arguments) of ``map_parts``: for each part of a data set the hash of `columns` of its clips, what is excluded
    of it, and `more`. Without columns, or a table of clips (data sets of other makers), the part's digest stands for them."""
    excluded = read_exclusions(dataset)

    def read(entry: "PartEntry") -> dict[str, str]:
        part = dataset.open_part(entry)
        known = bool(columns) and part.has_file("clips.parquet")
        return {"clips": _rows_hash(part, columns)} if known else {"dataset": entry.digest}

    inputs: dict[str, Any] = {}
    arguments: dict[str, Any] = {}
    entries = dataset.parts
    with ThreadPoolExecutor(
        _READERS
    ) as readers:  # in a bucket each is two requests, and every range of parts reads them all
        for entry, found in zip(entries, readers.map(read, entries), strict=True):
            inputs[entry.name] = found | dict(more or {})
            arguments[entry.name] = {"dataset": dataset.key}
            if left_out := sorted(excluded.of_part(entry.name).entries):
                inputs[entry.name]["exclude"] = arguments[entry.name]["exclude"] = left_out
    return inputs, arguments


def _rows_hash(part: "Artifact", columns: Sequence[str]) -> str:
    """sha256 of the kept clips' rows: those that lie in a shard."""
    rows = [row for row in part.table("clips", list(columns)).to_pylist() if row["shard"]]
    rows.sort(key=lambda row: row["clip_id"])
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def part_shards(
    store: "Store", arguments: Mapping[str, Any], name: str, splits: Collection[str]
) -> tuple[dict[str, list[Path]], frozenset[str]]:
    """(paths of the shards of each split, clips to be left out) of the part `name`, fetched and verified."""
    source = store.artifact(arguments["dataset"]).part(name)
    excluded = Exclusions(frozenset(arguments.get("exclude", ())))
    shards: dict[str, list[Path]] = {}
    for split in splits:
        names = sorted(e.path for e in source.files(f"shards/{split}/") if e.path.endswith(".tar"))
        shards[split] = [source.fetch(path) for path in names if not excluded.leaves_out(path)]
    return shards, excluded.keys


def split_files(artifact: "Artifact", split: str) -> list[str]:
    """Paths of the files that lie in the folder `<split>` of an artifact's parts (or of itself), in order of part."""
    return sorted(entry.path for entry in artifact.files() if entry.path.split("/")[-2:-1] == [split])
