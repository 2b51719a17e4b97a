"""Flow and what constant motion makes of the past: known shifts, still pictures, one answer for any thread count."""

import cv2
import numpy as np
import pytest

from wfm.data.motion import FlowEstimator, extrapolate


def sliding(frames: int, pixels_a_frame: int) -> np.ndarray:
    """uint8 [1, frames, 64, 64, 3]: a smooth picture that slides to the left."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (12, 40, 3), dtype=np.uint8)
    world = cv2.resize(coarse, (320, 96), interpolation=cv2.INTER_CUBIC)[16:80]
    return np.stack([world[:, i * pixels_a_frame : i * pixels_a_frame + 64] for i in range(frames)])[None]


def test_flow_finds_a_known_shift() -> None:
    video = sliding(2, 3)[0]
    flow = FlowEstimator().between(video[0], video[1])[8:-8, 8:-8]
    assert abs(float(np.median(flow[..., 0])) + 3) < 0.15
    assert abs(float(np.median(flow[..., 1]))) < 0.15


def test_constant_motion_is_carried_on() -> None:
    video = sliding(17, 2)
    future = extrapolate(video[:, :9], 8)
    error = np.abs(future.astype(int) - video[:, 9:])[:, :, 8:-8, 8:-26]  # what comes in over the edge cannot be known
    still = np.abs(np.repeat(video[:, 8:9], 8, axis=1).astype(int) - video[:, 9:])[:, :, 8:-8, 8:-26]
    assert error.mean() < 0.15 * still.mean()


def test_a_still_picture_stays() -> None:
    video = np.repeat(sliding(1, 1), 9, axis=1)
    assert np.abs(extrapolate(video, 4).astype(int) - video[:, :4]).max() <= 1


def test_the_same_for_any_number_of_threads() -> None:
    video = sliding(9, 2)
    before = cv2.getNumThreads()
    try:
        answers = []
        for threads in (1, 2, 4):
            cv2.setNumThreads(threads)
            answers.append(extrapolate(video, 6))
    finally:
        cv2.setNumThreads(before)
    assert np.array_equal(answers[0], answers[1])
    assert np.array_equal(answers[0], answers[2])


def test_one_frame_has_no_motion() -> None:
    with pytest.raises(ValueError, match="2 past frames or more, got 1"):
        extrapolate(sliding(1, 1), 3)
