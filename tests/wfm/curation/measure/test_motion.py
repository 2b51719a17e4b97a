"""Speed of a panning picture, whatever the size, direction, codec or rate; and rest."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.wfm.curation.measure.plain_frames import PlainFrames, read_plain_frames
from wfm.curation.measure.frame_sampling import FrameSampling
from wfm.curation.measure.motion import BLOCK_DIFFERENCE, CODEC_VECTORS, Motion, block_motion, turned

Make = Callable[..., Path]


def signals(path: Path, frames: int = 48) -> PlainFrames:
    return read_plain_frames(path, FrameSampling(), expected_frames=frames)


def motion(path: Path) -> Motion:
    found = signals(path).motion
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("size", "fps", "speed"),
    [(128, 24, (2, 0)), (256, 24, (4, 0)), (128, 12, (4, 0)), (128, 24, (0, -3)), (128, 24, (0.5, 0))],
)
def test_speed_is_in_longer_sides_a_second_for_any_size_and_rate(
    make_clip: Make, size: int, fps: int, speed: tuple[float, float]
) -> None:
    found = motion(make_clip(1, size=size, speed=speed, fps=fps))
    true = np.hypot(*speed) * fps / size
    assert found.speed == pytest.approx(true, rel=0.1)  # worst seen here: 4 %
    # The window glides over the world, so the picture's content goes the other way.
    assert (found.pan_x, found.pan_y) == pytest.approx([-v * fps / size for v in speed], abs=0.1 * true)
    assert found.source == CODEC_VECTORS


def test_the_distance_of_b_frames_does_not_inflate_the_speed(make_clip: Make) -> None:
    plain = motion(make_clip(1, bf="0"))
    with_b_frames = motion(make_clip(1, bf="5"))
    assert with_b_frames.speed == pytest.approx(plain.speed, rel=0.1)


def test_key_frames_are_not_counted_as_rest(make_clip: Make) -> None:
    often = motion(make_clip(1, g="4", bf="0"))
    assert often.speed == pytest.approx(motion(make_clip(1)).speed, rel=0.1)


def test_a_still_picture_does_not_move(make_clip: Make) -> None:
    found = motion(make_clip(1, speed=(0, 0)))
    assert found.speed < 0.002
    assert found.patch_minimum == 0


def test_patch_minimum_tells_a_moving_camera_from_a_moving_thing(make_clip: Make) -> None:
    def only_a_corner_moves(frames: np.ndarray) -> np.ndarray:
        still = np.repeat(frames[:1], len(frames), axis=0)
        still[:, :48, :48] = frames[:, :48, :48]
        return still

    assert motion(make_clip(1)).patch_minimum > 0.2
    corner = motion(make_clip(1, change=only_a_corner_moves))
    assert corner.speed > 0.01
    assert corner.patch_minimum < 0.01


def test_an_intra_only_clip_falls_back_and_says_so(make_clip: Make) -> None:
    found = signals(make_clip(1, g="1"))
    assert found.motion is None
    gray = found.thumbnails.astype(np.float32) / 255
    fast = block_motion(gray, found.seconds)
    assert fast.source == BLOCK_DIFFERENCE
    rest = block_motion(np.repeat(gray[:1], len(gray), axis=0), found.seconds)
    assert rest.speed == 0
    slow = signals(make_clip(1, g="1", speed=(0.5, 0)))
    slower = block_motion(slow.thumbnails.astype(np.float32) / 255, slow.seconds)
    assert 0 < slower.speed < fast.speed
    assert 0.2 < fast.speed / (2 * 24 / 128) < 2  # the same unit, coarsely


def test_block_motion_of_one_frame_is_rest() -> None:
    assert block_motion(np.ones((1, 64, 64), np.float32), np.zeros(1)).speed == 0


def test_pan_turns_with_the_picture() -> None:
    found = Motion(1.0, 1.0, 0.3, -0.1, CODEC_VECTORS)
    quarter = turned(found, transpose=True, mirror_x=True, mirror_y=False)
    assert (quarter.pan_x, quarter.pan_y) == (0.1, 0.3)
    half = turned(found, transpose=False, mirror_x=True, mirror_y=True)
    assert (half.pan_x, half.pan_y) == (-0.3, 0.1)
