"""Records of local shards: every byte, and every lie refused by name."""

import dataclasses
import hashlib
import shutil
import tarfile
from concurrent.futures import ThreadPoolExecutor

import google_crc32c
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wfm.data.reading import RecordReader
from wfm.data.remote import NotThere
from wfm.data.shards import ShardWriter, _header, _judged_members, _plain_members, sample_in
from wfm.errors import DataError, InputError


@pytest.fixture
def spoilt(records, tmp_path):
    """A copy of the shards, to be damaged."""
    shutil.copytree(records.folder, tmp_path / "copy")
    return dataclasses.replace(records, folder=tmp_path / "copy")


def changed(places, **arrays):
    return dataclasses.replace(places, **arrays)


def with_row(array, row, value):
    array = array.copy()
    array[row] = value
    return array


def test_every_member_of_every_row_from_several_threads(records):
    rows = np.random.default_rng(1).permutation(len(records.members)).tolist()
    with RecordReader(records.places()) as reader, ThreadPoolExecutor(4) as threads:
        reader.check()
        assert list(threads.map(reader.read, rows)) == [records.members[row] for row in rows]
    counts = reader.counts()
    assert (counts.reads, counts.requests, counts.bytes) == (len(rows), len(rows), records.arrays["size"].sum())
    assert len(reader) == len(rows)


def test_file_addresses_and_more_shards_than_open_files(records):
    with RecordReader(records.places(f"file://{records.folder}")) as reader:
        reader._disk._most_open = 1
        assert len(records.names) > 2
        for row in range(0, len(records.members), 7):
            assert reader.read(row) == records.members[row]
        assert len(reader._disk._handles) == 1


def test_a_row_that_is_none(records):
    with RecordReader(records.places()) as reader:
        for row in (-1, len(records.members)):
            with pytest.raises(IndexError, match=f"row {row} is none of 120"):
                reader.read(row)


def test_a_truncated_shard_names_shard_and_row(spoilt):
    path = spoilt.folder / spoilt.names[0]
    path.write_bytes(path.read_bytes()[:10_000])
    with RecordReader(spoilt.places()) as reader:
        with pytest.raises(DataError, match=r"row 2 of the records: .*train-00000.tar has 10000 bytes.*cut short"):
            reader.check()
        assert reader.read(0) == spoilt.members[0]
        for row, words in ((2, "ends at byte 10000"), (3, "ends before")):
            with pytest.raises(DataError, match=rf"row {row} of the records: .*train-00000.tar {words}"):
                reader.read(row)


def test_an_offset_that_lies_outside(records):
    places = records.places()
    places = changed(places, offset=with_row(places.offset, 5, 512 * 10**6))
    with RecordReader(places) as reader:
        with pytest.raises(DataError, match=r"row 5 of the records: .* says 3584 bytes at 512000000"):
            reader.check()
        with pytest.raises(DataError, match=r"row 5 of the records: .*3584 bytes at 512000000 were asked for"):
            reader.read(5)
        assert reader.read(6) == records.members[6]


def test_a_sha256_that_lies_is_read_twice(records):
    places = records.places()
    places = changed(places, sha256=with_row(places.sha256, 9, 0))
    with RecordReader(places) as reader:
        with pytest.raises(DataError, match=rf"row 9 of the records: .*read twice, do not have the sha256 {'00' * 32}"):
            reader.read(9)
        assert reader.counts().hash_mismatches == 2
        assert reader.counts().reads == 0


def test_a_flipped_byte_on_the_disk(spoilt):
    path = spoilt.folder / spoilt.names[0]
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    path.write_bytes(data)
    with RecordReader(spoilt.places()) as reader, pytest.raises(DataError, match="row 0 of the records"):
        reader.read(0)


@pytest.mark.parametrize("kind", ["two samples", "half a sample", "no header"])
def test_a_range_that_is_not_one_sample(records, kind):
    """With the right hash: the table was made of another cut."""
    places, data = records.places(), (records.folder / records.names[0]).read_bytes()
    start, size = int(places.offset[1]), int(places.size[1])
    start, size = {"two samples": (start, 2 * size), "half a sample": (start, 1024), "no header": (start + 512, 1024)}[
        kind
    ]
    words = {
        "two samples": "runs sample 's00001' into 's00002'",
        "half a sample": "does not end within",
        "no header": "no member header",
    }
    digest = np.frombuffer(hashlib.sha256(data[start : start + size]).digest(), np.uint8)
    places = changed(
        places,
        offset=with_row(places.offset, 1, start),
        size=with_row(places.size, 1, size),
        sha256=with_row(places.sha256, 1, digest),
    )
    with RecordReader(places) as reader, pytest.raises(DataError, match=rf"row 1 of the records: .*{words[kind]}"):
        reader.read(1)


def test_missing_and_unreadable_shards_are_no_damage(spoilt):
    (spoilt.folder / spoilt.names[0]).unlink()
    (spoilt.folder / spoilt.names[1]).unlink()
    (spoilt.folder / spoilt.names[1]).mkdir()
    with RecordReader(spoilt.places()) as reader:
        with pytest.raises(NotThere, match=r"train-00000.tar is not there"):
            reader.read(0)
        with pytest.raises(NotThere, match=r"train-00000.tar is not there"):
            reader.check()
        row = int(np.argmax(spoilt.arrays["shard"] == 1))
        with pytest.raises(DataError, match="a folder, a pipe or a device"):
            reader.read(row)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("shard", 99, "shard number 99 is none of"),
        ("offset", -512, "offset -512 is no block"),
        ("offset", 100, "offset 100 is no block"),
        ("size", 0, "0 bytes are no whole blocks"),
        ("size", 700, "700 bytes are no whole blocks"),
        ("size", 2**63 - 512, ".* bytes are more than any file has"),
    ],
)
def test_places_that_lie_are_refused_by_row(records, field, value, words):
    places = records.places()
    with pytest.raises(DataError, match=f"row 3 lies: {words}"):
        changed(places, **{field: with_row(getattr(places, field), 3, value)})


