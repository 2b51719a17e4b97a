"""What does not move and what cannot be seen: static, frozen and black shares of a clip, from small grey frames."""

from typing import Any

import numpy as np
from array_api_compat import array_namespace

from wfm.curation.arrays import block_means, to_numpy

BLOCKS = 16
STATIC_DIFFERENCE = 2.0 / 255
"A block that changes by less, on average, is at rest: re-encoding alone changes it by about a half of this."
FROZEN_DIFFERENCE = 0.25 / 255
"Two frames whose calmest to busiest block all differ by less are one frame shown twice."
BLACK_LEVEL = 0.08
BLACK_PEAK = 0.2


def static_share(gray: Any, seconds: np.ndarray, *, gap_seconds: float = 0.25) -> float:
    """Share of frames that show the same picture as the frame ``gap_seconds`` later: 1 for a still picture.

    gray [T, H, W] float in 0..1. The busiest of 16 x 16 blocks decides, so one small moving object is motion; the gap
    makes slow motion visible.
    """
    if len(seconds) < 2:
        return 1.0
    later = np.searchsorted(seconds, seconds + gap_seconds - 1e-6)
    first = np.flatnonzero(later < len(seconds))
    if len(first) == 0:  # a clip shorter than the gap: its first frame against its last
        first, second = np.array([0]), np.array([len(seconds) - 1])
    else:
        second = later[first]
    return float((_busiest_block(gray, first, second) < STATIC_DIFFERENCE).mean())


def frozen_share(gray: Any) -> float:
    """Share of frames that repeat the one before: dropped frames, or a picture that stands still."""
    frames = gray.shape[0]
    if frames < 2:
        return 0.0
    return float((_busiest_block(gray, np.arange(frames - 1), np.arange(1, frames)) < FROZEN_DIFFERENCE).mean())


def black_share(gray: Any) -> float:
    """Share of frames that are dark all over: mean below 0.08 and 98th percentile below 0.2 of full brightness."""
    flat = to_numpy(gray).reshape(gray.shape[0], -1)
    return float(((flat.mean(axis=1) < BLACK_LEVEL) & (np.quantile(flat, 0.98, axis=1) < BLACK_PEAK)).mean())


def _busiest_block(gray: Any, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """[pairs], mean absolute difference of the block that differs most."""
    xp = array_namespace(gray)
    change = xp.abs(gray[xp.asarray(second)] - gray[xp.asarray(first)])
    blocks = block_means(change, min(BLOCKS, change.shape[1]), min(BLOCKS, change.shape[2]))
    return to_numpy(blocks.reshape((blocks.shape[0], -1)).max(axis=1))
