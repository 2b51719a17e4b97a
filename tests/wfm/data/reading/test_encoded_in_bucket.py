"""Encoded records of an artifact in a bucket: read by their ranges with the store's own credentials."""

import json
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tests.wfm.data.reading.ill_server import Illness
from tests.wfm.data.record_rows import SHAPES, TRAIN, committed, latents
from wfm.artifacts import Artifact, Store
from wfm.artifacts.pull import pull
from wfm.data.encoded_samples import require_samples
from wfm.data.lengths import open_lengths
from wfm.data.loader import Loader, LoaderConfig
from wfm.data.order import Lane, Order, Packing, Source, one_shape
from wfm.data.passes import close_all
from wfm.data.reading import ReadingConfig
from wfm.data.record_table import place_of
from wfm.errors import Cancelled, DataError


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


def test_the_index_is_fetched_into_the_cache_and_mapped_there(ill, artifact, tmp_path, monkeypatch, caplog):
    """And is the same without one, as parts of before have none."""
    pull(artifact, tmp_path / "pulled", "all")
    fetched, fetch = [], Artifact.fetch

    def noted(self, path):
        fetched.append(path)
        return fetch(self, path)

    monkeypatch.setattr(Artifact, "fetch", noted)
    table = open_lengths(place_of(artifact), "train")
    assert fetched == ["samples.arrow"] * 2
    for index in (tmp_path / "pulled").rglob("samples.arrow"):
        index.unlink()
    assert table.table().equals(open_lengths(place_of(tmp_path / "pulled"), "train").table())
    assert {*fetched} == {"samples.arrow", "samples.parquet"}, "text, and hashes of records"
    assert "is not used" not in caplog.text


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


def test_threads_of_a_loader_end_at_once_where_its_samples_are_closed_before(ill, artifact):
    """As a training closes them: `Loader.close` alone waits for reads that nobody cuts for a minute (the twin)."""
    for closed_first in (True, False):
        found = require_samples(artifact, "train", ReadingConfig(stall_seconds=60.0))
        order = one_shape(found.ids, 2, seed=0)
        ill.illness = Illness(dead=range(1000))
        with closing(found), Loader({"samples": found}, order, LoaderConfig(workers=2)) as loader:
            with pytest.raises(Cancelled):
                loader.next(stopping=lambda: ill.number > 0)
            if closed_first:
                found.close()
            began = time.monotonic()
            loader.close(1.5)
            took = time.monotonic() - began
        assert (took < 1.5) == closed_first
        assert bool(loader._threads) != closed_first


def loader_of(artifact: Artifact, cache: Path | None = None) -> Loader:
    reading = ReadingConfig(cache_dir=str(cache), cache_bytes=2**20) if cache else ReadingConfig()
    samples = require_samples(artifact, "train", reading)
    packing = Packing(budget=48, packs=4, streams=2, window=2, bins=2, dim=64)
    return Loader(samples, Order([Lane("all", [Source.of("latents", samples)])], packing, 3), LoaderConfig(workers=2))


def handed(loaders: list[Loader]) -> list[list[tuple[int, bytes]]]:
    """Of a step, by rank: the seeds and bytes of the samples."""
    batches = [loader.next() for loader in loaders]
    return [
        [(seed, sample["latents"].numpy().tobytes()) for seed, sample in zip(b.seeds.tolist(), b.samples, strict=True)]
        for b in batches
    ]


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_resume_from_a_bucket_with_an_empty_cache_goes_on_as_from_a_disk(ill, artifact, tmp_path, ranks):
    """Killed after three steps; another machine, whose cache is empty, goes on with another number of ranks."""
    with loader_of(committed(Store.open(tmp_path / "disk"))) as disk:
        whole = [handed([disk])[0] for _ in range(6)]
    with loader_of(artifact, tmp_path / "first") as before:
        assert [handed([before])[0] for _ in range(3)] == whole[:3]
        state = json.loads(json.dumps(before.state()))
        close_all(*before.sources.values())
    asked = ill.number
    after = [loader_of(artifact, tmp_path / f"cache{rank}") for rank in range(ranks)]
    for rank, loader in enumerate(after):
        loader.share_with(rank, ranks)
        loader.restore(state)
    found = [[row for of_rank in handed(after) for row in of_rank] for _ in range(3)]
    assert [sorted(step) for step in found] == [sorted(step) for step in whole[3:]]
    assert ill.number > asked, "the cache was empty: it came from the bucket"
    for loader in after:
        loader.close()
        close_all(*loader.sources.values())
