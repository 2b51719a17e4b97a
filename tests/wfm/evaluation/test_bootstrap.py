import numpy as np
import pytest

from wfm.evaluation.bootstrap import Bootstrap


def test_the_mean_is_the_plain_mean_and_lies_inside():
    values = np.random.default_rng(0).normal(3, 1, 60)
    found = Bootstrap([f"s{i % 12}" for i in range(60)]).mean(values)
    assert found is not None
    assert found.mean == pytest.approx(values.mean())
    assert found.low < found.mean < found.high
    assert (found.windows, found.sessions) == (60, 12)


def test_a_constant_has_no_width():
    found = Bootstrap(["a", "a", "b", "c"]).mean(np.full(4, 2.5))
    assert found is not None
    assert (found.low, found.mean, found.high) == (2.5, 2.5, 2.5)


def test_windows_of_one_session_are_not_independent_witnesses():
    values = np.repeat(np.random.default_rng(1).normal(size=8), 10)
    clustered = Bootstrap([f"s{i // 10}" for i in range(80)]).mean(values)
    single = Bootstrap([f"w{i}" for i in range(80)]).mean(values)
    assert clustered is not None
    assert single is not None
    assert clustered.high - clustered.low > 2 * (single.high - single.low)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng, hits = np.random.default_rng(2), 0
    for trial in range(300):
        sessions = rng.normal(size=24)
        values = (sessions[:, None] + rng.normal(size=(24, 4))).reshape(-1)
        found = Bootstrap([f"s{i // 4}" for i in range(96)], resamples=400, seed=trial).mean(values)
        assert found is not None
        hits += found.low <= 0 <= found.high
    assert 0.88 <= hits / 300 <= 0.98


def test_ratio_is_of_sums_and_refuses_a_base_of_nothing():
    bootstrap = Bootstrap(["a", "b", "c"])
    found = bootstrap.ratio(np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 8.0]))
    assert found is not None
    assert found.mean == pytest.approx(0.5)
    assert bootstrap.ratio(np.ones(3), np.zeros(3)) is None
    assert bootstrap.mean(np.full(3, np.nan)) is None


def test_missing_values_are_left_out_and_counted():
    found = Bootstrap(["a", "b", "c"]).mean(np.array([1.0, np.nan, 3.0]))
    assert found is not None
    assert (found.mean, found.windows) == (2.0, 2)


def test_one_session_falls_back_to_windows_and_says_so():
    found = Bootstrap(["a"] * 30).mean(np.random.default_rng(0).normal(size=30))
    assert found is not None
    assert found.sessions == 1
    assert found.high > found.low


def test_curve_agrees_with_the_mean_of_each_frame_and_seeds_repeat():
    values = np.random.default_rng(0).normal(size=(20, 5))
    sessions = [f"s{i % 5}" for i in range(20)]
    mean, low, high = Bootstrap(sessions, seed=3).curve(values)
    one = Bootstrap(sessions, seed=3).mean(values[:, 2])
    assert one is not None
    assert (mean[2], low[2], high[2]) == pytest.approx((one.mean, one.low, one.high))
