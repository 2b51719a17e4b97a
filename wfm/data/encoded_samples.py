"""Encoded records read back as `Samples`: the table of lengths mapped into memory, a sample's arrays when its turn comes.

    samples = encoded_samples(latents, "train")   # an artifact, or a folder that `wfm artifacts pull` made
    samples.shapes[7], samples.read(7)            # [t, h, w]; {"latents": [C, t, h, w], "fps": []}

A table that does not describe its shards is refused when it is opened (what lies outside a shard, a shape that is none, an id
twice) or when the sample is read (other bytes, another key, an array of another shape): as DataError, with the sample's name.
"""

import dataclasses
import functools
import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from wfm.data.order.sources import sample_keys
from wfm.data.reading import ReadingConfig, RecordPlaces, RecordReader
from wfm.data.record_table import RecordPlace, mapped, numbers, place_of
from wfm.data.records import EXTRAPOLATED, KINDS, ORDER_KEY, read_npy
from wfm.errors import DataError

if TYPE_CHECKING:
    from wfm.artifacts import Artifact

_SIDES = ["latent_frames", "latent_height", "latent_width"]
_IDENTITY = ["sample_id", "clip_id", "sha256", "mirrored", "fps", "start_frame", "num_frames"]
_BLOCK = 512  # of a tar
_MOST_SIDE = 1 << 24
_MOST_START, _MOST_FRAMES = 1 << 40, 1 << 24  # of a sample in its clip
_MOST_BESIDE = 1 << 16  # bytes of a record that are not its arrays': headers, padding, the row as JSON
_ROWS = 65536  # that are Python objects at one time
_LOOKED_AT = 256  # rows whose order key is worked out when the table is opened


class Words(Sequence[str]):
    """A column of text as a sequence: no Python object a row until it is asked for."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self.column = column

    def __len__(self) -> int:
        return len(self.column)

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

    def __init__(self, table: pa.Table, place: RecordPlace, split: str, reading: ReadingConfig | None = None) -> None:
        """Raises DataError for a table that cannot be true, and as `RecordReader.check` does."""
        self.table = table
        "Every column of the split's rows (`wfm.data.records.LENGTHS`), mapped from a file."
        self.split = split
        self.ids: Sequence[str] = Words(table.column("sample_id"))
        "Of the samples, each once."
        self.order_keys = numbers(table, ORDER_KEY)
        "uint64 [N]: `wfm.data.order.sample_keys` of them."
        self.shapes = _side_by_side([numbers(table, name) for name in _SIDES])
        "int64 [N, 3]: latent frames, height, width."
        self._place = place
        self._channels, self._fps = numbers(table, "channels"), numbers(table, "fps")
        self._rates = torch.from_numpy(self._fps.astype(np.float32))
        self._extrapolated = table.column(EXTRAPOLATED).to_numpy()
        shards = sorted(pc.unique(table.column("shard")).to_pylist())
        shard = pc.index_in(table.column("shard"), value_set=pa.array(shards, pa.string())).to_numpy()
        self._check(np.array([place.size(path) for path in shards], np.int64)[shard])
        offset, size, sha256, crc32c = (numbers(table, name) for name in ("offset", "bytes", "sha256", "crc32c"))
        places = RecordPlaces([place.address(path) for path in shards], shard, offset, size, sha256, crc32c)
        self._reader = RecordReader(places, reading, place.store)
        self._reader.check()

    @functools.cached_property
    def sizes(self) -> np.ndarray:
        """int64 [N]: bytes of a sample's tensors."""
        each = np.where(self._channels > 0, 4 * self._channels, 8)  # latents fp32, tokens int64
        return np.asarray(self.shapes.prod(axis=1) * each * (1 + self._extrapolated) + 4)

    @functools.cached_property
    def identity(self) -> str:
        """sha256 of the ids, the bytes of the records, the rates, and which frames of which clip a sample is (by these, signals
        and text are joined to it), in the order of the rows."""
        digest = hashlib.sha256(b"encoded 2")
        for batch in self.table.select(_IDENTITY).to_batches(max_chunksize=_ROWS):
            ids, clips, hashes, mirrored, *numbered = batch.columns
            for words in (ids, clips):
                digest.update("\n".join([*words.to_pylist(), ""]).encode())
            digest.update(b"".join(hashes.to_pylist()))
            digest.update(np.asarray(mirrored.to_numpy(zero_copy_only=False), "u1").tobytes())
            for column in numbered:
                digest.update(np.asarray(column.to_numpy(), "<f8" if column.type == pa.float64() else "<i8").tobytes())
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
        sample = self.ids[row]
        if f'"sample_id": "{sample}"'.encode() not in bytes(members.get("json", b"")):
            raise DataError(
                f"sample {sample}: the record that its row names is of another sample, or does not say of which"
            )
        if sample_keys([sample])[0] != self.order_keys[row]:
            raise DataError(
                f"sample {sample}: its {ORDER_KEY} in samples.parquet is {self.order_keys[row]}, which is another sample's: "
                "what is drawn for it would change with the table; encode the part again"
            )
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
        found["fps"] = self._rates[row].clone()
        return found

    def _check(self, sizes: np.ndarray) -> None:
        """`sizes`: bytes of each row's shard, -1 where there is none."""
        offset, length = numbers(self.table, "offset"), numbers(self.table, "bytes")
        whole = (offset >= 0) & (length >= _BLOCK) & (offset % _BLOCK == 0) & (length % _BLOCK == 0)
        start, frames = numbers(self.table, "start_frame"), numbers(self.table, "num_frames")
        no_window = (start < 0) | (start > _MOST_START) | (frames < self.shapes[:, 0]) | (frames > _MOST_FRAMES)
        values = self.shapes.prod(axis=1, dtype=np.float64) * (
            1 + self._extrapolated
        )  # of whole numbers it would overflow
        least = values * np.where(self._channels > 0, 4.0 * self._channels, 4)
        most = np.where(self._channels > 0, least, 2 * least) + _MOST_BESIDE  # tokens are int32 or int64
        known = pc.is_in(self.table.column("kind"), value_set=pa.array(KINDS)).to_numpy()
        wrong_shape = ((self.shapes < 1) | (self.shapes > _MOST_SIDE)).any(axis=1) | (self._channels < 0)
        place = ["shard", "offset", "bytes"]
        self._refuse(wrong_shape, [*_SIDES, "channels"], "a shape that no sample has")
        self._refuse(sizes < 0, ["shard"], "a shard that is not there")
        self._refuse(~whole | (length > sizes) | (offset > sizes - length), place, "a range outside of its shard")
        self._refuse(
            (length < least) | (length > most), [*_SIDES, "channels", "bytes"], "a shape that is not of so many bytes"
        )
        self._refuse(no_window, ["start_frame", "num_frames", "latent_frames"], "frames that no clip has")
        self._refuse(~known, ["kind"], f"a kind other than {' and '.join(KINDS)}")
        self._refuse(~(np.isfinite(self._fps) & (self._fps >= 0)), ["fps"], "a rate that is none")
        self._refuse(_other_keys(self.table), ["key"], "the key of another sample")
        self._refuse(self._other_order_keys(), [ORDER_KEY], "the order key of another sample")
        self._refuse(_seen_before(self.order_keys, self.ids), ["sample_id"], "the id of another row")

    def _other_order_keys(self) -> np.ndarray:
        """bool [N]: of a few rows, those whose order key is not their id's. All others are looked at when they are read."""
        rows = np.unique(np.linspace(0, len(self) - 1, _LOOKED_AT).astype(np.int64))
        found = np.zeros(len(self), bool)
        found[rows] = sample_keys([self.ids[row] for row in rows.tolist()]) != self.order_keys[rows]
        return found

    def _refuse(self, wrong: np.ndarray, columns: list[str], what: str) -> None:
        if wrong.any():
            row = self.table.slice(int(np.flatnonzero(wrong)[0]), 1).to_pylist()[0]
            says = ", ".join(f"{name} {row[name]!r}" for name in columns)
            raise DataError(
                f"samples.parquet of {self._place}, split {self.split!r}: {int(wrong.sum())} of {len(self)} rows have {what}, "
                f"such as sample {row['sample_id']}: {says}"
            )


