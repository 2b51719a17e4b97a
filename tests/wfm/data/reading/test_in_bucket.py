"""Records of a bucket that is ill: every byte right in the end, each trouble counted, no thread held for ever."""

import contextlib
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.wfm.data.reading.ill_server import Illness, IllServer
from wfm.artifacts import Store
from wfm.data.reading import ReadingConfig, RecordReader
from wfm.data.remote import NotThere
from wfm.errors import Cancelled, DataError, InputError, TryAgain

ROOT = Path(__file__).parents[4]
CALM = ReadingConfig(connections=8, retries=6)
QUICK = CALM.override(["stall_seconds=1"])


def test_every_byte_of_a_service_with_all_of_it(bucket, records):
    ill, store, places = bucket
    ill.illness = Illness(
        latency=0.02,
        errors=0.05,
        seed=3,
        stalls=[3],
        dead=[20],
        trickles=[30],
        truncated=[40, 41],
        flipped=[50],
        reset=[60],
    )
    rows = np.random.default_rng(2).permutation(len(records.members)).tolist()
    with RecordReader(places, QUICK, store) as reader, ThreadPoolExecutor(8) as threads:
        reader.check()
        assert list(threads.map(reader.read, rows)) == [records.members[row] for row in rows]
    counts = reader.counts()
    errors = ill.befell["500"] + ill.befell["503"]
    assert errors >= 2
    assert counts.reads == len(rows)
    assert counts.cut >= 3  # the one that stalls within its body, the one that never answers, the one that trickles
    assert counts.hash_mismatches == 1
    assert counts.retries >= errors + 3 + 2  # aiohttp itself may ask again where a connection that it kept is closed
    assert counts.requests == len(rows) + counts.retries + counts.hash_mismatches


def test_a_trickle_passes_the_clients_own_limit_and_not_ours(bucket, records):
    """A byte each 0.1 s: no read of the socket is silent for long. The twin with a least rate of a byte a second hangs on."""
    ill, store, places = bucket
    ill.illness = Illness(trickles=[0], trickle_seconds=0.1)
    with RecordReader(places, QUICK, store) as reader:
        assert reader.read(0) == records.members[0]
        assert reader.counts().cut >= 1
    ill.illness = Illness(trickles=[0], trickle_seconds=0.1)
    broken = RecordReader(places, QUICK.override(["least_rate=1"]), store)
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(broken.read, 0)
        with pytest.raises(TimeoutError):
            waiting.result(3)
        broken.close()  # and closing wakes it
        with pytest.raises(Cancelled):
            waiting.result(4)
    assert broken.counts().cut == 0


def test_a_service_that_stays_ill_is_given_up_by_number_and_by_time(bucket):
    ill, store, places = bucket
    ill.illness = Illness(failing=range(1000))
    with RecordReader(places, CALM.override(["retries=3"]), store) as reader:
        with pytest.raises(TryAgain, match=r"could not read 3\d\d\d bytes at 0 of s3://.*/train-00000.tar in 4 tries"):
            reader.read(0)
        assert (reader.counts().requests, reader.counts().retries) == (4, 3)
    with RecordReader(places, CALM.override(["retries=1000", "retry_seconds=1"]), store) as reader:
        began = time.monotonic()
        with pytest.raises(TryAgain, match=r"train-00000\.tar"):
            reader.read(0)
        assert time.monotonic() - began < 10
        assert 1 < reader.counts().requests < 10


def test_a_service_that_never_answers(bucket):
    ill, store, places = bucket
    ill.illness = Illness(dead=range(1000))
    with RecordReader(places, QUICK.override(["retries=1", "stall_seconds=0.3"]), store) as reader:
        with pytest.raises(TryAgain, match="in 2 tries"):
            reader.read(0)
        assert reader.counts().cut == 2


