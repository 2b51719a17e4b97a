"""Encoded records of many shapes, read from shards through the loader: their own values, and a damaged one replaced."""

import numpy as np
import pytest

from tests.wfm.data.loader.samples import ORDERS, planned, rows_of
from tests.wfm.data.record_rows import latents, write_records
from wfm.data.encoded_samples import EncodedSamples, require_samples
from wfm.data.loader import Loader, LoaderConfig, PackedBatch
from wfm.data.order import Batching, BatchOrder, Lane, Order, Packing, Source

STEPS = 6


def order_of(samples: EncodedSamples, mode: str) -> Order | BatchOrder:
    lanes = [Lane("all", [Source.of("latents", samples)])]
    if mode == "bucketed":
        return BatchOrder(lanes, Batching(tokens=50), 1)
    return Order(lanes, Packing(budget=64, packs=4, streams=2, window=2, dim=64), 1)


def handed(loader: Loader) -> list[list[tuple[int, bytes]]]:
    """Of each step, seeds and values, sorted."""
    steps = []
    for _ in range(STEPS):
        batch = loader.next()
        if isinstance(batch, PackedBatch):
            values = [sample["latents"] for sample in batch.samples]
            seeds = batch.seeds
        else:
            values, seeds = list(batch["latents"]), batch["seeds"]
            assert batch["fps"].shape == seeds.shape
        steps.append(sorted((seed, each.numpy().tobytes()) for seed, each in zip(seeds.tolist(), values, strict=True)))
    return steps


@pytest.mark.parametrize("mode", ORDERS)
def test_records_come_as_they_were_written_and_a_damaged_one_is_replaced(tmp_path, mode):
    write_records(tmp_path, "0a", range(60))
    samples = require_samples(tmp_path, "train")
    numbers = [int(name[4:-2]) for name in samples.ids]
    shapes = [tuple(shape) for shape in samples.shapes.tolist()]

    def wanted(order: Order | BatchOrder, damaged: int) -> list[list[tuple[int, bytes]]]:
        steps, state = [], order.start()
        for _ in range(STEPS):
            step, state = order.next(state)
            found = []
            for pack in step.packs:
                for place, row in enumerate(rows_of(order, step.lane, pack)):
                    if row[1] == damaged:
                        row = rows_of(order, step.lane, order.replace(step.lane, pack, place, 0))[place]
                    found.append((row[3], latents(numbers[row[1]], shapes[row[1]]).tobytes()))
            steps.append(sorted(found))
        return steps

    order = order_of(samples, mode)
    damaged = planned(order, 1)[0][0][1]
    for workers in (0, 2):
        with Loader(samples, order, LoaderConfig(workers=workers)) as loader:
            assert handed(loader) == wanted(order, -1)
            assert loader.counters()["reader_bytes"] > 0
    _damage(samples, tmp_path, damaged)
    for workers in (0, 2):
        fresh = require_samples(tmp_path, "train")
        with Loader(fresh, order, LoaderConfig(workers=workers)) as loader:
            assert handed(loader) == wanted(order, damaged) != wanted(order, -1)
            assert {source for source, _ in loader.skipped} == {"latents"}


def _damage(samples: EncodedSamples, folder, row: int) -> None:
    """Another byte in the middle of a record."""
    found = samples.table.table().slice(row, 1).to_pylist()[0]
    path = folder / found["shard"]
    data = np.fromfile(path, np.uint8)
    data[found["offset"] + found["bytes"] // 2] ^= 1
    data.tofile(path)
