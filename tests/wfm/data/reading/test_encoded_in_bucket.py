"""Encoded records of an artifact in a bucket: read by their ranges with the store's own credentials."""

import numpy as np
import pytest

from tests.wfm.data.reading.ill_server import Illness
from tests.wfm.data.record_rows import SHAPES, TRAIN, committed, latents
from wfm.artifacts import Store
from wfm.data.encoded_samples import require_samples
from wfm.data.reading import ReadingConfig
from wfm.errors import DataError


@pytest.fixture
def artifact(ill):
    ill.illness = Illness()
    ill.put("encoded", "made", b"")
    store = Store.open("s3://encoded/store", ill.options)
    return store.artifact("a" * 64) if store.has("a" * 64) else committed(store)


def test_samples_come_by_range(ill, artifact, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    found = require_samples(artifact, "train")
    before = ill.number
    read = found.read_many(range(len(found)))
    assert ill.number - before == len(found), "one request a sample"
    for sample, number in zip(read, TRAIN, strict=True):
        assert np.array_equal(sample["latents"], latents(number, SHAPES[number % 4]))
    assert found.counters["bytes"] == int(found.table.column("bytes").to_numpy().sum())
    assert found.counters["requests"] == len(found)
    found.close()


def test_trouble_on_the_way_is_borne_and_damage_is_named(ill, artifact):
    found = require_samples(artifact, "train")
    ill.illness = Illness(flipped=range(100))
    with pytest.raises(DataError, match=r"sample clip00:0: .* do not have the sha256"):
        found.read(0)
    found.close()
    ill.illness = Illness(failing=[0, 2])
    found = require_samples(artifact, "val", ReadingConfig(retry_seconds=20.0))
    assert np.array_equal(found.read(0)["latents"], latents(3, SHAPES[3]))
    found.close()
