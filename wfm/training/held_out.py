"""Samples that are watched: few of the val split, read once and kept, the same at every validation. They are kept in host
memory, and go where the model is while they are looked at."""

from collections.abc import Callable, Collection, Mapping, Sequence
from statistics import fmean

import numpy as np
import torch
from torch import Tensor, nn

from wfm.data.loader.device import on_device
from wfm.data.passes import batches, chosen
from wfm.data.samples import Samples
from wfm.data.seeds import mix
from wfm.training.config import TrainingConfig
from wfm.training.data_config import PhaseConfig
from wfm.training.device import device_of

Batch = dict[str, Tensor]


def held_out(sources: Collection[Samples], count: int, config: TrainingConfig) -> list[Batch]:
    """About `count` samples (0: all), of each source its part, by the hash of their ids, with `seeds` that depend on these
    alone: batches of one shape, none larger than those that are trained on (`config`)."""
    found = []
    for samples in sources:
        rows = chosen(samples, -(-count // len(sources)))
        for mine, batch in batches(samples, size=len(rows), rows=rows):
            batch["seeds"] = torch.tensor([mix(0, "validation", samples.ids[row]) for row in mine])
            size = most_of(config, samples.shapes[mine[0]])
            parts = {name: tensor.split(size) for name, tensor in batch.items()}
            found += [dict(zip(parts, each, strict=True)) for each in zip(*parts.values(), strict=True)]
    return found


def most_of(config: TrainingConfig, shape: np.ndarray) -> int:
    """Samples of a shape (frames, height, width) in a batch of training, of the phase with the largest ones among those that
    take such a shape: as many as its budget of tokens has room for, or `batch_size`."""
    recipe, area = config.data, int(np.prod(shape))
    phases = [phase for phase in recipe.phases if _takes(phase, shape)] or [PhaseConfig()]
    budgets = [(phase.tokens or recipe.tokens, phase.batch_size) for phase in phases]
    return max(1, *(tokens // area if tokens else samples or config.batch_size for tokens, samples in budgets))


def _takes(phase: PhaseConfig, shape: np.ndarray) -> bool:
    frames, height, width = (int(side) for side in shape)
    most = ((phase.max_frames, frames), (phase.max_height, height), (phase.max_width, width))
    return phase.min_frames <= frames and all(side <= limit for limit, side in most if limit)


def mean_over(
    held: Sequence[Batch], model: nn.Module, figures: Callable[[Batch], Mapping[str, float]]
) -> dict[str, float]:
    """The mean over samples of each figure of their batches, which `figures` is given where `model` is; of one that not all
    have, over those that do."""
    device = device_of(model)
    found: dict[str, list[tuple[float, int]]] = {}
    for batch in held:
        for name, value in figures(on_device(batch, device)).items():
            found.setdefault(name, []).append((value, len(batch["seeds"])))
    return {name: fmean([v for v, _ in each], [n for _, n in each]) for name, each in found.items()}
