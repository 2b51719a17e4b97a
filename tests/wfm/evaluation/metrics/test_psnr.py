import numpy as np
import pytest

from wfm.evaluation.metrics.psnr import CEILING_DB, psnr_per_frame


def test_a_known_error_gives_the_known_figure():
    truth = np.full((2, 3, 8, 8, 3), 100, np.uint8)
    video = truth + np.uint8(10)
    assert psnr_per_frame(video, truth) == pytest.approx(np.full((2, 3), 20 * np.log10(255 / 10)))


def test_identical_frames_read_the_ceiling_and_only_they_do():
    truth = np.zeros((1, 2, 8, 8, 3), np.uint8)
    video = truth.copy()
    video[0, 1] = 5
    found = psnr_per_frame(video, truth)
    assert found[0, 0] == CEILING_DB
    assert found[0, 1] < CEILING_DB


def test_each_frame_is_its_own():
    truth = np.zeros((1, 2, 4, 4, 3), np.uint8)
    video = truth.copy()
    video[0, 0] = 51  # a fifth of full scale: 14 dB
    assert psnr_per_frame(video, truth)[0, 0] == pytest.approx(20 * np.log10(5))


@pytest.mark.parametrize("wrong", [np.zeros((1, 2, 4, 4, 3), np.float32), np.zeros((1, 3, 4, 4, 3), np.uint8)])
def test_another_type_or_shape_is_refused(wrong):
    with pytest.raises(ValueError, match="must"):
        psnr_per_frame(wrong, np.zeros((1, 2, 4, 4, 3), np.uint8))
