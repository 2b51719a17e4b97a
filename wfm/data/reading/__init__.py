"""Records out of shards, by row: one sample's bytes at a time, from a disk or a bucket, right or refused.

Read in this order:

    record_places  where records lie: shard, offset, bytes and hashes as arrays, so that a million rows are a few arrays
    reader         `RecordReader.read(row)` -> the members of one sample, each checked each time; `read_many` of a run
    on_disk        ranges of local files: one pread
    in_bucket      ranges of objects (s3://, gs://): one request, cut when it stalls, asked again when that may help
    cache          records of buckets kept on a local disk under a cap, shared by the processes of a machine
    config         `ReadingConfig`: how often, how long, how many at once; `ReadingCounts` says what came of it

What passes (5xx, throttling, connections that break, stall or trickle) is asked again with growing, jittered pauses, at most
`retries` times and `retry_seconds` long, and is `TryAgain` then. What never passes (no such bucket or object, refused
credentials) is said at once. Bytes that are not what the table of places says are read once more, past the cache, and are
`DataError` then: another sample may take the place of that one.

Every read is checked, not only a row's first. What comes over a network or out of the cache, which anybody may write to, is
compared with its sha256; what comes off a local disk with its crc32c, where the table has one: that finds flipped bits, torn
writes and ranges of another shard as well, and costs 1 microsecond of 16 KiB where sha256 costs 11, as much as all else.

Records of local files go through no cache: the system's page cache is one. A disk that does not answer at all (a hard NFS
mount whose server is away) holds the thread that reads, as it holds everything else; nothing in a process can cut that.

Neighbouring ranges are not merged into one request: an order shuffles over all shards, so that of 16 samples of a step hardly
two are neighbours.
"""

from wfm.data.reading.config import ReadingConfig, ReadingCounts
from wfm.data.reading.reader import RecordReader
from wfm.data.reading.record_places import RecordPlaces

__all__ = ["ReadingConfig", "ReadingCounts", "RecordPlaces", "RecordReader"]
