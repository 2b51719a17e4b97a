import numpy as np
import pytest

from wfm.evaluation.kernel_distance import _kernel, kernel_distance, standardise


def naive(x: np.ndarray, y: np.ndarray, groups: list[int]) -> float:
    """The U-statistic of Gretton et al. 2012, eq. 5 shape, pair by pair."""
    x, y = standardise(x, y), standardise(y, y)
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


def test_pairs_of_one_session_are_left_out():
    rng = np.random.default_rng(2)
    x, y = rng.normal(0.3, 1, (9, 4)), rng.normal(0, 1, (9, 4))
    found = kernel_distance(x, y, [f"s{i // 3}" for i in range(9)])
    assert found is not None
    assert found[0] == pytest.approx(naive(x, y, [i // 3 for i in range(9)]))
    assert found[1] < found[0] < found[2]


def test_too_few_clips_give_no_figure():
    assert kernel_distance(np.zeros((2, 3)), np.zeros((2, 3)), ["a", "b"]) is None
