import numpy as np
import pytest

from tests.benchmarks.descriptor_scale import measured
from wfm.evaluation.descriptor_scale import DEVIATION, MEAN, standardise
from wfm.evaluation.measure import measure
from wfm.evaluation.metrics.kernel_distance import METRIC
from wfm.simulation.ground_truth import scene


def test_the_constants_are_those_that_the_benchmark_measures():
    mean, deviation = measured()
    assert pytest.approx(mean, rel=0.01, abs=1e-4) == MEAN
    assert pytest.approx(deviation, rel=0.01) == DEVIATION


def test_a_descriptor_does_not_depend_on_the_clips_beside_it():
    # Before: scaled by the true clips of the evaluation.
    clips = np.stack([scene(1000 + seed, 4, size=(32, 32)) for seed in range(3)])
    alone, beside = (measure({"a": these}, these, (METRIC,), batch=3) for these in (clips[:1], clips))
    np.testing.assert_array_equal(alone[1][METRIC.name][0], beside[1][METRIC.name][0])
    one, among = (found[0]["a"].descriptors[METRIC.name] for found in (alone, beside))
    np.testing.assert_array_equal(one[0], among[0])


def test_standardising_goes_by_channel():
    flat = np.repeat(np.array(MEAN) + np.array(DEVIATION), 16)[None]
    np.testing.assert_allclose(standardise(flat), 1.0)
