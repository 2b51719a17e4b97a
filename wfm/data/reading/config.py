"""How records are read, and what came of it. None of it changes a byte that is read, so it enters no key."""

import copy
import dataclasses
import threading

from wfm.config import AboveZero, AtLeastZero, Bytes, Config, Count, Natural, how


class ReadingConfig(Config):
    """Of one reader."""

    connections: Count = how(32, le=1024)
    "Requests to a bucket at a time."
    retries: Natural = how(8)
    "Most times that a range is asked for again."
    retry_seconds: AtLeastZero = how(120.0)
    "Time after which a range is not asked for again [s]."
    stall_seconds: AboveZero = how(2.0)
    """A request may take so long, and the time that its bytes take at `least_rate`; then it is cut, and the range asked for on
    another connection [s]. Each later try may take twice as long. (S3's guide advises 2 s for small objects, 4 s for the try
    after: what a connection that hangs holds up must be less than what is read ahead.)"""
    least_rate: Bytes = how(64 * 1024)
    "See `stall_seconds` [bytes/s]."
    cache_dir: str = how("")
    "Folder of the cache for records of buckets; empty: `records` in the folder of caches ($WFM_CACHE, else ~/.cache/wfm)."
    cache_bytes: int = how(0, ge=0, lt=2**63)
    "Most that the cache holds [bytes]; 0: no cache."


@dataclasses.dataclass
class ReadingCounts:
    """What a reader did since it was made."""

    reads: int = 0
    "Records given."
    bytes: int = 0
    "Of records that came from their places, not from the cache."
    requests: int = 0
    "Asked of places: preads of a disk, requests to a bucket."
    hits: int = 0
    "Records found in the cache."
    retries: int = 0
    "Requests that were made again after a passing trouble."
    cut: int = 0
    "Requests that were cut because they stalled or trickled."
    hash_mismatches: int = 0
    "Records read from their places whose bytes had another hash than the table of places says."
    damaged_entries: int = 0
    "Entries of the cache that were not what they should be, and were replaced."


class Counter:
    """`ReadingCounts` that several threads add to."""

    def __init__(self) -> None:
        self._counts, self._lock = ReadingCounts(), threading.Lock()

    def add(self, **more: int) -> None:
        with self._lock:
            for name, value in more.items():
                setattr(self._counts, name, getattr(self._counts, name) + value)

    def counts(self) -> ReadingCounts:
        with self._lock:
            return copy.copy(self._counts)
