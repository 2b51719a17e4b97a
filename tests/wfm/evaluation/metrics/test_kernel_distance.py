import numpy as np
import pytest

from wfm.evaluation.metrics.kernel_distance import _kernel, kernel_distance


def naive(x: np.ndarray, y: np.ndarray, groups: list[int]) -> float:
    """The U-statistic of Gretton et al. 2012, eq. 5 shape, pair by pair."""
    total, pairs, n = 0.0, 0, len(x)
    for i in range(n):
        for j in range(n):
            if groups[i] != groups[j]:
                pairs += 1
                a, b, c, d = (x[[i]], x[[j]], y[[i]], y[[j]])
                total += float((_kernel(a, b) + _kernel(c, d) - _kernel(a, d) - _kernel(b, c))[0, 0])
    return total / pairs


def test_it_equals_the_definition():
    rng = np.random.default_rng(0)
    x, y = rng.normal(0.3, 1, (9, 4)), rng.normal(0, 1, (9, 4))
    found = kernel_distance(x, y, [f"clip{i}" for i in range(9)])
    assert found is not None
    assert found[0] == pytest.approx(naive(x, y, list(range(9))))


def test_the_same_videos_are_at_zero_and_others_are_not():
    y = np.random.default_rng(0).normal(size=(20, 6))
    groups = [f"s{i % 5}" for i in range(20)]
    assert kernel_distance(y, y, groups) == pytest.approx((0, 0, 0), abs=1e-12)
    far = kernel_distance(y + 2, y, groups)
    assert far is not None
    assert far[1] > 0


def test_it_is_unbiased_when_prediction_and_truth_depend_on_one_past():
    # Same law on both sides, strongly paired and clustered: the mean over repetitions must be zero;
    # leaving i = j in would pull it below.
    rng, found = np.random.default_rng(1), []
    for _ in range(400):
        session = rng.normal(size=(6, 1, 3))
        past = session + 0.5 * rng.normal(size=(6, 3, 3))
        x, y = (past + 0.3 * rng.normal(size=past.shape) for _ in range(2))
        result = kernel_distance(x.reshape(-1, 3), y.reshape(-1, 3), [f"s{i // 3}" for i in range(18)])
        assert result is not None
        found.append(result[0])
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found)) < 4 * error


@pytest.mark.parametrize("sessions", [20, 8])
def test_the_scale_does_not_bias_it(sessions):
    # Independent sets of one law, wide and of low rank as descriptors are. Scaled by the truth's own deviation, as before, the
    # mean lay 3.8 and 3.7 standard errors from 0.
    rng, groups = np.random.default_rng(6), [str(i % sessions) for i in range(40)]
    basis = rng.normal(size=(5, 120)) / 5**0.5

    def drawn() -> np.ndarray:
        return rng.normal(size=(40, 5)) @ basis + 0.3 * rng.normal(size=(40, 120))

    found, biased = [], []
    for _ in range(300):
        x, y = drawn(), drawn()
        found.append(kernel_distance(x, y, groups)[0])
        own = y.std(axis=0)
        biased.append(kernel_distance((x - y.mean(0)) / own, (y - y.mean(0)) / own, groups)[0])
    errors = [np.mean(values) / (np.std(values) / len(values) ** 0.5) for values in (found, biased)]
    assert abs(errors[0]) < 2.5
    assert errors[1] > 3


def test_pairs_of_one_session_are_left_out():
    rng = np.random.default_rng(2)
    x, y = rng.normal(0.3, 1, (9, 4)), rng.normal(0, 1, (9, 4))
    found = kernel_distance(x, y, [f"s{i // 3}" for i in range(9)])
    assert found is not None
    assert found[0] == pytest.approx(naive(x, y, [i // 3 for i in range(9)]))
    assert found[1] < found[0] < found[2]


def test_clips_of_fewer_than_three_sessions_have_no_interval():
    # Before: one of clips that are not independent, [6.0, 37.5] here.
    x = np.random.default_rng(0).normal(1, 1, (12, 4))
    distance, low, high = kernel_distance(x, x - 1, ["a"] * 6 + ["b"] * 6)
    assert distance > 0
    assert (low, high) == (None, None)


def test_too_few_clips_give_no_figure():
    assert kernel_distance(np.zeros((2, 3)), np.zeros((2, 3)), ["a", "b"]) is None
