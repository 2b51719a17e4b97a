"""Shares of frames that stand still, repeat, or are black."""

import numpy as np
import pytest

from wfm.curation.measure.static import black_share, frozen_share, static_share

SECONDS = np.arange(48) / 24


def still(frames: int = 48) -> np.ndarray:
    picture = np.random.default_rng(0).uniform(0.2, 0.8, (64, 64)).astype(np.float32)
    return np.repeat(picture[None], frames, axis=0)


def test_a_still_picture_is_static_and_frozen() -> None:
    assert static_share(still(), SECONDS) == 1
    assert frozen_share(still()) == 1


def test_coding_noise_does_not_hide_a_still_picture() -> None:
    noisy = still() + np.random.default_rng(1).normal(0, 0.5 / 255, (48, 64, 64)).astype(np.float32)
    assert static_share(noisy, SECONDS) == 1
    assert frozen_share(noisy) == 0


def test_one_small_moving_thing_is_motion() -> None:
    frames = still()
    for t in range(48):
        frames[t, 30:36, t : t + 6] = 1.0
    assert static_share(frames, SECONDS) == 0


def test_slow_motion_shows_across_the_gap() -> None:
    frames = still()
    frames[:, 8:16, 8:16] += np.linspace(0, 0.12, 48, dtype=np.float32)[
        :, None, None
    ]  # 0.0026 a frame, under the limit
    assert static_share(frames, SECONDS, gap_seconds=1 / 24) == 1
    assert static_share(frames, SECONDS, gap_seconds=0.25) == 0


def test_half_still_is_half() -> None:
    frames = still()
    frames[24:] = np.random.default_rng(2).uniform(0, 1, (24, 64, 64))
    assert static_share(frames, SECONDS) == pytest.approx(18 / 42)  # of 42 pairs a quarter second apart
    assert frozen_share(frames) == pytest.approx(23 / 47)


def test_very_short_clips_are_judged_by_what_there_is() -> None:
    assert static_share(still(1), SECONDS[:1]) == 1
    assert static_share(still(3), SECONDS[:3]) == 1
    assert frozen_share(still(1)) == 0


def test_black_needs_every_part_of_the_picture_to_be_dark() -> None:
    assert black_share(np.zeros((10, 64, 64), np.float32)) == 1
    night = np.full((10, 64, 64), 0.02, np.float32)
    night[:, 20:40, 20:40] = 0.6  # a lit window
    assert black_share(night) == 0
    half = np.zeros((10, 64, 64), np.float32)
    half[5:] = 0.5
    assert black_share(half) == 0.5
