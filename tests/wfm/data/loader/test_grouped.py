"""Packs by shape: every sample stands in one group, with its seed and its pack, and nothing of it is changed."""

import pytest
import torch

from tests.wfm.data.loader.samples import clips
from wfm.data.loader import Loader, LoaderConfig, PackedBatch
from wfm.data.loader.grouped import batches_of, grouped
from wfm.data.order import Lane, Order, Packing, Source
from wfm.errors import DataError


def packed(samples: list[dict], bounds: tuple[int, ...]) -> PackedBatch:
    count = len(samples)
    lengths = torch.tensor([next(iter(sample.values()))[0].numel() for sample in samples])
    return PackedBatch(
        tuple(samples), torch.tensor(bounds), lengths, torch.zeros(count, dtype=torch.int64),
        torch.arange(100, 100 + count), torch.zeros(count, dtype=torch.int64), ("a",) * count,
    )  # fmt: skip


def sample(value: float, shape: tuple[int, int, int], **more: torch.Tensor) -> dict:
    return {"latents": torch.full((2, *shape), value), **more}


def text(value: float, length: int) -> dict:
    return {"text": torch.full((length, 3), value), "text_lengths": torch.tensor(length)}


SHAPES = [(3, 2, 2), (1, 2, 2), (3, 2, 2), (1, 4, 2), (1, 2, 2), (3, 2, 2)]


def test_every_sample_stands_in_the_group_of_its_shape():
    found = grouped(packed([sample(float(i), shape) for i, shape in enumerate(SHAPES)], (0, 2, 2, 6)))
    shapes = [tuple(batch["latents"].shape[2:]) for batch in found.batches]
    assert shapes == sorted(set(SHAPES))
    assert (len(found), found.tokens) == (6, 3 * 12 + 2 * 4 + 8)
    for batch in found.batches:
        for latents, seed, pack in zip(batch["latents"], batch["seeds"], batch["packs"], strict=True):
            place = int(latents.flatten()[0])
            assert latents.equal(torch.full((2, *SHAPES[place]), float(place)))
            assert (int(seed), int(pack)) == (100 + place, 0 if place < 2 else 2)


def test_packs_one_by_one_are_those_that_were_grouped():
    parts = list(grouped(packed([sample(float(i), shape) for i, shape in enumerate(SHAPES)], (0, 2, 2, 6))).split())
    seeds = [sorted(int(seed) for batch in part.batches for seed in batch["seeds"]) for part in parts]
    assert seeds == [[100, 101], [102, 103, 104, 105]]
    assert [part.tokens for part in parts] == [16, 12 + 8 + 4 + 12]


def test_runs_of_packs_are_nearly_equal_and_never_empty():
    whole = grouped(packed([sample(float(i), (1, 1, 1 + i % 2)) for i in range(7)], (0, 2, 4, 4, 5, 6, 7)))
    packs = [
        [sorted({int(p) for b in part.batches for p in b["packs"]}) for part in whole.parts(n)] for n in (1, 2, 5, 9)
    ]
    assert packs == [[[0, 1, 3, 4, 5]], [[0, 1], [3, 4, 5]], [[0], [1], [3], [4], [5]], [[0], [1], [3], [4], [5]]]


def test_samples_that_hold_other_tensors_are_another_group_and_text_is_padded():
    samples = [
        sample(0.0, (1, 2, 2), **text(1.0, 4)), sample(1.0, (1, 2, 2)), sample(2.0, (1, 2, 2), **text(2.0, 2)),
    ]  # fmt: skip
    bare, told = grouped(packed(samples, (0, 3))).batches
    assert "text" not in bare
    assert told["text"].shape == (2, 4, 3)
    assert told["text_lengths"].tolist() == [2, 4]
    assert not told["text"][0, 2:].any()


def test_a_batch_of_one_shape_is_a_pack_of_one_group():
    batch = {"latents": torch.zeros(2, 1, 1, 2, 2), "seeds": torch.arange(2)}
    assert batches_of(batch) == (batch,)


def test_samples_that_cannot_stand_together_are_refused():
    with pytest.raises(DataError, match="none of latents, tokens"):
        grouped(packed([{"video": torch.zeros(3, 1, 2, 2)}], (0, 1)))
    odd = [sample(0.0, (1, 2, 2), actions=torch.zeros(1, n)) for n in (1, 2)]
    with pytest.raises(DataError, match="sample 1 of the step, from 'a'"):
        grouped(packed(odd, (0, 2)))


def test_the_loader_hands_out_groups():
    held = clips()
    order = Order([Lane("all", [Source.of("clips", held, 1)])], Packing(40, packs=2, streams=2), 0)
    with (
        Loader({"clips": held}, order, LoaderConfig(workers=2), transform=grouped) as made,
        Loader({"clips": held}, order, LoaderConfig(workers=0)) as plain,
    ):
        for _ in range(4):
            packs, one = made.next(), plain.next()
            assert sorted(one.seeds.tolist()) == sorted(s for batch in packs.batches for s in batch["seeds"].tolist())
            assert packs.tokens == int(one.lengths.sum())
