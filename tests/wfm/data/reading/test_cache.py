"""Records of a bucket on a local disk: found again, never wrong, never more than the cap, and never in the way."""

import fcntl
import hashlib
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.wfm.data.reading.adding import BLOCK, entries, fill, on_disk, some
from tests.wfm.data.reading.ill_server import Illness
from wfm.data.reading import ReadingConfig, RecordReader
from wfm.data.reading.cache import RecordCache
from wfm.data.reading.config import Counter

ROOT = Path(__file__).parents[4]


@pytest.fixture
def cached(bucket, tmp_path):
    """A reader with a cache that holds all, and the ill server before its bucket."""
    _, store, places = bucket
    config = ReadingConfig(cache_dir=str(tmp_path / "cache"), cache_bytes=10**7)
    with RecordReader(places, config, store) as reader:
        yield bucket[0], reader, tmp_path / "cache", lambda: RecordReader(places, config, store)


def test_a_record_is_asked_for_once_by_all_readers_of_a_folder(cached, records):
    ill, reader, _, another = cached
    for _ in range(2):
        assert [reader.read(row) for row in range(8)] == records.members[:8]
    assert (ill.number, reader.counts().hits, reader.counts().reads) == (8, 8, 16)
    with another() as second:
        assert second.read(3) == records.members[3]
        assert (second.counts().hits, second.counts().bytes, ill.number) == (1, 0, 8)


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty", "huge", "folder", "link"])
def test_a_damaged_entry_is_noticed_and_replaced(cached, records, damage):
    ill, reader, folder, _ = cached
    reader.read(0)
    (path,) = entries(folder)
    good = path.read_bytes()
    if damage in ("folder", "link"):
        path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "link":
        path.symlink_to("/dev/zero")
    elif damage == "huge":  # without taking any of the disk
        os.truncate(path, 2**42)
    else:
        path.write_bytes({"flipped": b"\1" + good[1:], "truncated": good[:700], "empty": b""}[damage])
    assert reader.read(0) == records.members[0]
    assert ill.number == 2
    if damage == "folder":
        return  # nothing of ours: it stays, and the record is not kept
    assert path.read_bytes() == good
    assert not path.is_symlink()
    assert reader.counts().damaged_entries == (damage != "link")
    assert reader.read(0) == records.members[0]
    assert ill.number == 2


def test_wrong_bytes_never_come_to_lie_in_the_cache(cached, records):
    ill, reader, folder, _ = cached
    ill.illness = Illness(flipped=[0])
    assert reader.read(0) == records.members[0]
    assert reader.counts().hash_mismatches == 1
    for path in entries(folder):
        assert path.parent.name + path.name == hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_was_used_longest_ago_goes(tmp_path):
    cache = RecordCache(tmp_path, 20 * BLOCK, Counter())
    fill(cache, range(20))
    for number in range(20):
        os.utime(cache._path(some(number)[0]), ns=(0, 10**9 * (number + 1)))
    assert cache.get(some(0)[0]) == some(0)[1]  # used now
    fill(cache, [20])
    kept = [number for number in range(21) if cache.get(some(number)[0])]
    assert kept == [0, *range(3, 21)]  # room for a tenth of the cap
    assert on_disk(tmp_path) == 19 * BLOCK


