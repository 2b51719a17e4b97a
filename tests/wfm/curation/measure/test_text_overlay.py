"""Burned-in words are found on moving pictures, and things that merely stay in place are not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.wfm.curation.measure.plain_frames import read_plain_frames
from wfm.curation.measure.frame_sampling import FrameSampling
from wfm.curation.measure.text_overlay import moving_share, overlay_score
from wfm.curation.select.select import SelectConfig

Make = Callable[..., Path]
LIMIT = SelectConfig().maximum_text_score


def stills(path: Path) -> np.ndarray:
    return read_plain_frames(path, FrameSampling(), expected_frames=48).stills.astype(np.float32) / 255


@pytest.mark.parametrize("size", [128, 256])
@pytest.mark.parametrize("text", ["BREAKING NEWS", "subscribe!", "weather"])
@pytest.mark.parametrize("speed", [(2, 0), (0.5, 1.0)])
def test_words_are_found(make_clip: Make, size: int, text: str, speed: tuple[float, float]) -> None:
    assert LIMIT is not None
    assert overlay_score(stills(make_clip(3, size=size, text=text, speed=speed))) > LIMIT


@pytest.mark.parametrize("seed", range(4))
def test_moving_pictures_without_words_score_nothing(make_clip: Make, seed: int) -> None:
    assert overlay_score(stills(make_clip(seed))) == 0


def test_a_straight_border_that_stays_is_no_text(make_clip: Make) -> None:
    def framed(frames: np.ndarray) -> np.ndarray:
        frames = frames.copy()
        frames[:, :12], frames[:, -12:] = 0, 0  # letterbox
        frames[:, :, 60:68] = 255  # a pole
        return frames

    assert LIMIT is not None
    assert overlay_score(stills(make_clip(1, change=framed))) < LIMIT


def test_a_pattern_that_moves_with_the_scene_is_not_overlay(make_clip: Make) -> None:
    """It repeats every 6 pixels and moves 2 a frame: at every third frame it would look fixed."""

    def carried(frames: np.ndarray) -> np.ndarray:
        frames = frames.copy()
        checks = np.kron(np.indices((6, 8)).sum(0) % 2, np.ones((3, 3)))[..., None] * 255
        for t in range(len(frames)):
            frames[t, 40:58, 2 * t : 2 * t + 24] = checks[:, : 128 - 2 * t]
        return frames

    assert overlay_score(stills(make_clip(1, change=carried))) == 0


def test_moving_share_says_when_the_score_can_be_trusted(make_clip: Make) -> None:
    assert moving_share(stills(make_clip(1, speed=(0, 0)))) < 0.05
    assert moving_share(stills(make_clip(1))) > 0.2
    assert moving_share(np.zeros((4, 32, 32), np.float32)) == 0
    assert overlay_score(np.zeros((1, 32, 32), np.float32)) == 0