def test_pauses_grow_and_are_jittered(bucket, monkeypatch):
    ill, store, places = bucket
    ill.illness = Illness(failing=range(1000))
    with RecordReader(places, CALM.override(["retries=5"]), store) as reader:
        pauses = []
        monkeypatch.setattr(reader._bucket._closed, "wait", lambda seconds: pauses.append(seconds))
        for _ in range(2):
            with pytest.raises(TryAgain):
                reader.read(0)
    first, second = pauses[:5], pauses[5:]
    assert first != second
    for each in (first, second):
        assert all(0.05 * 2**n <= pause <= 0.1 * 2**n for n, pause in enumerate(each))


def test_what_never_passes_is_said_at_once(bucket):
    _, store, places = bucket
    gone = dataclasses.replace(places, shards=[f"{url}x" for url in places.shards])
    with RecordReader(gone, CALM, store) as reader:
        for ask in (reader.check, lambda: reader.read(0)):
            with pytest.raises(NotThere, match=r"train-00000.tarx is not there"):
                ask()
        assert reader.counts().retries == 0
    nowhere = dataclasses.replace(places, shards=[f"s3://no-such-bucket/{n}.tar" for n in range(len(places.shards))])
    with RecordReader(nowhere, CALM, store) as reader:
        for ask in (reader.check, lambda: reader.read(0)):
            with pytest.raises(InputError, match="there is no bucket s3://no-such-bucket"):
                ask()
        assert reader.counts().retries == 0


def test_refused_credentials_are_said_at_once(bucket, monkeypatch):
    _, store, places = bucket
    monkeypatch.setattr(IllServer, "forward", lambda self, body: (403, {}, b"<Error><Code>AccessDenied</Code></Error>"))
    with RecordReader(places, CALM, store) as reader:
        with pytest.raises(InputError, match="refuses these credentials"):
            reader.read(0)
        assert reader.counts().requests == 1


def test_bytes_that_stay_wrong_are_damage(bucket, records):
    ill, store, places = bucket
    ill.illness = Illness(flipped=[0, 1])
    with RecordReader(places, CALM, store) as reader:
        with pytest.raises(DataError, match=r"row 0 of the records: .*read twice, do not have the sha256"):
            reader.read(0)
        assert (reader.counts().hash_mismatches, ill.number) == (2, 2)
        assert reader.read(0) == records.members[0]


def test_a_shorter_object_and_an_offset_behind_it(bucket, records):
    ill, store, _ = bucket
    places = records.places("s3://reading/short")
    for name in records.names:
        ill.put("reading", f"short/{name}", (records.folder / name).read_bytes()[:10_000])
    with RecordReader(places, CALM, store) as reader:
        with pytest.raises(DataError, match=r"row 2 of the records: .*has 10000 bytes.*cut short"):
            reader.check()
        assert reader.read(0) == records.members[0]
        with pytest.raises(DataError, match=r"row 2 of the records: .*train-00000.tar ends at byte 10000"):
            reader.read(2)
        with pytest.raises(DataError, match=r"row 5 of the records: .*train-00000.tar ends before"):
            reader.read(5)
        assert reader.counts().retries == 0


def test_a_gateway_that_drops_the_range_is_named(bucket, monkeypatch):
    _, store, places = bucket
    monkeypatch.setattr(IllServer, "forward", lambda self, body: (200, {}, b"x" * 100_000))
    with RecordReader(places, CALM, store) as reader, pytest.raises(InputError, match="drops the header Range"):
        reader.read(0)


def test_a_connection_that_hangs_holds_up_a_reader_for_a_few_seconds(bucket, records):
    """With no setting at all: 64 MiB that are read ahead last longer. The twin waits for 10 s before it cuts."""
    ill, store, places = bucket
    ill.illness = Illness(stalls=[0])
    began = time.monotonic()
    with RecordReader(places, ReadingConfig(), store) as reader:
        assert reader.read(0) == records.members[0]
        took = time.monotonic() - began
        assert reader.counts().cut == 1
    assert 2 < took < 7
    ill.illness = Illness(stalls=[0])
    patient = RecordReader(places, ReadingConfig(stall_seconds=10), store)
    with ThreadPoolExecutor(1) as thread:
        reading = thread.submit(patient.read, 0)
        time.sleep(took + 0.5)
        assert not reading.done()
        patient.close()
        with pytest.raises(Cancelled):
            reading.result(10)


