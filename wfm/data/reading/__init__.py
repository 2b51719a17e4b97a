"""Records out of shards, by row: one sample's bytes at a time, from a disk or a bucket, right or refused.

Read in this order:

    record_places  where records lie: shard, offset, bytes and sha256 as arrays, so that a million rows are a few arrays
    reader         `RecordReader.read(row)` -> the members of one sample, their hash checked each time; `read_many` of a run
    on_disk        ranges of local files: one pread
    in_bucket      ranges of objects (s3://, gs://): one request, cut when it stalls, asked again when that may help
    cache          records of buckets kept on a local disk under a cap, shared by the processes of a machine
    config         `ReadingConfig`: how often, how long, how many at once; `ReadingCounts` says what came of it

What passes (5xx, throttling, connections that break, stall or trickle) is asked again with growing, jittered pauses, at most
`retries` times and `retry_seconds` long, and is `TryAgain` then. What never passes (no such bucket or object, refused
credentials) is said at once. Bytes that are not what the table of places says are read once more, past the cache, and are
`DataError` then: another sample may take the place of that one.

sha256 is checked at each read, not only at a row's first: 16 KiB cost 11 of the 25 microseconds that such a read takes, on a
processor that has instructions for it, and threads do it side by side. What a second epoch reads has come over the
network or from a cache on a disk again: a flipped bit that is found there costs a sample, one that is not found goes into the
weights.

Records of local files go through no cache: the system's page cache is one. A disk that does not answer at all (a hard NFS
mount whose server is away) holds the thread that reads, as it holds everything else; nothing in a process can cut that.

Neighbouring ranges are not merged into one request: an order shuffles over all shards, so that of 16 samples of a step hardly
two are neighbours.
"""

from wfm.data.reading.config import ReadingConfig, ReadingCounts
from wfm.data.reading.reader import RecordReader
from wfm.data.reading.record_places import RecordPlaces

__all__ = ["ReadingConfig", "ReadingCounts", "RecordPlaces", "RecordReader"]
