from pathlib import Path

import numpy as np
import pytest

from wfm.errors import DataError, InputError
from wfm.generation.past_clip import centre_crop, read_past
from wfm.generation.write_video import from_uint8, to_uint8, write_mp4


def film(path: Path, count: int, size: tuple[int, int] = (16, 16), fps: float = 24.0) -> np.ndarray:
    """A video whose frame k has the brightness 5 + 6 k everywhere."""
    frames = np.broadcast_to((5 + 6 * np.arange(count, dtype=np.uint8))[:, None, None, None], (count, *size, 3)).copy()
    write_mp4(path, frames, fps)
    return frames


def brightness(frames: np.ndarray) -> list[float]:
    return ((frames.reshape(len(frames), -1).mean(axis=1) - 5) / 6).round().tolist()


def test_the_last_frames_at_the_same_rate(tmp_path, world_of) -> None:
    film(tmp_path / "a.mp4", 20)
    past = read_past(tmp_path / "a.mp4", world_of("diffusion").card)
    assert past.frames.shape == (5, 16, 16, 3)
    assert past.frames.dtype == np.uint8
    assert brightness(past.frames) == [15, 16, 17, 18, 19]
    assert past.choices["resampled"] is False
    assert past.choices["seconds_used"] == pytest.approx([k / 24 for k in range(15, 20)], abs=1e-3)


def test_other_rates_are_resampled_and_said_so(tmp_path, world_of) -> None:
    card = world_of("diffusion").card
    film(tmp_path / "fast.mp4", 30, fps=48.0)
    fast = read_past(tmp_path / "fast.mp4", card)
    assert brightness(fast.frames) == [21, 23, 25, 27, 29]
    assert fast.choices["resampled"] is True
    film(tmp_path / "slow.mp4", 8, fps=12.0)
    assert brightness(read_past(tmp_path / "slow.mp4", card).frames) == [5, 5, 6, 6, 7]


def test_other_shapes_are_cropped_about_the_centre_and_scaled(tmp_path, world_of) -> None:
    frames = np.zeros((6, 32, 64, 3), np.uint8)
    frames[:, :, 16:48] = 200  # what a centre crop keeps
    write_mp4(tmp_path / "wide.mp4", frames, 24.0)
    past = read_past(tmp_path / "wide.mp4", world_of("diffusion").card)
    assert past.frames.shape == (5, 16, 16, 3)
    assert np.abs(past.frames[:, :, 1:-1].astype(int) - 200).max() < 12
    assert past.choices["crop_top_left_height_width"] == [0, 16, 32, 32]


def test_centre_crop() -> None:
    assert centre_crop(100, 50, (64, 64)) == (25, 0, 50, 50)
    assert centre_crop(90, 160, (45, 80)) == (0, 0, 90, 160)


def test_what_cannot_be_a_past_is_refused(tmp_path, world_of) -> None:
    card = world_of("diffusion").card
    film(tmp_path / "short.mp4", 4)
    with pytest.raises(InputError, match="5 frames at 24/s"):
        read_past(tmp_path / "short.mp4", card)
    with pytest.raises(InputError, match="no such file"):
        read_past(tmp_path / "none.mp4", card)
    (tmp_path / "text.mp4").write_text("not a video at all")
    with pytest.raises(DataError):
        read_past(tmp_path / "text.mp4", card)


def test_pixels_there_and_back() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 5, 3), dtype=np.uint8)
    video = from_uint8(pixels)
    assert video.shape == (2, 3, 3, 4, 5)
    assert np.abs(video).max() <= 1
    assert np.array_equal(to_uint8(video), pixels)
    assert np.array_equal(to_uint8(video[0]), pixels[0])
