"""Records: samples as a tokenizer left them, each of its own shape, in WebDataset shards with a table of their lengths.

Layout of a part (of an artifact of kind `latents`), the same as a data set's, so that Megatron-Energon, webdataset and ``wfm
artifacts pull`` treat both alike:

    shards/<split>/<part>-00000.tar   with its .idx (`wfm.data.shards`). Members of a sample: `latents.npy` fp32 [C, t, h, w] or
                                      `tokens.npy` int32 [t, h, w] (int64 for a vocabulary beyond 2^31), `extrapolated.npy` like
                                      them where it was made, `json` (the row without what says where it lies)
    samples.parquet                   the table of lengths: one row a sample, as `LENGTHS` has it, in the order of the shards
    samples.arrow                     its index (`wfm.data.lengths_index`)
    members.parquet                   where each member lies, from which the whole has its `.nv-meta` (`wfm.data.energon`)

`RecordWriter` writes a part; `wfm.data.encoded_samples` reads them.
"""

import functools
import hashlib
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wfm.data.energon import MEMBERS
from wfm.data.lengths_index import write_index
from wfm.data.order.sources import sample_keys
from wfm.data.record_table import INDEX_FILE
from wfm.data.shards import ShardWriter
from wfm.errors import DataError

ARRAYS = ("latents", "tokens")
"""What a record holds one of, each named as its member without `.npy`."""
EXTRAPOLATED = "extrapolated"
KINDS = ("video", "image")

_WHAT = [
    ("sample_id", pa.string()),
    ("clip_id", pa.string()),
    ("session_id", pa.string()),
    ("video_id", pa.string()),
    ("source", pa.string()),
    ("start_frame", pa.int64()),
    ("start_seconds", pa.float64()),
    ("fps", pa.float64()),  # 0 for an image
    ("num_frames", pa.int64()),
    ("mirrored", pa.bool_()),
    ("split", pa.string()),
    ("key", pa.string()),  # in the shard
    ("kind", pa.string()),  # one of KINDS
    ("channels", pa.int32()),  # of the latents; 0 for tokens
    ("latent_frames", pa.int64()),
    ("latent_height", pa.int64()),
    ("latent_width", pa.int64()),
    (EXTRAPOLATED, pa.bool_()),
]
_WHERE = [
    ("shard", pa.string()),  # path in the part, and from the root of a pulled folder
    ("offset", pa.int64()),  # of the sample's first header in its shard [bytes]
    ("bytes", pa.int64()),  # headers, members and padding
    ("sha256", pa.binary(32)),  # of that range
    ("crc32c", pa.uint32()),  # of it too: what a read from a local disk is checked against, being ten times cheaper
]
ORDER_KEY = "order_key"
"""Column of what `wfm.data.order.sample_keys` makes of the id, so that no id needs to be hashed when a run begins. Tables of
before have none."""
LENGTHS = pa.schema([*_WHAT, *_WHERE, (ORDER_KEY, pa.uint64())], metadata={"schema_version": "4"})


def record_key(sample_id: str) -> str:
    """The key of a sample in its shard: clip, first frame and `mirrored` joined by '-', which no two samples share."""
    return sample_id.replace(":", "-")


