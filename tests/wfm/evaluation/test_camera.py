import numpy as np
import pytest

from wfm.evaluation.bootstrap import Bootstrap
from wfm.evaluation.camera import camera_report, known_rates, pooled

PAST = 5


def judge(made, videos):
    truth = made.truth[:, PAST:]
    return camera_report(
        {"truth": truth, **videos},
        made.sessions,
        made.actions[..., 0],
        rate_name="camera_orbit_rate",
        rate_unit="deg/s",
        past_frames=PAST,
        gap=2,
        bootstrap=Bootstrap(made.sessions, resamples=100),
    )


def test_the_rate_is_read_from_the_picture(make):
    made = make(24, sigma=0)
    found = judge(made, {})
    assert found.rate_calibration_r2 > 0.95
    assert found.videos["truth"].flow_error_px.mean == 0.0
    assert found.videos["truth"].rate_error.mean < 5.0


def test_standing_still_errs_by_the_motion_it_leaves_out(make):
    made = make(24, sigma=0)
    still = np.repeat(made.truth[:, PAST - 1 : PAST], made.truth.shape[1] - PAST, axis=1)
    found = judge(made, {"still": still})
    speed = np.mean([0, 1, 2])  # px a frame
    assert found.videos["still"].flow_error_px.mean == pytest.approx(speed, rel=0.15)
    assert found.videos["still"].rate_error.mean == pytest.approx(20 * speed, rel=0.25)


def test_the_wrong_direction_is_worse_than_none(make):
    made = make(24, sigma=0)
    backwards = made.truth[:, PAST:][:, ::-1]
    still = np.repeat(made.truth[:, PAST - 1 : PAST], backwards.shape[1], axis=1)
    found = judge(made, {"backwards": backwards, "still": still}).videos
    assert found["backwards"].rate_error.mean > 1.5 * found["still"].rate_error.mean


def test_rates_are_those_between_the_frames():
    actions = np.arange(13, dtype=float)[None]
    # predicted frames are 5..12; pairs 5-7, 7-9, 9-11
    assert known_rates(actions, 5, 2, 3).tolist() == [[5.5, 7.5, 9.5]]


def test_pooling_keeps_direction():
    flow = np.zeros((1, 1, 8, 8, 2))
    flow[..., 0], flow[..., 1] = 3.0, -1.0
    found = pooled(flow)[0, 0]
    assert set(found[0:-1:2]) == {3.0}
    assert set(found[1:-1:2]) == {-1.0}


def test_without_a_known_rate_only_the_flow_is_judged(make):
    made = make(4)
    found = camera_report(
        {"truth": made.truth[:, PAST:]},
        made.sessions,
        None,
        rate_name="camera_orbit_rate",
        rate_unit="deg/s",
        past_frames=PAST,
        gap=2,
        bootstrap=Bootstrap(made.sessions, resamples=50),
    )
    assert found.videos["truth"].rate_error is None
    assert "no known" in found.rate_absent
