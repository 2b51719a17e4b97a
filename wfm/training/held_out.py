"""Samples that are watched: few of the val split, read once and kept, the same at every validation."""

from collections.abc import Callable, Collection, Mapping, Sequence
from statistics import fmean

import torch
from torch import Tensor

from wfm.data.passes import batches, chosen
from wfm.data.samples import Samples
from wfm.data.seeds import mix

Batch = dict[str, Tensor]


def held_out(sources: Collection[Samples], count: int) -> list[Batch]:
    """About `count` samples (0: all), of each source its part, by the hash of their ids, with `seeds` that depend on these
    alone: a batch for each shape."""
    found = []
    for samples in sources:
        rows = chosen(samples, -(-count // len(sources)))
        for mine, batch in batches(samples, size=len(rows), rows=rows):
            batch["seeds"] = torch.tensor([mix(0, "validation", samples.ids[row]) for row in mine])
            found.append(batch)
    return found


def mean_over(held: Sequence[Batch], figures: Callable[[Batch], Mapping[str, float]]) -> dict[str, float]:
    """The mean over samples of each figure of their batches; of one that not all have, over those that do."""
    found: dict[str, list[tuple[float, int]]] = {}
    for batch in held:
        for name, value in figures(batch).items():
            found.setdefault(name, []).append((value, len(batch["seeds"])))
    return {name: fmean([v for v, _ in each], [n for _, n in each]) for name, each in found.items()}
