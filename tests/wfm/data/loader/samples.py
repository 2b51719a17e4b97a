"""Samples that a test can watch, hold up and damage, and what a loader over them hands out, as plain values."""

import threading
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wfm.data.loader import Loader, LoaderConfig, PackedBatch
from wfm.data.order import Batching, BatchOrder, Lane, Order, Packing, Source
from wfm.errors import DataError

Row = tuple[str, int, int, int]
"""Source, row, first frame and seed of what was handed out."""


class Watched:
    """Samples whose latents say their row and frame; `before(row)` runs in each read."""

    def __init__(self, name: str, shapes: Sequence[tuple[int, int, int]], size: int = 1000) -> None:
        self.name, self.ids = name, [f"{name}-{row}" for row in range(len(shapes))]
        self.shapes = np.array(shapes, np.int64)
        self.sizes = np.full(len(shapes), size, np.int64)
        self.identity = sha256(f"{name} {shapes}".encode()).hexdigest()
        self.before: Callable[[int], None] = lambda row: None
        self.damaged: set[int] = set()
        self.begun: list[int] = []
        self.reading = 0
        self._lock = threading.Lock()

    def read(self, row: int) -> dict[str, Tensor]:
        with self._lock:
            self.begun.append(row)
            self.reading += 1
        try:
            self.before(row)
            if row in self.damaged:
                raise DataError(f"{self.ids[row]}: the bytes are others")
            frames, height, width = self.shapes[row].tolist()
            frame = torch.arange(frames, dtype=torch.float32)[:, None, None].expand(frames, height, width)
            return {"latents": torch.stack([torch.full((frames, height, width), float(row)), frame])}
        finally:
            with self._lock:
                self.reading -= 1


def clips(count: int = 40, size: int = 1000) -> Watched:
    """Of four shapes, 2 to 32 tokens."""
    shapes = [(1, 1, 2), (2, 2, 2), (4, 2, 2), (4, 4, 2)]
    return Watched("clips", [shapes[(row * 7 + row // 5) % 4] for row in range(count)], size)


def images(count: int = 30, size: int = 1000) -> Watched:
    """Of two shapes, 2 and 4 tokens."""
    return Watched("images", [(1, 1, 2) if row % 3 else (1, 2, 2) for row in range(count)], size)


def packed(sources: Sequence[Watched], **how: Any) -> Order:
    """Steps of 8 packs; both sources in one lane, and images alone in another."""
    lanes = [Lane("all", [Source.of(each.name, each, rate=2 - nth) for nth, each in enumerate(sources)])]
    if len(sources) > 1:
        lanes.append(Lane("images", [Source.of("images", sources[1])]))
    return Order(
        lanes, Packing(**{"budget": 32, "packs": 8, "streams": 4, "window": 2, "bins": 2, "dim": 64, **how}), 3
    )


def bucketed(sources: Sequence[Watched], samples: int = 5) -> BatchOrder:
    """Batches of 5 samples of one shape: ranks do not divide them, and of 8 three have nothing."""
    return BatchOrder([Lane("all", [Source.of(each.name, each) for each in sources])], Batching(samples=samples), 3)


ORDERS: dict[str, Callable[[Sequence[Watched]], Any]] = {"packed": packed, "bucketed": bucketed}


def planned(order: Any, steps: int) -> list[list[Row]]:
    """What an order says of its first steps, sorted in each."""
    found, state = [], order.start()
    for _ in range(steps):
        step, state = order.next(state)
        found.append(sorted(row for pack in step.packs for row in rows_of(order, step.lane, pack)))
    return found


def rows_of(order: Any, lane: str, pack: Any) -> list[Row]:
    """Of one pack, in its order; `first` in tokens."""
    names = order.sources[lane]
    columns = zip(*(pack.table[index].tolist() for index in (0, 1, 2, 5)), strict=True)
    return [(names[source], row, start, seed) for source, row, start, seed in columns]


class Group:
    """The ranks of a run, each with a loader of its own."""

    def __init__(self, sources: Sequence[Watched], order: Any, ranks: int, workers: int, **how: Any) -> None:
        config = LoaderConfig(**{"workers": workers, "prefetch_bytes": 200_000, **how})
        self.loaders = [Loader({each.name: each for each in sources}, order, config) for _ in range(ranks)]
        for rank, loader in enumerate(self.loaders):
            loader.share_with(rank, ranks)

    def step(self) -> list[Row]:
        """A global step, sorted: what its ranks were handed, those with a share of 0 left out."""
        found: list[Row] = []
        for loader in self.loaders:
            batch = loader.next()
            found += handed(batch) if loader.share else []
        assert abs(sum(loader.share for loader in self.loaders) - 1) < 1e-9
        return sorted(found)

    def state(self) -> dict[str, Any]:
        """Of all, which have the same, once they told each other what they met."""
        news = [piece for loader in self.loaders for piece in loader.replaced.news()]
        for loader in self.loaders:
            for piece in news:
                loader.replaced.learn(piece)
        states = [loader.state() for loader in self.loaders]
        assert all(state == states[0] for state in states)
        return states[0]

    def close(self) -> None:
        for loader in self.loaders:
            loader.close()


def handed(batch: Any) -> list[Row]:
    """What a batch holds, told by the tensors themselves; a bucket's sources are not told, so rows of images are those that
    `images` alone has."""
    if isinstance(batch, PackedBatch):
        rows = [int(sample["latents"][0].flatten()[0]) for sample in batch.samples]
        for sample, length in zip(batch.samples, batch.lengths.tolist(), strict=True):
            assert sample["latents"][0].numel() == length
        return list(zip(batch.sources, rows, batch.starts.tolist(), batch.seeds.tolist(), strict=True))
    rows = batch["latents"][:, 0].flatten(1)[:, 0].int().tolist()
    return [("clips", row, 0, seed) for row, seed in zip(rows, batch["seeds"].tolist(), strict=True)]