class RecordWriter:
    """Writes the records of one part below `out`, split by split; a context manager that leaves tables once all is well.

    `name` is the part's. One sample is in memory, and a row of each.
    """

    def __init__(self, out: Path, name: str, *, maximum_shard_bytes: int = 500_000_000) -> None:
        self._out, self._name, self._most = out, name, maximum_shard_bytes
        self._shards: dict[str, ShardWriter] = {}
        self._rows: list[dict[str, Any]] = []
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)
        if kind is None:
            self._write_tables()

    def write(self, split: str, row: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Append a sample: `row` says what it is (sample, clip, times, mirrored, kind), `arrays` are `latents` `[C, t, h, w]`
        or `tokens` `[t, h, w]`, and `extrapolated`."""
        (name,) = (name for name in ARRAYS if name in arrays)
        shape = arrays[name].shape
        fields = dict(zip(("latent_frames", "latent_height", "latent_width"), shape[-3:], strict=True))
        known = {
            **row,
            **fields,
            "split": split,
            "key": record_key(row["sample_id"]),
            "channels": shape[0] if name == "latents" else 0,
            EXTRAPOLATED: EXTRAPOLATED in arrays,
        }
        facts = {field: known[field] for field, _ in _WHAT}
        members = {f"{each}.npy": npy_bytes(array) for each, array in arrays.items()}
        members["json"] = json.dumps(facts, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()
        shard = self._of(split).write(facts["key"], members)
        self._rows.append({**facts, "shard": f"shards/{split}/{shard}"})

    def _of(self, split: str) -> ShardWriter:
        if split not in self._shards:
            folder = self._out / "shards" / split
            writer = ShardWriter(folder, self._name, maximum_bytes=self._most)
            self._shards[split] = self._open.enter_context(writer)
        return self._shards[split]

    def _write_tables(self) -> None:
        """Both tables, with hashes of what lies on the disk."""
        members = [
            {**row, "shard": f"shards/{split}/{row['shard']}"}
            for split, writer in sorted(self._shards.items())
            for row in writer.members
        ]
        places = {(row["shard"], row["sample_key"]): row for row in members}
        self._rows.sort(key=lambda row: (row["shard"], places[row["shard"], row["key"]]["sample_offset"]))
        keys = sample_keys([row["sample_id"] for row in self._rows]).tolist()
        for row, row[ORDER_KEY] in zip(self._rows, keys, strict=True):
            place = places[row["shard"], row["key"]]
            row["offset"], row["bytes"] = place["sample_offset"], place["sample_size"]
            row["sha256"], row["crc32c"] = self._hashes(row)
        pq.write_table(pa.Table.from_pylist(members, schema=MEMBERS), self._out / "members.parquet", compression="zstd")
        table = pa.Table.from_pylist(self._rows, schema=LENGTHS)
        parquet = self._out / "samples.parquet"
        pq.write_table(table, parquet, compression="zstd")
        write_index(table, parquet, self._out / INDEX_FILE)

    def _hashes(self, row: Mapping[str, Any]) -> tuple[bytes, int]:
        import google_crc32c  # of the extra `train`

        with (self._out / row["shard"]).open("rb") as file:
            file.seek(row["offset"])
            data = file.read(row["bytes"])
        return hashlib.sha256(data).digest(), google_crc32c.value(data)


def npy_bytes(array: np.ndarray) -> bytes:
    """An array as a .npy file."""
    return npy_header(array.shape, array.dtype.str) + np.ascontiguousarray(array).tobytes()


@functools.lru_cache(maxsize=4096)
def npy_header(shape: tuple[int, ...], dtype: str) -> bytes:
    """What stands before the numbers of an array of that shape and type (`np.dtype.str`) in a .npy file."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue()


def read_npy(data: bytes | memoryview, shape: tuple[int, ...], dtypes: Sequence[str], name: str) -> np.ndarray:
    """The array of a .npy file that is known to have that shape and one of those types; nothing is taken from its header.

    Raises DataError, with `name`, for any other file.
    """
    for dtype in dtypes:
        header = npy_header(shape, dtype)
        size = len(header) + math.prod(shape) * np.dtype(dtype).itemsize
        if len(data) == size and data[: len(header)] == header:
            return np.frombuffer(data, dtype, offset=len(header)).reshape(shape).copy()
    found = re.search(rb"\{.*?\}", data[:256], re.DOTALL)
    says = found[0].decode("latin-1") if found else "no array"
    raise DataError(f"{name} holds {says} in {len(data)} bytes; its row says {' or '.join(dtypes)} {list(shape)}")
