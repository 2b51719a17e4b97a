"""Perceptual distance on the Gabor pyramid: the shape of LPIPS (Zhang et al. 2018, eq. 1) without its trained net or
weights."""

from typing import TYPE_CHECKING

import numpy as np

from wfm.evaluation.metric import Clips, FrameMetric

if TYPE_CHECKING:
    import torch

CONTRAST_FLOOR = 0.05
"""Energy below which a place counts as plain: it keeps noise in flat walls from being blown up to unit length."""


def perceptual_distance(left: "list[torch.Tensor]", right: "list[torch.Tensor]") -> "torch.Tensor":
    """Distance of each pair of frames [B], 0 for identical ones, from the maps of `features.GaborPyramid`.

    At each place of each energy map both vectors are divided by their length (plus a floor), subtracted and squared;
    the mean over places is summed over scales, and the squared difference of the blurred colour is added.
    """
    total = left[0].new_zeros(left[0].shape[0])
    for one, other in zip(left[:-1], right[:-1], strict=True):
        # |a / la - b / lb|^2, multiplied out: three sums over channels and no map in between
        aa, bb, ab = ((x * y).sum(1) for x, y in ((one, one), (other, other), (one, other)))  # [B, h, w]
        la, lb = aa.sqrt() + CONTRAST_FLOOR, bb.sqrt() + CONTRAST_FLOOR
        total += (aa / (la * la) + bb / (lb * lb) - 2 * (ab / (la * lb))).clamp_min(0).mean((1, 2))
    return total + (left[-1] - right[-1]).square().sum(1).mean((1, 2))


def _per_frame(clips: Clips, truth: Clips) -> np.ndarray:
    """[N, T]."""
    return perceptual_distance(clips.maps, truth.maps).double().numpy().reshape(clips.video.shape[:2])


METRIC = FrameMetric(
    name="perceptual_distance",
    title="perceptual distance",
    better="lower",
    definition="mean over frames of the squared difference of unit-length Gabor energies; 0 = alike",
    of=_per_frame,
    place=30,
    charts=("fixed_rate",),
    chart_note="On a fixed Gabor pyramid; not LPIPS.",
    axis="0 = alike",
    limit="Perceptual and kernel distance rest on a fixed Gabor pyramid without trained weights. They rank videos here; "
    "they cannot be compared with LPIPS, FVD or figures from elsewhere.",
)
