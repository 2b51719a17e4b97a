"""Records by row: `RecordReader`."""

import functools
import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from wfm.artifacts.address import cache_root, parse_address
from wfm.data.reading.cache import RecordCache
from wfm.data.reading.config import Counter, ReadingConfig, ReadingCounts
from wfm.data.reading.in_bucket import Bucket
from wfm.data.reading.on_disk import Disk
from wfm.data.reading.record_places import RecordPlaces
from wfm.data.shards import members_in
from wfm.errors import DataError, MissingPackage

if TYPE_CHECKING:
    from wfm.artifacts import Store


@functools.cache
def google_crc32c() -> Any:
    """The package. Raises `MissingPackage`."""
    try:
        import google_crc32c
    except ImportError:
        raise MissingPackage("google-crc32c", extra="train", purpose="reading records of a local disk") from None
    return google_crc32c


class _Record(NamedTuple):
    """Where one lies."""

    row: int
    path: str
    is_local: bool
    offset: int
    size: int
    checksum: int | bytes
    "crc32c or, of all in a bucket, sha256."

    @property
    def sha256(self) -> bytes:
        """Of a record in a bucket."""
        assert isinstance(self.checksum, bytes)
        return self.checksum


class RecordReader:
    """The members of samples by row, each checked against its sha256 (on a local disk its crc32c, where there is one). Any
    number of threads may read at once.

    `store` gives its options (credentials, endpoint) for places of its own kind; without it, or for others, the environment
    does. A process that is forked off, while no thread reads, makes its own connections.
    """

    def __init__(self, places: RecordPlaces, config: ReadingConfig | None = None, store: "Store | None" = None) -> None:
        config = config or ReadingConfig()
        self.places = places
        self._sum_on_disk: Callable[[bytes], int | bytes] = _sha256 if places.crc32c is None else google_crc32c().value
        self._counter = Counter()
        self._disk, self._bucket = Disk(), Bucket(config, store, self._counter)
        self._paths, self._local = _paths_of(places.shards)
        if not all(self._local):
            places.sha256[:0]  # what is wrong with hashes that are read late is no sample's fault
        self._cache: RecordCache | None = None
        if config.cache_bytes and not all(self._local):
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
        return {name: bytes(member) for name, member in self.read_many((row,))[0].items()}

    def read_many(self, rows: Sequence[int]) -> list[dict[str, memoryview]]:
        """The members of several samples, as views of what was read. Buckets are asked for all of them at once, as far as there
        are connections. Raises as `read` does, for the first that cannot be read."""
        records, read, sum_of = self._records(rows), self._disk.read, self._sum_on_disk
        begun: list[bytes | Future[bytes] | None] = []
        found: list[dict[str, memoryview]] = []
        whole = total = 0
        try:
            for record in records:
                begun.append(None if record[2] else self._begin(_Record(*record)))
            for record, first in zip(records, begun, strict=True):
                row, path, _, offset, size, checksum = record
                try:
                    if first is not None:
                        data = self._remote(_Record(*record), first)
                    elif sum_of(data := read(path, offset, size)) == checksum:
                        whole, total = whole + 1, total + size
                    else:
                        data = self._local_again(_Record(*record))
                    found.append(members_in(memoryview(data), path)[1])
                except DataError as error:
                    raise DataError(f"row {row} of the records: {error}") from None
        finally:
            for first in begun:
                if isinstance(first, Future):
                    first.cancel()
            if whole:
                self._counter.add(reads=whole, requests=whole, bytes=total)
        return found

    def check(self) -> None:
        """Ask each place how large its shards are, a listing a folder: raises `DataError` naming the first row of a shard that
        lies outside of it, and as `read` does."""
        sizes = np.empty(len(self._paths), np.int64)
        for place, wanted in ((self._disk, True), (self._bucket, False)):
            numbers = [number for number, is_local in enumerate(self._local) if is_local == wanted]
            sizes[numbers] = place.sizes([self._paths[number] for number in numbers])
        for number in np.flatnonzero(self.places.ends() > sizes):
            rows = self.places.shard == number
            row = int(np.argmax(rows & (self.places.offset + self.places.size > sizes[number])))
            raise DataError(
                f"row {row} of the records: {self._paths[number]} has {sizes[number]} bytes, the table of records says "
                f"{self.places.size[row]} bytes at {self.places.offset[row]}: the shard is cut short, or another's"
            )

    def counts(self) -> ReadingCounts:
        """What was done so far."""
        return self._counter.counts()

    def close(self) -> None:
        """Threads that wait for a bucket get `Cancelled`; files are closed."""
        self._bucket.close()
        self._disk.close()

    def _records(self, rows: Sequence[int]) -> list[tuple[int, str, bool, int, int, int | bytes]]:
        """What a `_Record` is made of, each; one that is read as it should be is none."""
        places, at = self.places, np.asarray(rows, np.int64)
        for row in at[(at < 0) | (at >= len(places))].tolist():
            raise IndexError(f"row {row} is none of {len(places)} records")
        numbers = places.shard[at].tolist()
        paths, local = [self._paths[number] for number in numbers], [self._local[number] for number in numbers]
        spans = places.offset[at].tolist(), places.size[at].tolist()
        return list(zip(at.tolist(), paths, local, *spans, self._sums(at, local), strict=True))

    def _sums(self, at: np.ndarray, local: list[bool]) -> list[int | bytes]:
        """What the bytes of each are compared with; of a column that is not wanted no page is touched."""
        crc32c: list[int | bytes] = [] if self.places.crc32c is None else self.places.crc32c[at].tolist()
        if crc32c and all(local):
            return crc32c
        sums: list[int | bytes] = [digest.tobytes() for digest in self.places.sha256[at]]
        for nth in np.flatnonzero(local) if crc32c else ():
            sums[nth] = crc32c[nth]
        return sums

    def _local_again(self, record: _Record) -> bytes:
        """Once more, of a record whose bytes had another hash."""
        data = self._disk.read(record.path, record.offset, record.size)
        fits = self._sum_on_disk(data) == record.checksum
        self._counter.add(reads=fits, requests=2, bytes=2 * record.size, hash_mismatches=2 - fits)
        if not fits:
            raise _another_hash(record)
        return data

    def _begin(self, record: _Record) -> "bytes | Future[bytes]":
        """Of a record in a bucket: what the cache has, or the first request, under way."""
        if self._cache and (found := self._cache.get(record.sha256)) is not None:
            self._counter.add(reads=1, hits=1)
            return found
        return self._bucket.begin(record.path, record.offset, record.size)

    def _remote(self, record: _Record, first: "bytes | Future[bytes] | None") -> bytes:
        if isinstance(first, bytes):
            return first
        for _ in range(2):
            data = self._bucket.read(record.path, record.offset, record.size, first)
            fits, first = _sha256(data) == record.sha256, None
            self._counter.add(reads=fits, hash_mismatches=not fits)
            if fits:
                if self._cache:
                    self._cache.put(record.sha256, data)
                return data
        raise _another_hash(record)


def _another_hash(record: _Record) -> DataError:
    own = record.checksum
    what = f"sha256 {own.hex()}" if isinstance(own, bytes) else f"crc32c {own}"
    return DataError(
        f"{record.size} bytes at {record.offset} of {record.path}, read twice, do not have the {what}: the shard is damaged, "
        "or the table of records is of another"
    )


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _paths_of(shards: Sequence[str]) -> tuple[list[str], list[bool]]:
    """Of each shard: its absolute path, or its address where it is not local; and whether it is."""
    addresses = [parse_address(shard) for shard in shards]
    local = [address.scheme == "file" for address in addresses]
    paths = [address.root if here else shard for shard, address, here in zip(shards, addresses, local, strict=True)]
    return paths, local
