"""What a step is trained on: samples of one shape, stacked, or packs of samples of their own shape."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from wfm.errors import DataError

Sample = dict[str, Tensor]
Batch = dict[str, Tensor]
"""Tensors `[B, ...]` by name; `seeds` int64 `[B]` holds one hash of (run seed, sample, epoch) each: noise, noise level, crop,
dropout are drawn from it."""


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """The packs that a rank has of a step: samples one after the other, each with its own shape."""

    samples: tuple[Sample, ...]
    "Pack by pack, in the order they stand in."
    bounds: Tensor
    "int64 [packs + 1]: samples bounds[i] to bounds[i + 1] are pack i."
    lengths: Tensor
    "int64 [n]: tokens of each sample, its segment in the pack."
    starts: Tensor
    "int64 [n]: first token of each that is here; not 0 for a later piece of a sample that no pack could hold."
    seeds: Tensor
    "int64 [n]: of the noise, crop and dropout of each."
    epochs: Tensor
    "int64 [n]: of its source, for each."
    sources: tuple[str, ...]
    "Of each sample."


def stack(samples: Sequence[Sample], seeds: Tensor, name_of: Callable[[int], str]) -> Batch:
    """Samples of one shape as a batch. What has its lengths beside it (`text` with `text_lengths`) is padded with zeros to the
    longest. `name_of` says in errors which samples they are, by place.

    Raises DataError where they differ in what they hold or in another shape.
    """
    batch = {}
    held = samples[0].keys()
    for place, sample in enumerate(samples):
        if sample.keys() != held:
            _refuse("what they hold", name_of(0), sorted(held), name_of(place), sorted(sample))
    for name in held:
        tensors = [sample[name] for sample in samples]
        try:
            batch[name] = torch.stack(tensors)
        except RuntimeError:
            if f"{name}_lengths" not in held or any(tensor.shape[1:] != tensors[0].shape[1:] for tensor in tensors):
                place = next(place for place, tensor in enumerate(tensors) if tensor.shape != tensors[0].shape)
                _refuse(
                    f"the shape of {name!r}",
                    name_of(0),
                    list(tensors[0].shape),
                    name_of(place),
                    list(tensors[place].shape),
                )
            batch[name] = pad_sequence(tensors, batch_first=True)
    batch["seeds"] = seeds
    return batch


def _refuse(what: str, one: str, its: list[Any], other: str, their: list[Any]) -> None:
    raise DataError(
        f"samples of one batch differ in {what}: {one} has {its}, {other} {their}; a bucket is of samples of one shape, from "
        "sources that give the same"
    )
