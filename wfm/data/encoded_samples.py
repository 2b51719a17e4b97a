"""Encoded records read back as `Samples`: numbers of the table of lengths mapped into memory, its text when somebody asks for
it, a sample's arrays when its turn comes.

    samples = encoded_samples(latents, "train")   # an artifact, or a folder that `wfm artifacts pull` made
    samples.shapes[7], samples.read(7)            # [t, h, w]; {"latents": [C, t, h, w], "fps": []}

A table that does not describe its shards is refused when it is opened (what lies outside a shard, a shape that is none, an id
twice), when its text is read (ids of other order keys, keys of other ids), or when the sample is read (other bytes, the record
or the order key of another sample, an array of another shape): as DataError, with the sample's name.
"""

import dataclasses
import functools
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from wfm.data.lengths import Lengths, open_lengths
from wfm.data.order.columns import Products, blocks, has_twice, unnamed
from wfm.data.order.sources import sample_keys
from wfm.data.reading import ReadingConfig, RecordPlaces, RecordReader
from wfm.data.record_table import RecordPlace, place_of
from wfm.data.records import EXTRAPOLATED, KINDS, ORDER_KEY, read_npy
from wfm.errors import DataError

if TYPE_CHECKING:
    from wfm.artifacts import Artifact

_SIDES = ["latent_frames", "latent_height", "latent_width"]
_NAMED = ["sample_id", "clip_id"]
_IDENTITY = {"sha256": "u1", "mirrored": "u1", "fps": "<f8", "start_frame": "<i8", "num_frames": "<i8"}
_BLOCK = 512  # of a tar
_MOST_SIDE = 1 << 24
_MOST_START, _MOST_FRAMES = 1 << 40, 1 << 24  # of a sample in its clip
_MOST_BESIDE = 1 << 16  # bytes of a record that are not its arrays': headers, padding, the row as JSON
_ROWS = 65536  # that are looked at, or are Python objects, at one time
_SAMPLE_ID = re.compile(rb'"sample_id": "([^"\\]*)"')  # in what `RecordWriter` writes


class Words(Sequence[str]):
    """A column of text as a sequence: no Python object a row until it is asked for. `column`: or what reads it, once a row is
    asked for, of `count` rows."""

    def __init__(self, column: pa.ChunkedArray | Callable[[], pa.ChunkedArray], count: int | None = None) -> None:
        self._given, self._count = column, count

    @property
    def column(self) -> pa.ChunkedArray:
        """All of it."""
        return self._given() if callable(self._given) else self._given

    def __len__(self) -> int:
        return len(self.column) if self._count is None else self._count

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return tuple(self.column.take(pa.array(range(*row.indices(len(self))), pa.int64())).to_pylist())
        return self.column[int(row)].as_py()

    def __iter__(self) -> Iterator[str]:
        for chunk in self.column.chunks:
            for start in range(0, len(chunk), _ROWS):
                yield from chunk[start : start + _ROWS].to_pylist()


def words(ids: Sequence[str]) -> pa.ChunkedArray:
    """Ids as a column, without a copy where they are one."""
    return ids.column if isinstance(ids, Words) else pa.chunked_array([pa.array(ids, pa.string())])


