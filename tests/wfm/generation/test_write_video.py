import numpy as np
import pytest

from wfm.errors import ConfigError, DataError
from wfm.generation.write_video import to_uint8, write_mp4


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_pixels_are_not_made_of_what_is_no_number(wrong):
    # Before: NaN became a black pixel (with a RuntimeWarning), infinity a white one.
    video = np.zeros((1, 3, 2, 4, 4), np.float32)
    video[0, 1, 1, 2, 3] = wrong
    with pytest.raises(DataError, match="1 values that are not finite"):
        to_uint8(video)


@pytest.mark.parametrize("fps", [0.0, -24.0, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused(tmp_path, fps):
    # Before: 0 was written; ValueError, OverflowError or an error of the codec library for the others.
    with pytest.raises(ConfigError, match="fps is"):
        write_mp4(tmp_path / "a.mp4", np.zeros((2, 16, 16, 3), np.uint8), fps)
    assert list(tmp_path.iterdir()) == []


def test_a_video_without_frames_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="wanted uint8"):
        write_mp4(tmp_path / "a.mp4", np.zeros((0, 16, 16, 3), np.uint8), 24.0)
    assert list(tmp_path.iterdir()) == []