def test_places_of_other_shapes_or_schemes(records):
    places = records.places()
    with pytest.raises(DataError, match=r"these are \(120,\), \(119,\)"):
        changed(places, offset=places.offset[:-1])
    with pytest.raises(DataError, match="sha256 is of uint8"):
        changed(places, sha256=places.sha256.astype(np.int64))
    with pytest.raises(InputError, match="unknown scheme 'http'"):
        RecordReader(changed(places, shards=["http://host/x.tar"] * len(places.shards)))


def test_one_sample_of_a_range_and_the_headers_that_tarfile_judges(tmp_path):
    with ShardWriter(tmp_path, "a") as writer:
        writer.write("k", {"npy": b"x" * 700, "json": b"{}"})
    data = writer.shards[0].path.read_bytes()[: 512 + 1024 + 512 + 512]
    assert sample_in(data, "here").members == {"npy": b"x" * 700, "json": b"{}"}
    assert _plain_members(data) is not None  # the writer's own needs no tarfile
    spoilt = {
        "damaged": data[:257] + b"x" + data[258:],
        "not a regular file": _with_checksum(data[:156] + b"2" + data[157:]),
        "without folders": _with_checksum(b"../k.npy".ljust(100, b"\0") + data[100:]),
        "does not end within": _with_checksum(data[:124] + b"00077777777\0" + data[136:]),
        "two members": data[:1536] + data[:1536],
        "the range is empty": b"",
        "cut short": data[:300],
    }
    for words, range_ in spoilt.items():
        with pytest.raises(DataError, match=f"^here: .*{words}"):
            sample_in(range_, "here")


def _with_checksum(data):
    blank = data[:148] + b" " * 8 + data[156:]
    return data[:148] + b"%06o\0 " % sum(blank[:512]) + data[156:]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0, 1536]), st.integers(0, 511), st.integers(0, 255)), max_size=3),
    st.sampled_from([0, -512, 512, 100]),
    st.booleans(),
)
def test_the_quick_reading_of_a_range_says_what_tarfile_says(changes, more, mend):
    """Of headers that are changed anywhere, with their checksums mended or not, and of ranges that are too short or long."""
    data = bytearray(
        b"".join(
            block
            for name, size in (("k.npy", 700), ("k.json", 2))
            for block in (_header(name, size).tobuf(tarfile.USTAR_FORMAT), b"x" * size, bytes(-size % 512))
        )
    )
    for header, place, value in changes:
        data[header + place] = value
    if mend:
        for header in (0, 1536):
            data[header : header + 512] = _with_checksum(bytes(data[header : header + 512]))
    range_ = bytes(data) + bytes(more) if more > 0 else bytes(data[: len(data) + more])
    quick = _plain_members(range_)
    if quick is None or not mend:
        return  # tarfile judges it; a checksum that is wrong is the hash's matter
    assert quick == _judged_members(range_, "here")
    assert _plain_members(memoryview(range_)) == quick


def test_several_rows_at_once_are_the_same_as_one_by_one(records):
    with RecordReader(records.places()) as reader:
        rows = [5, 3, 3, 119, 0]
        assert reader.read_many(rows) == [records.members[row] for row in rows]
        assert reader.read_many([]) == []
        assert (reader.counts().reads, reader.counts().bytes) == (5, records.arrays["size"][rows].sum())
        with pytest.raises(IndexError, match="row 120 is none of 120"):
            reader.read_many([1, 120])
    places = records.places()
    with RecordReader(changed(places, sha256=with_row(places.sha256, 9, 0))) as reader:
        with pytest.raises(DataError, match="row 9 of the records"):
            reader.read_many([1, 9, 2])
        assert (reader.counts().reads, reader.counts().hash_mismatches) == (1, 2)


def with_crc32c(records, places):
    shards = [(records.folder / name).read_bytes() for name in records.names]
    rows = zip(places.shard, places.offset, places.size, strict=True)
    sums = [google_crc32c.value(shards[shard][offset : offset + size]) for shard, offset, size in rows]
    return changed(places, crc32c=np.array(sums, np.uint32))


def test_a_local_disk_is_checked_by_crc32c_where_there_is_one(spoilt):
    """The sha256 of row 3 lies, and nobody asks it; a byte of row 0 is flipped, and is found."""
    places = with_crc32c(spoilt, spoilt.places())
    places = changed(places, sha256=with_row(places.sha256, 3, 0))
    path = spoilt.folder / spoilt.names[0]
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    path.write_bytes(data)
    with RecordReader(places) as reader:
        assert reader.read_many(range(1, 120)) == spoilt.members[1:]
        with pytest.raises(DataError, match=rf"row 0 .*read twice, do not have the crc32c {places.crc32c[0]}"):
            reader.read(0)
        assert (reader.counts().reads, reader.counts().hash_mismatches) == (119, 2)
    with pytest.raises(DataError, match=r"crc32c is int64 \(120,\), uint32 \(120,\) is expected"):
        changed(places, crc32c=places.crc32c.astype(np.int64))
