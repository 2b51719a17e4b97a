"""Measurements of curation with cupy in place of numpy: the same functions, the same numbers."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from tests.device.check import require, require_cuda, require_package
from wfm.curation.arrays import array_module, block_means, box_mean, to_numpy, unit
from wfm.curation.measure import quality, sharpness, static

BOUND = 1e-4
"""Over the largest number: float32 sums in another order."""


def frames() -> np.ndarray:
    """uint8 [12, 96, 128]: textured pictures that move."""
    generator = np.random.default_rng(0)
    base = generator.integers(0, 255, (120, 160))
    return np.stack([base[k : k + 96, 2 * k : 2 * k + 128] for k in range(12)]).astype(np.uint8)


STEPS: dict[str, Callable[[Any, Any], Any]] = {
    "block_means": lambda xp, gray: block_means(gray, 6, 8),
    "box_mean": lambda xp, gray: box_mean(xp, gray[0], 3),
