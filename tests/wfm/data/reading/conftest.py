"""Records in shards, and a bucket behind a proxy that can be ill."""

import dataclasses
import hashlib
import itertools
from pathlib import Path

import numpy as np
import pytest

from tests.wfm.data.reading.ill_server import Illness, ill_server
from wfm.artifacts import Store
from wfm.data.reading import RecordPlaces
from wfm.data.shards import ShardWriter, read_index


@dataclasses.dataclass
class Records:
    """Samples that were written into shards of a folder, and where each lies."""

    folder: Path
    names: list[str]
    members: list[dict[str, bytes]]
    arrays: dict[str, np.ndarray]

    def places(self, root=None):
        return RecordPlaces([f"{root or self.folder}/{name}" for name in self.names], **self.arrays)


def write_records(folder, count, size=2000, maximum_bytes=100_000):
    rng = np.random.default_rng(7)
    members = [{"latents.npy": rng.bytes(size + 37 * (row % 5)), "json": b'{"row": %d}' % row} for row in range(count)]
    with ShardWriter(folder, "train", maximum_bytes=maximum_bytes) as writer:
        for row, each in enumerate(members):
            writer.write(f"s{row:05d}", each)
    return Records(folder, [entry.path.name for entry in writer.shards], members, places_in(writer.shards))


def places_in(shards):
    rows = []
    for number, entry in enumerate(shards):
        data = entry.path.read_bytes()
        for start, end in itertools.pairwise(read_index(entry.path)):
            rows.append((number, start, end - start, hashlib.sha256(data[start:end]).digest()))
    shard, offset, size, digests = zip(*rows, strict=True)
    return {
        "shard": np.array(shard, np.int32),
        "offset": np.array(offset, np.int64),
        "size": np.array(size, np.int64),
        "sha256": np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32),
    }


@pytest.fixture(scope="session")
def records(tmp_path_factory):
    return write_records(tmp_path_factory.mktemp("records"), 120)


@pytest.fixture(scope="session")
def ill():
    with ill_server() as server:
        yield server


@pytest.fixture(scope="session")
def filled(ill, records):
    """(a store behind the ill server, the folder in its bucket where `records` lie)."""
    folder = "s3://reading/latents"
    ill.upload("reading", records.folder, "latents/")
    return Store.open("s3://reading/store", ill.options), folder


@pytest.fixture
def bucket(ill, records, filled):
    """(the ill server, well for now, a store behind it, places of `records` in a bucket of it)."""
    ill.illness = Illness()
    return ill, filled[0], records.places(filled[1])