class EncodedSamples:
    """Samples (`wfm.data.samples`) of one split of an artifact of kind `latents`. Made by `encoded_samples`."""

    def __init__(self, table: Lengths, place: RecordPlace, reading: ReadingConfig | None = None) -> None:
        """Raises DataError for a table that cannot be true, and as `RecordReader.check` does."""
        self.table = table
        "Every column of the split's rows; text is read when it is asked for."
        self.split = table.split
        self.ids: Sequence[str] = Words(functools.partial(table.column, "sample_id"), len(table))
        "Of the samples, each once."
        self.order_keys = table.numbers(ORDER_KEY)
        "uint64 [N]: `wfm.data.order.sample_keys` of them."
        self.keys_differ = not has_twice(self.order_keys)
        self.shapes = _side_by_side([table.numbers(name) for name in _SIDES])
        "int64 [N, 3]: latent frames, height, width."
        self._channels, self._fps = table.numbers("channels"), table.numbers("fps")
        self._extrapolated = table.numbers(EXTRAPOLATED)
        shards, shard = table.values["shard"], table.codes["shard"]
        self._check(np.array([place.size(path) for path in shards], np.int64))
        offset, size, crc32c = map(table.numbers, ("offset", "bytes", "crc32c"))
        addresses = [place.address(path) for path in shards]
        places = RecordPlaces(addresses, shard, offset, size, table.late("sha256"), crc32c)
        self._reader = RecordReader(places, reading, place.store)
        self._reader.check()

    @functools.cached_property
    def sizes(self) -> np.ndarray:
        """int64 [N]: bytes of a sample's tensors."""
        values, found = Products(self.shapes), unnamed(len(self), np.int64)
        for rows in blocks(len(self)):
            channels = self._channels[rows]
            each = np.where(channels > 0, 4 * channels, 8)  # latents fp32, tokens int64
            found[rows] = values[rows] * each * (1 + self._extrapolated[rows]) + 4
        return found

    @functools.cached_property
    def identity(self) -> str:
        """sha256 of the ids, the bytes of the records, the rates, and which frames of which clip a sample is (by these, signals
        and text are joined to it), in the order of the rows."""
        digest = hashlib.sha256(b"encoded 2")
        after = 0
        for ids, clips in self.table.table(_NAMED).to_batches(max_chunksize=_ROWS):
            rows = slice(after, after := after + len(ids))
            for words in (ids, clips):
                digest.update(_lines(words))
            for name, kind in _IDENTITY.items():
                digest.update(np.ascontiguousarray(self.table.numbers(name)[rows], kind).data)
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.table)

    def read(self, row: int) -> dict[str, Tensor]:
        """`latents` fp32 `[C, t, h, w]` or `tokens` int64 `[t, h, w]`, `extrapolated` where it was made, and `fps` fp32 `[]`
        (0 for an image).

        Raises DataError for a sample that is not what its row says, and as `RecordReader.read` does.
        """
        try:
            members = self._reader.read(row)
        except DataError as error:
            raise DataError(f"sample {self.ids[row]}: {error}") from None
        return self._tensors(row, members)

    def read_many(self, rows: Sequence[int]) -> list[dict[str, Tensor]]:
        """The same of several samples, which a bucket is asked for at once. Raises as `read` does, for one that cannot be
        read."""
        return [self._tensors(row, members) for row, members in zip(rows, self._reader.read_many(rows), strict=True)]

    @property
    def counters(self) -> dict[str, float]:
        """What reading did so far (`wfm.data.reading.ReadingCounts`)."""
        return dataclasses.asdict(self._reader.counts())

    def close(self) -> None:
        """Files and connections are closed; threads that wait for a bucket get `Cancelled`."""
        self._reader.close()

    def _tensors(self, row: int, members: Mapping[str, bytes] | Mapping[str, memoryview]) -> dict[str, Tensor]:
        sample = self._id_of(row, members)
        channels, shape = int(self._channels[row]), tuple(self.shapes[row].tolist())
        name, shape, types = (
            ("latents", (channels, *shape), ("<f4",)) if channels else ("tokens", shape, ("<i4", "<i8"))
        )
        found: dict[str, Tensor] = {}
        for each in (name, EXTRAPOLATED) if self._extrapolated[row] else (name,):
            if f"{each}.npy" not in members:
                raise DataError(f"sample {sample}: no member '{each}.npy'; it has {', '.join(sorted(members))}")
            tensor = torch.from_numpy(read_npy(members[f"{each}.npy"], shape, types, f"sample {sample}: {each}.npy"))
            found[each] = tensor if channels else tensor.long()
        found["fps"] = torch.tensor(self._fps[row], dtype=torch.float32)
        return found

    def _id_of(self, row: int, members: Mapping[str, bytes] | Mapping[str, memoryview]) -> str:
        """What the record says, once it is seen to be of the sample that the order has drawn. The table's own ids are not read
        for it; where they are at hand, they are compared too."""
        told = _SAMPLE_ID.search(bytes(members.get("json", b"")))
        sample = "" if told is None else told[1].decode(errors="replace")
        is_drawn = told is not None and sample_keys([sample])[0] == self.order_keys[row]
        if is_drawn and not self.table.has_read("sample_id"):
            return sample
        wanted: str = self.ids[row]
        if sample != wanted:
            raise DataError(
                f"sample {wanted}: the record that its row names is of another sample, or does not say of which"
            )
        if not is_drawn:
            raise DataError(
                f"sample {sample}: its {ORDER_KEY} in samples.parquet is {self.order_keys[row]}, which is another sample's: "
                "what is drawn for it would change with the table; encode the part again"
            )
        return sample

    def _check(self, sizes: np.ndarray) -> None:
        """`sizes`: bytes of each shard, -1 where there is none."""
        if any(wrong.any() for rows in blocks(len(self)) for wrong, _, _ in self._lies(rows, sizes)):
            for wrong, columns, what in self._lies(slice(None), sizes):
                self.table.refuse(wrong, columns, what)
        if not self.keys_differ:
            self.table.refuse(_seen_before(self.order_keys, self.ids), ["sample_id"], "the id of another row")

    def _lies(self, rows: slice, sizes: np.ndarray) -> Iterator[tuple[np.ndarray, list[str], str]]:
        """Of some rows, bool each, what cannot be true of them: where, by which columns, in words."""
        table = self.table
        offset, length, start, frames, fps, channels, extrapolated, *sides = (
            table.numbers(name)[rows]
            for name in ("offset", "bytes", "start_frame", "num_frames", "fps", "channels", EXTRAPOLATED, *_SIDES)
        )
        held = sizes[table.codes["shard"][rows]]
        whole = (offset >= 0) & (length >= _BLOCK) & ((offset | length) & (_BLOCK - 1) == 0)
        no_window = (start < 0) | (start > _MOST_START) | (frames < sides[0]) | (frames > _MOST_FRAMES)
        values = 1.0 + extrapolated  # of whole numbers it would overflow
        wrong_shape = channels < 0
        for side in sides:
            values *= side
            wrong_shape |= (side < 1) | (side > _MOST_SIDE)
        least = values * np.where(channels > 0, 4.0 * channels, 4)
        most = np.where(channels > 0, least, 2 * least) + _MOST_BESIDE  # tokens are int32 or int64
        known = np.array([kind in KINDS for kind in table.values["kind"]])[table.codes["kind"][rows]]
        outside = ~whole | (length > held) | (offset > held - length)
        yield wrong_shape, [*_SIDES, "channels"], "a shape that no sample has"
        yield held < 0, ["shard"], "a shard that is not there"
        yield outside, ["shard", "offset", "bytes"], "a range outside of its shard"
        yield (length < least) | (length > most), [*_SIDES, "channels", "bytes"], "a shape that is not of so many bytes"
        yield no_window, ["start_frame", "num_frames", "latent_frames"], "frames that no clip has"
        yield ~known, ["kind"], f"a kind other than {' and '.join(KINDS)}"
        yield ~(np.isfinite(fps) & (fps >= 0)), ["fps"], "a rate that is none"