def watched(folder, cap, processes, how):
    """The most bytes that lay in `folder` while processes added to it; see `adding`."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.wfm.data.reading.adding", str(folder), str(cap), str(processes), how],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_the_cap_holds_for_all_processes_together(tmp_path):
    cap = 40 * BLOCK
    assert watched(tmp_path / "ours", cap, 3, "ours") <= cap
    assert len(entries(tmp_path / "ours")) > 20
    assert watched(tmp_path / "twin", cap, 3, "without_lock") > cap


def test_what_the_killed_left_is_found(tmp_path):
    """A count that is too high or garbage, half a file that has no name yet, a cache that was larger before."""
    cache = RecordCache(tmp_path, 20 * BLOCK, Counter())
    fill(cache, range(8))
    left = next(iter(entries(tmp_path))).parent / ".0123.tmp"
    left.write_bytes(b"x" * 9000)
    (tmp_path / "lock").write_bytes((10**12).to_bytes(8, "little"))
    fill(cache, [8])
    assert not left.exists()
    assert len(entries(tmp_path)) == 9
    assert int.from_bytes((tmp_path / "lock").read_bytes(), "little") == 9 * BLOCK
    (tmp_path / "lock").write_bytes(b"???")
    fill(cache, [9])
    assert int.from_bytes((tmp_path / "lock").read_bytes(), "little") == 10 * BLOCK
    RecordCache(tmp_path, 5 * BLOCK, Counter())
    assert on_disk(tmp_path) <= 5 * BLOCK


def test_what_a_link_in_the_folder_leads_to_is_not_deleted(tmp_path):
    others = tmp_path / "others"
    others.mkdir()
    for name in (".profile", "letters"):
        (others / name).write_bytes(b"x" * BLOCK)
    cache = RecordCache(tmp_path / "cache", 4 * BLOCK, Counter())
    (tmp_path / "cache" / "zz").symlink_to(others)
    fill(cache, range(12))
    assert on_disk(tmp_path / "cache") <= 4 * BLOCK
    assert {path.name for path in others.iterdir()} == {".profile", "letters"}


def test_a_record_larger_than_the_cap_is_not_kept(tmp_path):
    cache = RecordCache(tmp_path, 10 * BLOCK, Counter())
    fill(cache, range(3))
    cache.put(*some(50, size=11 * BLOCK))
    assert len(entries(tmp_path)) == 3


def test_a_full_disk_is_said_once_and_reading_goes_on(bucket, records, tmp_path, caplog, monkeypatch):
    _, store, places = bucket
    config = ReadingConfig(cache_dir=str(tmp_path / "cache"), cache_bytes=10**7)
    with RecordReader(places, config, store) as reader, caplog.at_level(logging.WARNING):
        assert reader.read(0) == records.members[0]
        monkeypatch.setattr(os, "write", no_space)
        assert [reader.read(row) for row in range(1, 6)] == records.members[1:6]
        monkeypatch.undo()
        assert reader.read(0) == records.members[0]
    assert reader.counts().hits == 1  # what was kept is still found
    assert len(entries(tmp_path / "cache")) == 1
    said = [line for line in caplog.messages if "records are not kept" in line]
    assert len(said) == 1
    assert "no space left" in said[0]


def no_space(*_):
    raise OSError(28, "No space left on device")


def test_a_folder_that_cannot_be_is_said_and_reading_goes_on(bucket, records, tmp_path, caplog):
    _, store, places = bucket
    (tmp_path / "file").write_text("no folder")
    config = ReadingConfig(cache_dir=str(tmp_path / "file" / "cache"), cache_bytes=10**7)
    with RecordReader(places, config, store) as reader, caplog.at_level(logging.WARNING):
        assert [reader.read(row) for row in range(3)] == records.members[:3]
    assert sum("records are not kept" in line for line in caplog.messages) == 1


def test_a_lock_that_another_holds_is_not_waited_for(tmp_path):
    cache = RecordCache(tmp_path, 10 * BLOCK, Counter())
    with open(tmp_path / "lock", "rb+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        fill(cache, [1])
        assert cache.get(some(1)[0]) is None
    fill(cache, [1])
    assert cache.get(some(1)[0]) == some(1)[1]


def test_local_shards_have_no_cache(records, tmp_path):
    config = ReadingConfig(cache_dir=str(tmp_path / "cache"), cache_bytes=10**7)
    with RecordReader(records.places(), config) as reader:
        reader.read(0)
    assert not (tmp_path / "cache").exists()


def test_the_cache_lies_among_the_caches_unless_a_folder_is_named(bucket, records, tmp_path, monkeypatch):
    _, store, places = bucket
    monkeypatch.setenv("WFM_CACHE", str(tmp_path / "caches"))
    with RecordReader(places, ReadingConfig(cache_bytes=10**7), store) as reader:
        assert reader.read(0) == records.members[0]
    assert len(entries(tmp_path / "caches" / "records")) == 1
    shutil.rmtree(tmp_path / "caches")
    with RecordReader(places, ReadingConfig(), store) as reader:
        reader.read(0)
    assert not (tmp_path / "caches").exists()
