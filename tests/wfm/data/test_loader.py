"""Batches: planned order, transforms driven by seeds only, refusals."""

import numpy as np
import pytest
import torch

from wfm.data.loader import ArrayDataset, Loader, as_frames, as_video, video_batch
from wfm.data.order import one_shape
from wfm.errors import ConfigError, DataError


def dataset(count: int = 10) -> ArrayDataset:
    return ArrayDataset(tuple(f"s{i}" for i in range(count)), {"value": torch.arange(count)})


def test_batches_follow_the_order_and_resume():
    data = dataset()
    order = one_shape(data.sample_ids, 4, 0)
    loader = Loader(data, order)
    wanted = order.next(order.start())[0].batch
    batch = loader.next()
    assert batch["value"].tolist() == wanted.rows.tolist()
    assert batch["seeds"].tolist() == wanted.seeds.tolist()
    assert batch["seeds"].dtype == torch.int64
    saved = loader.state()
    rest = [loader.next()["value"].tolist() for _ in range(5)]
    other = Loader(data, order)
    other.restore(saved)
    assert [other.next()["value"].tolist() for _ in range(5)] == rest


@pytest.mark.parametrize("world", [1, 2, 3, 4, 6])
def test_ranks_get_their_share_and_one_without_any_has_a_stand_in_that_does_not_count(world):
    data = dataset()
    loaders = [Loader(data, one_shape(data.sample_ids, 4, 0)) for _ in range(world + 1)]
    for rank in range(world):
        loaders[rank].share_with(rank, world)
    for _ in range(5):
        whole = loaders[-1].next()["value"].tolist()
        shares = [loader.next()["value"].tolist() for loader in loaders[:-1]]
        assert all(share == whole[rank::world] or share == whole[:1] for rank, share in enumerate(shares))
        assert [loader.share for loader in loaders[:-1]] == [len(whole[rank::world]) / 4 for rank in range(world)]
        assert loaders[0].state() == loaders[-1].state()


def test_video_crops_depend_on_the_seed_alone():
    frames = torch.arange(9, dtype=torch.uint8).view(1, 9, 1, 1, 1).repeat(1, 1, 2, 2, 3)
    frames[:, :, :, 1] += 100  # right half brighter: a mirror image shows
    transform = video_batch(5)
    seen, mirrored = set(), set()
    for seed in range(0, 4096, 51):
        batch = {"frames": frames, "seeds": torch.tensor([seed])}
        video = transform(batch)["video"]
        assert torch.equal(video, transform(batch)["video"])
        assert video.shape == (1, 3, 5, 2, 2)
        crop = as_frames(video)[0, :, 0, :, 0]
        flipped = bool(crop[0, 0] > crop[0, 1])
        mirrored.add(flipped)
        seen.add(int(crop[0, 1 if flipped else 0]))
    assert seen == {0, 1, 2, 3, 4}
    assert mirrored == {True, False}


def test_frames_and_video_are_inverse():
    frames = torch.randint(0, 256, (2, 3, 4, 4, 3), dtype=torch.uint8)
    video = as_video(frames)
    assert video.shape == (2, 3, 3, 4, 4)
    assert torch.equal(as_frames(video), frames)
    assert float(as_video(torch.tensor([[[[[0, 255, 255]]]]], dtype=torch.uint8)).min()) == -1


def test_wrong_datasets_are_refused():
    with pytest.raises(DataError, match="3 rows for 2"):
        ArrayDataset(("a", "b"), {"x": torch.zeros(3)})
    with pytest.raises(DataError, match="unique"):
        ArrayDataset(("a", "a"), {"x": torch.zeros(2)})
    with pytest.raises(ConfigError, match="of 3 samples, the dataset has 4"):
        Loader(dataset(4), one_shape(("a", "b", "c"), 1, 0))


def test_rows_keep_order():
    assert dataset().rows(np.array([3, 1]))["value"].tolist() == [3, 1]
