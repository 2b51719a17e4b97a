"""Batches for training: arrays in memory, read in an order of one source (`wfm.data.order`).

    dataset = ArrayDataset(sample_ids, {"latents": ..., "actions": ...})
    loader = Loader(dataset, one_shape(dataset.sample_ids, batch_size=16, seed=0))
    batch = loader.next()    # {"latents": [B, ...], "actions": [B, T, A], "seeds": int64 [B]}; the state moves on

`seeds` holds one hash of (run seed, sample id, epoch) per sample: noise, noise level, crop and dropout are drawn
from it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wfm.data.captions import CaptionTable
from wfm.data.order import BatchOrder
from wfm.errors import ConfigError, DataError

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class ArrayDataset:
    """Samples as rows of arrays, all `[N, ...]`, with one id each, and text embeddings where captions were encoded."""

    sample_ids: tuple[str, ...]
    arrays: dict[str, Tensor]
    captions: CaptionTable | None = None
    "Batches then hold `text` `[B, L, D]` and `text_lengths` `[B]` too."

    def __post_init__(self) -> None:
        for name, array in self.arrays.items():
            if array.shape[0] != len(self.sample_ids):
                raise DataError(f"array {name!r} has {array.shape[0]} rows for {len(self.sample_ids)} samples")
        if self.captions is not None and len(self.captions.of_sample) != len(self.sample_ids):
            raise DataError(f"{len(self.captions.of_sample)} captions for {len(self.sample_ids)} samples")
        if len(set(self.sample_ids)) != len(self.sample_ids):
            raise DataError("sample ids are not unique")

    def __len__(self) -> int:
        return len(self.sample_ids)

    @property
    def ids(self) -> tuple[str, ...]:
        """Of the samples."""
        return self.sample_ids

    @property
    def shapes(self) -> np.ndarray:
        """int64 [N, 3]: frames, height and width of the latents or tokens, which all have one shape."""
        held = next((self.arrays[name] for name in ("latents", "tokens") if name in self.arrays), None)
        shape = (1, 1, 1) if held is None else held.shape[-3:]
        return np.tile(np.array(shape, np.int64), (len(self), 1))

    def read(self, row: int) -> Batch:
        """The row of every array, and its text."""
        found = {name: array[row] for name, array in self.arrays.items()}
        return found if self.captions is None else {**found, **self.captions.row(row)}

    def rows(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """The given rows of every array, and their text padded to the longest."""
        index = torch.as_tensor(np.asarray(indices))
        batch = {name: array[index] for name, array in self.arrays.items()}
        return batch if self.captions is None else {**batch, **self.captions.rows(index)}


class Loader:
    """Endless batches in planned order, whole or a rank's share of each; `state()` and `restore()` make it resumable, with any
    number of ranks.

    `transform(batch) -> batch` runs on each batch (decode, crop, normalise); it may use `batch["seeds"]` and nothing
    else random.
    """

    def __init__(
        self,
        dataset: ArrayDataset,
        order: BatchOrder,
        *,
        transform: Callable[[Batch], Batch] | None = None,
    ) -> None:
        if not len(dataset):
            raise ConfigError("the dataset is empty: there is nothing to train on")
        samples = sum(bucket.samples for bucket in order.buckets(0))
        if samples != len(dataset):
            raise ConfigError(f"the order is of {samples} samples, the dataset has {len(dataset)}")
        self.dataset, self.order, self.transform = dataset, order, transform
        self.share = 1.0
        "Of the global batch, the part that the last batch was."
        self._rank, self._world = 0, 1
        self._state = order.start()

    def share_with(self, rank: int, world: int) -> None:
        """From here on batches are what `rank` of `world` has of each global batch. A rank that has nothing of it is given its
        first sample, with a `share` of 0: it takes part in all that ranks do together, and counts for nothing."""
        self._rank, self._world = rank, world

    def next(self) -> Batch:
        """The next batch of this rank."""
        step, self._state = self.order.next(self._state)
        (mine,) = step.of_rank(self._rank, self._world)
        self.share = len(mine.rows) / len(step.batch.rows)
        if not self.share:
            (mine,) = step.of_rank(0, len(step.batch.rows))
        batch = self.dataset.rows(mine.rows)
        batch["seeds"] = torch.from_numpy(np.ascontiguousarray(mine.seeds))
        return batch if self.transform is None else self.transform(batch)

    def state(self) -> dict[str, Any]:
        """Where the order stands, as JSON values."""
        return self.order.save(self._state)

    def restore(self, values: dict[str, Any]) -> None:
        """Continue from a saved `state`."""
        self._state = self.order.restore(values)


def video_batch(num_frames: int) -> Callable[[Batch], Batch]:
    """A transform for uint8 `frames` `[B, T, H, W, 3]`: a crop of `num_frames` at a place given by the seed,
    mirrored for half of the seeds, as float `video` `[B, 3, num_frames, H, W]` in [-1, 1]."""

    def transform(batch: Batch) -> Batch:
        videos = []
        for frames, seed in zip(batch["frames"], batch["seeds"].tolist(), strict=True):
            start = (seed >> 8) % (frames.shape[0] - num_frames + 1)
            crop = frames[start : start + num_frames]
            videos.append(crop.flip(2) if seed & 1 else crop)
        return {"video": as_video(torch.stack(videos)), "seeds": batch["seeds"]}

    return transform


def as_video(frames: Tensor) -> Tensor:
    """uint8 `[B, T, H, W, 3]` -> float `[B, 3, T, H, W]` in [-1, 1]."""
    return frames.permute(0, 4, 1, 2, 3).to(torch.float32) / 127.5 - 1.0


def as_frames(video: Tensor) -> Tensor:
    """The inverse of `as_video`, clamped and rounded: uint8 `[B, T, H, W, 3]`."""
    return ((video.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 4, 1)
