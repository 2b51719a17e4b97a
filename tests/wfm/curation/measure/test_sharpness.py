"""Blur lowers sharpness; brightness and contrast are what their names say."""

import itertools

import numpy as np
import pytest

from wfm.curation.measure.sharpness import exposure, sharpness


def test_blur_lowers_sharpness_step_by_step() -> None:
    frames = np.random.default_rng(0).uniform(size=(4, 64, 64)).astype(np.float32)
    found = []
    for _ in range(4):
        found.append(sharpness(frames))
        frames = (
            (frames + np.roll(frames, 1, 1) + np.roll(frames, 1, 2) + np.roll(frames, (1, 1), (1, 2))) / 4
        ).astype(np.float32)
    assert all(a > 2 * b for a, b in itertools.pairwise(found))


def test_the_median_frame_decides() -> None:
    frames = np.zeros((5, 32, 32), np.float32)
    frames[0] = np.random.default_rng(0).uniform(size=(32, 32))
    assert sharpness(frames) == 0
    assert sharpness(np.zeros((1, 2, 2), np.float32)) == 0


def test_exposure() -> None:
    frames = np.zeros((2, 4, 4), np.float32)
    frames[:, :2] = 1
    assert exposure(frames) == pytest.approx((0.5, 0.5))
    assert exposure(np.full((2, 4, 4), 0.3, np.float32)) == pytest.approx((0.3, 0.0), abs=1e-6)
