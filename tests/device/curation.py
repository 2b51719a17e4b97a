"""Measurements of curation with cupy in place of numpy: the same functions, the same numbers."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from tests.device.check import require, require_package
from wfm.curation.arrays import array_module, block_means, box_mean, to_numpy, unit
from wfm.curation.measure.motion import block_motion
from wfm.curation.measure.quality import clipped_shares
from wfm.curation.measure.sharpness import exposure, sharpness
from wfm.curation.measure.static import black_share, frozen_share, static_share
from wfm.curation.measure.text_overlay import moving_share, overlay_score

BOUND = 1e-4
"""Over the largest number: float32 sums in another order."""
SECONDS = np.arange(12) / 24

STEPS: dict[str, Callable[[Any, Any], Any]] = {
    "block_means": lambda xp, gray: block_means(gray, 6, 8),
    "box_mean": lambda xp, gray: box_mean(xp, gray[0], 3),
    "sharpness": lambda xp, gray: sharpness(gray),
    "exposure": lambda xp, gray: exposure(gray),
    "clipped": lambda xp, gray: clipped_shares(gray),
    "static": lambda xp, gray: static_share(gray, SECONDS),
    "frozen": lambda xp, gray: frozen_share(gray),
    "black": lambda xp, gray: black_share(gray),
    "text_overlay": lambda xp, gray: overlay_score(gray),
    "moving": lambda xp, gray: moving_share(gray),
    "motion": lambda xp, gray: block_motion(gray, SECONDS).speed,
}


def frames() -> np.ndarray:
    """uint8 `[12, 96, 128]`: a textured picture that moves."""
    base = np.random.default_rng(0).integers(0, 255, (60, 80)).repeat(2, 0).repeat(2, 1)
    return np.stack([base[k : k + 96, 2 * k : 2 * k + 128] for k in range(12)]).astype(np.uint8)


def checks(device: torch.device) -> Iterator[tuple[str, Callable[[], dict[str, float]]]]:
    for name in STEPS:
        yield name, partial(_same, name, device)


def _same(name: str, device: torch.device) -> dict[str, float]:
    if device.type == "cuda":
        require_package("cupy")
    here, there = array_module("cpu"), array_module(device.type)
    mine, theirs = (STEPS[name](xp, unit(xp, frames())) for xp in (there, here))
    flat = [
        np.atleast_1d(to_numpy(x) if not isinstance(x, tuple) else np.array(x)).astype(float) for x in (mine, theirs)
    ]
    scale = float(np.abs(flat[1]).max()) or 1.0
    figure = float(np.abs(flat[0] - flat[1]).max()) / scale
    return {"difference": require(figure, BOUND, f"{name} on {device.type}")}
