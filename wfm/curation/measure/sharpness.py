"""Sharpness, brightness and contrast of a clip, from a few still frames."""

from typing import Any

import numpy as np
from array_api_compat import array_namespace

from wfm.curation.arrays import to_numpy


def sharpness(gray: Any) -> float:
    """Variance of the Laplacian, the median over frames, times 10,000: a blurred picture has little of it.

    gray [T, H, W] float in 0..1. It depends on the size the frames were brought to and on what is shown (a clear sky is
    no blur), so its threshold wants to be low.
    """
    xp = array_namespace(gray)
    if min(gray.shape[1:]) < 3:
        return 0.0
    middle = gray[:, 1:-1, 1:-1]
    laplacian = gray[:, :-2, 1:-1] + gray[:, 2:, 1:-1] + gray[:, 1:-1, :-2] + gray[:, 1:-1, 2:] - 4 * middle
    variance = to_numpy(xp.var(laplacian.reshape((laplacian.shape[0], -1)), axis=1))
    return float(np.median(variance) * 1e4)


def exposure(gray: Any) -> tuple[float, float]:
    """(mean brightness in 0..1, contrast: standard deviation of brightness within a frame), means over frames."""
    xp = array_namespace(gray)
    flat = gray.reshape((gray.shape[0], -1))
    return float(xp.mean(flat)), float(xp.mean(xp.std(flat, axis=1)))
