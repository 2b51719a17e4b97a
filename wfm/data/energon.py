"""What Megatron-Energon reads beside the shards, made from what was known while they were written.

    .nv-meta/dataset.yaml     the kind of dataset: samples as they are, for a cooker of the trainer's own
    .nv-meta/split.yaml       which shards belong to which split, and what is left out (`exclude`)
    .nv-meta/.info.json       samples of each shard; a shard's place in it is its number in the index
    .nv-meta/index.sqlite     where every sample and every member of it lies
    .nv-meta/index.uuid       which index this is

`energon prepare` would read every header of every shard again to find the same. The same dataset gives the same bytes, the
uuid too. Format: megatron-energon 7.4 (flavors/webdataset), which says that it may change with any release.
"""

import hashlib
import json
import sqlite3
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa

from wfm.artifacts.atomic import replace_on_disk
from wfm.data.exclusions import FOLDER, split_text
from wfm.errors import DataError

ENERGON_VERSION = "7.4.1"
DATASET = "__module__: megatron.energon\n__class__: CrudeWebdataset\n"

MEMBERS = pa.schema(
    [
        ("shard", pa.string()),  # path from the dataset's root
        ("sample_key", pa.string()),
        ("sample_index", pa.int64()),  # within the shard
        ("sample_offset", pa.int64()),  # of its first header [bytes]
        ("sample_size", pa.int64()),  # headers, members and padding [bytes]
        ("member", pa.string()),
        ("member_offset", pa.int64()),  # of its content [bytes]
        ("member_size", pa.int64()),
    ],
    metadata={"schema_version": "1"},
)
"""One row a member, in the order of the shards: what a part keeps of the shards it wrote."""

_TABLES = """
CREATE TABLE samples (tar_file_id INTEGER NOT NULL, sample_key TEXT NOT NULL UNIQUE, sample_index INTEGER NOT NULL,
                      byte_offset INTEGER, byte_size INTEGER);
CREATE TABLE sample_parts (tar_file_id INTEGER, sample_index INTEGER, part_name TEXT, content_byte_offset INTEGER,
                           content_byte_size INTEGER);
"""
_INDEXES = """
CREATE INDEX idx_samples_by_tar_and_idx ON samples(tar_file_id, sample_index);
CREATE INDEX idx_sample_parts_seq ON sample_parts(tar_file_id, sample_index, content_byte_offset);
CREATE INDEX idx_sample_parts_full ON sample_parts(tar_file_id, sample_index, part_name, content_byte_offset,
                                                   content_byte_size);
"""


def write_energon(tables: Iterable[pa.Table], splits: Sequence[str], out: Path) -> dict[str, int]:
    """Write ``.nv-meta`` below `out` from the parts' tables of `MEMBERS`, one after the other; returns samples by shard.

    A shard's split is the second folder of its path. Memory is that of one part. Raises DataError for a sample key that
    stands in two places.
    """
    folder = out / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "index.sqlite"
    path.unlink(missing_ok=True)
    counts: dict[str, int] = {}
    digest = hashlib.sha256()
    database = sqlite3.connect(path)
    try:
        database.executescript(_TABLES)
        for table in tables:
            _insert(database, table, counts, digest)
        database.executescript(_INDEXES)
        database.commit()
    finally:
        database.close()
    _write_json(folder / ".info.json", {"energon_version": ENERGON_VERSION, "shard_counts": counts})
    (folder / "dataset.yaml").write_text(DATASET)
    by_split = {split: [shard for shard in counts if shard.split("/")[1] == split] for split in splits}
    write_split(folder, by_split, ())
    (folder / "index.uuid").write_text(str(uuid.UUID(bytes=digest.digest()[:16], version=4)))
    return counts


def _insert(database: sqlite3.Connection, table: pa.Table, counts: dict[str, int], digest: "hashlib._Hash") -> None:
    samples, members = [], []
    last, number = ("", -1), -1
    for row in table.to_pylist():
        shard, index = row["shard"], row["sample_index"]
        if shard not in counts:  # shards stand one after the other, each whole
            counts[shard], number = 0, len(counts)
        if (shard, index) != last:
            samples.append((number, row["sample_key"], index, row["sample_offset"], row["sample_size"]))
            counts[shard] += 1
            last = (shard, index)
        members.append((number, index, row["member"], row["member_offset"], row["member_size"]))
        digest.update(f"{shard}\x1f{row['sample_key']}\x1f{row['member']}\x1f{row['member_offset']}\n".encode())
    try:
        database.executemany("INSERT INTO samples VALUES (?, ?, ?, ?, ?)", samples)
    except sqlite3.IntegrityError:
        raise DataError(
            "a sample key stands in two shards (of a data set the clip id, of latents clip and first frame): every key must be "
            "unique over the whole artifact"
        ) from None
    database.executemany("INSERT INTO sample_parts VALUES (?, ?, ?, ?, ?)", members)


def write_split(folder: Path, shards: dict[str, list[str]], exclude: Sequence[str]) -> None:
    """``split.yaml``: the shards of each split, and what is left out: a shard, or ``shard/key``. Replaced in one step: a
    reader sees the old list or the new one."""
    replace_on_disk(folder / "split.yaml", split_text(shards, exclude).encode())


def _write_json(path: Path, values: object) -> None:
    path.write_text(json.dumps(values, indent=1) + "\n")