def encoded_samples(
    source: "Artifact | Path", split: str, reading: ReadingConfig | None = None
) -> EncodedSamples | None:
    """The samples of a split of an artifact, or of a folder that was pulled; None where it has none. `reading`: how they are
    read out of buckets.

    Raises DataError for a table of lengths that cannot be true, and for a source without one.
    """
    place = place_of(source)
    table = mapped(place, split)
    return EncodedSamples(table, place, split, reading) if len(table) else None


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
    with tempfile.TemporaryFile() as file:
        found = np.asarray(np.memmap(file, np.int64, shape=(len(columns[0]), len(columns))))
    for place, column in enumerate(columns):
        found[:, place] = column
    found.flags.writeable = False
    return found


def _other_keys(table: pa.Table) -> np.ndarray:
    """bool [N]: whether a row's key is not its sample's (`record_key`)."""
    pairs = zip(table.column("key").chunks, table.column("sample_id").chunks, strict=True)
    found = [pc.not_equal(keys, pc.replace_substring(ids, ":", "-")) for keys, ids in pairs]
    return np.asarray(pa.chunked_array(found, pa.bool_()).to_numpy())


def _seen_before(keys: np.ndarray, ids: Sequence[str]) -> np.ndarray:
    """bool [N]: whether a row before has the same key and id; no set of all ids is made."""
    seen = np.zeros(len(ids), bool)
    in_order = np.sort(keys)
    if not (in_order[1:] == in_order[:-1]).any():
        return seen
    order = np.argsort(keys, kind="stable")
    for place in np.flatnonzero(np.diff(keys[order]) == 0):
        one, other = int(order[place]), int(order[place + 1])
        seen[other] = ids[one] == ids[other]
    return seen