def test_closing_frees_every_thread(bucket):
    """Those whose connection is silent, those that wait for a connection, those that rest before another try."""
    ill, store, places = bucket
    ill.illness = Illness(dead=range(2), failing=range(2, 1000))
    reader = RecordReader(
        places, ReadingConfig(connections=3, stall_seconds=60, retry_seconds=600, retries=1000), store
    )
    outcomes = []

    def read(row):
        with contextlib.suppress(Cancelled):
            reader.read(row)
            return
        outcomes.append(row)

    threads = [threading.Thread(target=read, args=(row,)) for row in range(8)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    while ill.number < 10 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not outcomes
    reader.close()
    for thread in threads:
        thread.join(10)
    assert sorted(outcomes) == list(range(8))
    with pytest.raises(Cancelled):
        reader.read(0)


def test_no_more_connections_at_a_time_than_allowed(bucket, records):
    ill, store, places = bucket
    ill.illness = Illness(latency=0.05)
    for connections in (2, 6):
        ill.most = 0
        with (
            RecordReader(places, CALM.override([f"connections={connections}"]), store) as reader,
            ThreadPoolExecutor(8) as pool,
        ):
            assert list(pool.map(reader.read, range(24))) == records.members[:24]
        assert ill.most == connections


def test_a_port_where_nobody_listens(bucket, records):
    """Refused connections are asked for again, and that ends."""
    store = Store.open("s3://reading/store", bucket[0].options)
    store.options = {**store.options, "endpoint_url": "http://127.0.0.1:9"}
    config = CALM.override(["retries=2"])
    with RecordReader(records.places("s3://reading/latents"), config, store) as reader:
        with pytest.raises(TryAgain, match="in 3 tries"):
            reader.read(0)
        assert reader.counts().requests == 3


def test_a_child_that_is_forked_off_makes_its_own_connections(bucket, records, tmp_path):
    """See `forked_reader`."""
    _, store, places = bucket
    np.savez(tmp_path / "places.npz", **records.arrays)
    done = subprocess.run(
        [sys.executable, "-m", "tests.wfm.data.reading.forked_reader", str(tmp_path / "places.npz"),
         json.dumps(store.options), *places.shards],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=150,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    members = [records.members[row] for row in (4, 5, 6)]
    whole = [b"".join(name.encode() + each[name] for name in sorted(each)) for each in members]
    assert done.stdout.split() == [hashlib.sha256(data).hexdigest() for data in whole]


def test_several_rows_are_asked_for_side_by_side(bucket, records):
    """16 rows at 0.4 s of latency, by one thread; one of them fails, one is flipped."""
    ill, store, places = bucket
    with RecordReader(places, CALM.override(["connections=16"]), store) as reader:
        reader.read(0)
        ill.illness = Illness(latency=0.4, failing=[2], flipped=[4])
        assert reader.read_many(range(20, 36)) == records.members[20:36]
        assert ill.number == 18
        assert ill.most > 4  # at a time; one after another it is 1
        counts = reader.counts()
        assert (counts.reads, counts.retries, counts.hash_mismatches) == (17, 1, 1)


def test_damage_among_several_rows_frees_the_connections_of_the_others(bucket, records):
    ill, store, places = bucket
    sha256 = places.sha256.copy()
    sha256[1] = 0
    with RecordReader(dataclasses.replace(places, sha256=sha256), CALM.override(["connections=3"]), store) as reader:
        ill.illness = Illness(latency=0.05)
        for _ in range(3):
            with pytest.raises(DataError, match="row 1 of the records"):
                reader.read_many(range(8))
        assert reader.read_many(range(2, 8)) == records.members[2:8]
        assert reader._bucket._free._value == 3


def test_what_comes_over_a_network_is_checked_by_sha256(bucket, records):
    """Its crc32c lies, and nobody asks it: whoever can change bytes on the way can make them fit it."""
    _, store, places = bucket
    places = dataclasses.replace(places, crc32c=np.zeros(len(places), np.uint32))
    with RecordReader(places, CALM, store) as reader:
        assert reader.read(0) == records.members[0]
