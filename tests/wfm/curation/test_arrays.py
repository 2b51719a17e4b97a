"""The array helpers against their plain definitions."""

import numpy as np
import pytest

from wfm.curation.arrays import array_module, block_means, box_mean, to_numpy
from wfm.errors import ConfigError, MissingPackage


def test_block_means_average_each_block_and_leave_the_border_out() -> None:
    x = np.arange(2 * 5 * 7, dtype=np.float32).reshape(2, 5, 7)
    got = block_means(x, 2, 3)
    assert got.shape == (2, 2, 3)
    assert got[1, 1, 2] == pytest.approx(x[1, 2:4, 4:6].mean())


def test_box_mean_equals_the_mean_of_each_clipped_window() -> None:
    x = np.random.default_rng(0).normal(size=(9, 6)).astype(np.float32)
    got = box_mean(array_module("cpu"), x, 2)
    for row in range(9):
        for column in range(6):
            window = x[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3]
            assert got[row, column] == pytest.approx(window.mean(), abs=1e-6)
    assert got.dtype == np.float32


def test_another_device_is_refused_with_the_choices() -> None:
    with pytest.raises(ConfigError, match="cpu, cuda"):
        array_module("tpu")


def test_cuda_without_cupy_names_the_extra() -> None:
    try:
        import cupy  # noqa: F401
    except ImportError:
        with pytest.raises(MissingPackage, match=r"wfm\[gpu\]"):
            array_module("cuda")


def test_to_numpy_takes_arrays_of_either_library() -> None:
    class OnDevice:
        def get(self) -> np.ndarray:
            return np.ones(3)

    assert isinstance(to_numpy(OnDevice()), np.ndarray)
    assert to_numpy(np.ones(2)).shape == (2,)
