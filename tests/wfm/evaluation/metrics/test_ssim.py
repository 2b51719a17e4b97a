import numpy as np
import pytest

from wfm.evaluation.features import frames_to_tensor
from wfm.evaluation.metrics.ssim import ssim_per_frame


@pytest.fixture
def truth():
    return np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32, 3), dtype=np.uint8)


def test_identical_is_one(truth):
    assert ssim_per_frame(truth, truth) == pytest.approx(np.ones((2, 3)), abs=1e-6)


def test_it_is_torchmetrics_own_figure(truth):
    import torch
    from torchmetrics.functional.image import structural_similarity_index_measure

    noisy = np.clip(truth + np.random.default_rng(1).normal(0, 30, truth.shape), 0, 255).astype(np.uint8)
    left, right = (torch.from_numpy(v.reshape(-1, 32, 32, 3)).permute(0, 3, 1, 2).float() / 255 for v in (noisy, truth))
    theirs = structural_similarity_index_measure(left, right, data_range=1.0, reduction="none")
    assert ssim_per_frame(noisy, truth).reshape(-1) == pytest.approx(theirs.numpy(), abs=1e-5)


def test_more_noise_is_less_alike(truth):
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 1, truth.shape)
    little, much = (np.clip(truth + s * noise, 0, 255).astype(np.uint8) for s in (5, 60))
    assert (ssim_per_frame(little, truth) > ssim_per_frame(much, truth)).all()


def test_a_constant_shift_has_the_closed_form():
    # Two flat pictures: only the luminance term is left, (2ab + c) / (a^2 + b^2 + c), c = 0.01^2.
    left, right = np.full((1, 1, 32, 32, 3), 100, np.uint8), np.full((1, 1, 32, 32, 3), 150, np.uint8)
    a, b, c = 100 / 255, 150 / 255, 0.01**2
    assert ssim_per_frame(left, right)[0, 0] == pytest.approx(
        (2 * a * b + c) / (a * a + b * b + c), abs=1e-3
    )  # float32 sums leave 2e-4


def test_a_picture_smaller_than_the_window_is_refused():
    small = np.zeros((1, 1, 8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="11x11"):
        ssim_per_frame(small, small)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, bool])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_pictures_that_are_not_bytes_are_refused(dtype, which):
    """Before: values in [0, 1] were divided by 255 once more, so that noise against its negative had an SSIM of 0.99."""
    picture = np.random.default_rng(0).integers(0, 255, (1, 1, 16, 16, 3)).astype(np.uint8)
    pair = [picture, 255 - picture]
    for index in (0, 1) if which == 2 else (which,):
        pair[index] = (pair[index] / 255).astype(dtype)
    with pytest.raises(ValueError, match="must be uint8"):
        ssim_per_frame(*pair)
    with pytest.raises(ValueError, match="must be uint8"):
        frames_to_tensor(pair[0] if which != 1 else pair[1])


def test_one_frame_alone_is_refused():
    """Before: "not enough values to unpack"."""
    frame = np.zeros((16, 16, 3), np.uint8)
    with pytest.raises(ValueError, match=r"\[N, T, H, W, 3\]"):
        ssim_per_frame(frame, frame)
