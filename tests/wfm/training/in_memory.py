"""Samples in memory with what conditions read of their arrays, for tests that make their own."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch

from wfm.conditions.condition import Condition, View
from wfm.data.loader.arrays import ArrayDataset


def with_conditions(
    samples: ArrayDataset, conditions: Iterable[Condition], meanings: Mapping[str, Mapping[str, Any]], fps: float
) -> ArrayDataset:
    """The samples with what each condition reads of those of their arrays that `meanings` names."""
    signals = {name: array.numpy() for name, array in samples.arrays.items()}
    frames = max((signals[name].shape[1] for name in meanings if name in signals), default=0)
    view = View(signals, frames, fps, meanings)
    read = {name: torch.from_numpy(one) for condition in conditions for name, one in condition.read(view).items()}
    return replace(samples, arrays=samples.arrays | read)
