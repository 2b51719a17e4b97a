import numpy as np
import pytest

from wfm.data.motion import FlowEstimator, extrapolate, repeat_last
from wfm.evaluation.metrics.psnr import psnr_per_frame

PAST = 5


def test_repeat_last_is_the_last_given_frame(make):
    past = make(3).truth[:, :PAST]
    held = repeat_last(past, 4)
    assert held.shape == (3, 4, *past.shape[2:])
    assert all((held[:, t] == past[:, -1]).all() for t in range(4))


@pytest.mark.parametrize("step", [-2, 1, 3])
def test_flow_measures_a_known_shift(make, step):
    frame = make(1, sigma=0).truth[0, 0]
    flow = FlowEstimator().between(frame, np.roll(frame, step, axis=1))
    inner = flow[8:-8, 8:-8]
    assert np.median(inner[..., 0]) == pytest.approx(step, abs=0.15)
    assert np.median(inner[..., 1]) == pytest.approx(0, abs=0.15)


def test_constant_motion_is_carried_on(make):
    truth = make(12).truth
    fast = np.array([index % 3 == 2 for index in range(12)])
    flow = extrapolate(truth[:, :PAST], 6)
    assert flow.dtype == np.uint8
    # What is still in the picture after 6 frames at 2 px must be nearer than standing still.
    inner = (slice(None), slice(None), slice(None), slice(14, -14))
    gained = psnr_per_frame(flow[inner], truth[:, PAST : PAST + 6][inner]) - psnr_per_frame(
        repeat_last(truth[:, :PAST], 6)[inner], truth[:, PAST : PAST + 6][inner]
    )
    assert gained[fast].mean() > 8


def test_no_motion_leaves_the_frame_alone(make):
    past = np.repeat(make(1).truth[:, :1], PAST, axis=1)
    assert psnr_per_frame(extrapolate(past, 3), repeat_last(past, 3)).min() > 45


def test_one_given_frame_has_no_flow(make):
    with pytest.raises(ValueError, match="2 past frames"):
        extrapolate(make(1).truth[:, :1], 3)
