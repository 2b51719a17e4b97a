"""Peak signal-to-noise ratio, frame by frame, on 8-bit RGB."""

import numpy as np

from wfm.data.psnr import psnr
from wfm.evaluation.metric import FrameMetric

CEILING_DB = 60.0
"""Identical frames would read infinity, and one such frame would drown a mean: a frame reads at most this.
8-bit rounding alone costs 58.9 dB, so nothing below it is hidden."""


def psnr_per_frame(video: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """PSNR in dB of each frame, over all its pixels and channels.

    Args: `video`, `truth` uint8 [N, T, H, W, 3]. Returns float64 [N, T], at most `CEILING_DB`.
    The figure of a clip is the mean of its frames (not the PSNR of the pooled error), so that it is the mean of the
    horizon curve.
    """
    if video.shape != truth.shape:
        raise ValueError(f"video {video.shape} and truth {truth.shape} must have one shape [N, T, H, W, 3]")
    if video.dtype != np.uint8 or truth.dtype != np.uint8:
        raise ValueError(f"video ({video.dtype}) and truth ({truth.dtype}) must be uint8")
    difference = video.astype(np.float32) - truth.astype(np.float32)
    mse = np.asarray(np.mean(np.square(difference), axis=(2, 3, 4), dtype=np.float64))  # [N, T]
    return psnr(mse, peak=255.0, ceiling_db=CEILING_DB)


METRIC = FrameMetric(
    name="psnr_db",
    title="PSNR",
    unit="dB",
    better="higher",
    definition="mean over frames of the PSNR of 8-bit RGB, each at most 60 dB",
    of=lambda clips, truth: psnr_per_frame(clips.video, truth.video),
    gain_name="psnr_gain_db",
    digits=2,
    place=10,
    terminal=True,
    charts=("fixed_rate", "static"),
    chart_note="Bands: 95 % intervals.",
    limit="PSNR favours a blurred mean over a sharp guess: read it beside the perceptual distance.",
)
