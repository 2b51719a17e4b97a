"""Records by row: `RecordReader`."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from wfm.artifacts.address import cache_root, parse_address
from wfm.data.reading.cache import RecordCache
from wfm.data.reading.config import Counter, ReadingConfig, ReadingCounts
from wfm.data.reading.in_bucket import Bucket
from wfm.data.reading.on_disk import Disk
from wfm.data.reading.record_places import RecordPlaces
from wfm.data.shards import sample_in
from wfm.errors import DataError

if TYPE_CHECKING:
    from wfm.artifacts import Store


class RecordReader:
    """The members of samples by row, each checked against its sha256. Any number of threads may read at once.

    `store` gives its options (credentials, endpoint) for places of its own kind; without it, or for others, the environment
    does. A process that is forked off makes its own connections.
    """

    def __init__(self, places: RecordPlaces, config: ReadingConfig | None = None, store: "Store | None" = None) -> None:
        config = config or ReadingConfig()
        self.places = places
        self._counter = Counter()
        self._disk, self._bucket = Disk(), Bucket(config, store, self._counter)
        self._paths = [_path_or_url(url) for url in places.shards]
        self._cache: RecordCache | None = None
        if config.cache_bytes and any(not local for _, local in self._paths):
            folder = Path(config.cache_dir) if config.cache_dir else cache_root() / "records"
            self._cache = RecordCache(folder, config.cache_bytes, self._counter)

    def __len__(self) -> int:
        return len(self.places)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, row: int) -> dict[str, bytes]:
        """The members of one sample by suffix (``json``, ``latents.npy`` ...).

        Raises `DataError` for bytes that are damaged or are no sample, `NotThere` for a shard that is missing, `InputError`
        for a place that refuses us, `TryAgain` for one that does not answer, `Cancelled` once the reader is closed.
        """
        places = self.places
        if not 0 <= row < len(places):
            raise IndexError(f"row {row} is none of {len(places)} records")
        offset, size, digest = int(places.offset[row]), int(places.size[row]), places.sha256[row].tobytes()
        path, is_local = self._paths[places.shard[row]]
        try:
            data = (self._local if is_local else self._remote)(path, offset, size, digest)
            return sample_in(data, path).members
        except DataError as error:
            raise DataError(f"row {row} of the records: {error}") from None

    def check(self) -> None:
        """Ask each place how large its shards are, a listing a folder: raises `DataError` naming the first row of a shard that
        lies outside of it, and as `read` does."""
        sizes = np.empty(len(self._paths), np.int64)
        for place, wanted in ((self._disk, True), (self._bucket, False)):
            numbers = [number for number, (_, is_local) in enumerate(self._paths) if is_local == wanted]
            sizes[numbers] = place.sizes([self._paths[number][0] for number in numbers])
        for number in np.flatnonzero(self.places.ends() > sizes):
            rows = self.places.shard == number
            row = int(np.argmax(rows & (self.places.offset + self.places.size > sizes[number])))
            raise DataError(
                f"row {row} of the records: {self._paths[number][0]} has {sizes[number]} bytes, the table of records says "
                f"{self.places.size[row]} bytes at {self.places.offset[row]}: the shard is cut short, or another's"
            )

    def counts(self) -> ReadingCounts:
        """What was done so far."""
        return self._counter.counts()

    def close(self) -> None:
        """Threads that wait for a bucket get `Cancelled`; files are closed."""
        self._bucket.close()
        self._disk.close()

    def _local(self, path: str, offset: int, size: int, digest: bytes) -> bytes:
        for _ in range(2):
            data = self._disk.read(path, offset, size)
            fits = hashlib.sha256(data).digest() == digest
            self._counter.add(reads=fits, requests=1, bytes=size, hash_mismatches=not fits)
            if fits:
                return data
        raise _another_hash(path, offset, size, digest)

    def _remote(self, url: str, offset: int, size: int, digest: bytes) -> bytes:
        if self._cache and (found := self._cache.get(digest)) is not None:
            self._counter.add(reads=1, hits=1)
            return found
        for _ in range(2):
            data = self._bucket.read(url, offset, size)
            fits = hashlib.sha256(data).digest() == digest
            self._counter.add(reads=fits, hash_mismatches=not fits)
            if fits:
                if self._cache:
                    self._cache.put(digest, data)
                return data
        raise _another_hash(url, offset, size, digest)


def _another_hash(path: str, offset: int, size: int, digest: bytes) -> DataError:
    return DataError(
        f"{size} bytes at {offset} of {path}, read twice, do not have the sha256 {digest.hex()}: the shard is damaged, or the "
        "table of records is of another"
    )


def _path_or_url(shard: str) -> tuple[str, bool]:
    """(absolute path, True) of a local shard, (address, False) of another."""
    address = parse_address(shard)
    return (address.root, True) if address.scheme == "file" else (shard, False)
