import cv2
import numpy as np

from wfm.evaluation.features import GaborPyramid, frames_to_tensor
from wfm.evaluation.metrics.perceptual_distance import perceptual_distance


def distance(left: np.ndarray, right: np.ndarray) -> float:
    net = GaborPyramid()
    return float(perceptual_distance(net(frames_to_tensor(left)), net(frames_to_tensor(right)))[0])


def picture() -> np.ndarray:
    noise = np.random.default_rng(0).uniform(0, 255, (12, 12, 3)).astype(np.float32)
    return np.clip(cv2.resize(noise, (64, 64), interpolation=cv2.INTER_CUBIC), 0, 255).astype(np.uint8)[None]


def test_identical_is_zero_and_it_is_symmetric():
    one, other = picture(), picture()[:, ::-1]
    assert distance(one, one) == 0.0
    assert distance(one, other) == distance(other, one) > 0


def test_more_blur_is_further():
    one = picture()
    steps = [distance(one, cv2.GaussianBlur(one[0], (0, 0), sigma)[None]) for sigma in (0.7, 1.5, 3.0, 6.0)]
    assert steps == sorted(steps)
    assert steps[0] < steps[-1]


def test_it_prefers_a_one_pixel_shift_to_the_blur_that_pixels_prefer():
    one = np.random.default_rng(3).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    shifted = np.roll(one, 1, axis=2)
    blur = cv2.GaussianBlur(one[0], (0, 0), 3.0)[None]

    def squared(video: np.ndarray) -> float:
        return float(np.mean((video.astype(float) - one) ** 2))

    assert squared(blur) < squared(shifted)
    assert distance(one, shifted) < distance(one, blur)