def encoded_samples(
    source: "Artifact | Path", split: str, reading: ReadingConfig | None = None
) -> EncodedSamples | None:
    """The samples of a split of an artifact, or of a folder that was pulled; None where it has none. `reading`: how they are
    read out of buckets.

    Raises DataError for a table of lengths that cannot be true, and for a source without one.
    """
    place = place_of(source)
    table = open_lengths(place, split)
    return EncodedSamples(table, place, reading) if len(table) else None


def require_samples(source: "Artifact | Path", split: str, reading: ReadingConfig | None = None) -> EncodedSamples:
    """The same. Raises DataError for a split without samples."""
    found = encoded_samples(source, split, reading)
    if found is None:
        raise DataError(
            f"{place_of(source)}: the split {split!r} is empty; encode it (encode_latents.splits), or take another"
        )
    return found


def _side_by_side(columns: Sequence[np.ndarray]) -> np.ndarray:
    """int64 [N, columns], in a file without a name like the columns themselves."""
    found = unnamed((len(columns[0]), len(columns)), np.int64)
    for rows in blocks(len(found)):
        for place, column in enumerate(columns):
            found[rows, place] = column[rows]
    found.flags.writeable = False
    return found


def _lines(column: pa.Array) -> memoryview:
    """UTF-8 of a column of text, each row with a line feed behind it."""
    found = pc.binary_join_element_wise(column, _scalar(b""), _scalar(b"\n"))
    _, offsets, data = found.buffers()
    ends = np.frombuffer(offsets, np.int32)[found.offset : found.offset + len(found) + 1]
    return memoryview(data)[ends[0] : ends[-1]]


def _scalar(word: bytes) -> pa.StringScalar:
    """Not made by `pa.scalar`, which imports pandas: a quarter of a second."""
    ends = np.array([0, len(word)], np.int32)
    return pa.StringArray.from_buffers(1, pa.py_buffer(ends), pa.py_buffer(word))[0]


def _seen_before(keys: np.ndarray, ids: Sequence[str]) -> np.ndarray:
    """bool [N]: whether a row before has the same key and id; no set of all ids is made."""
    seen = np.zeros(len(ids), bool)
    order = np.argsort(keys, kind="stable")
    for place in np.flatnonzero(np.diff(keys[order]) == 0):
        one, other = int(order[place]), int(order[place + 1])
        seen[other] = ids[one] == ids[other]
    return seen
