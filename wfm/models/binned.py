"""A loss told apart: by noise level, and by kind of sample (single images, videos). Nothing here waits for a device.

    loss_noise_below_0.25  loss_noise_0.25_to_1  loss_noise_1_to_4  loss_noise_above_4     noise over the data's deviation
    loss_image  loss_video

Each is a mean over the samples that fall there, whatever steps and ranks they were in. The edges are the same for all runs and
both objectives, so that curves can be laid over each other.
"""

from itertools import pairwise

import torch
from torch import Tensor

from wfm.models.loss import Mean

EDGES = (0.25, 1.0, 4.0)
"""Of noise levels, over the deviation of the data."""


def by_level(name: str, each: Tensor, level: Tensor) -> dict[str, Mean]:
    """Of a number `each` `[B]` of samples, or `[B, T]` of their frames: its mean by noise level, `level` of the same shape or
    `[B]`."""
    each = each.detach().double()
    if level.ndim < each.ndim:
        level = level[:, None].expand_as(each)
    # edges as plain numbers: a tensor of them would be a copy to the device, which waits
    place = sum((level >= edge).long() for edge in EDGES)
    return {
        # where, not times: a product would let NaN into every bin
        label: Mean(torch.where(place == number, each, 0.0).sum(), (place == number).double().sum())
        for number, label in enumerate(labels(name))
    }


def labels(name: str) -> list[str]:
    """What `by_level` calls its numbers, from the lowest level to the highest."""
    inner = [f"{low:g}_to_{high:g}" for low, high in pairwise(EDGES)]
    return [f"{name}_noise_{span}" for span in (f"below_{EDGES[0]:g}", *inner, f"above_{EDGES[-1]:g}")]


def by_kind(name: str, each: Tensor, frames: int) -> dict[str, Mean]:
    """Of a number `each` `[B]` of samples of so many frames: its mean over single images, or over videos."""
    return {f"{name}_{'image' if frames == 1 else 'video'}": Mean(each.detach().double().sum(), float(len(each)))}
