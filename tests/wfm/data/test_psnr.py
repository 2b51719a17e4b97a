import math

import numpy as np
import pytest
import torch

from wfm.data.psnr import psnr, psnr_value


@pytest.mark.parametrize("peak", [1.0, 2.0, 255.0])
def test_arrays_and_tensors_get_the_known_figure(peak):
    mse = np.array([1.0, 0.1, 1e-6]) * peak**2
    assert psnr(mse, peak=peak) == pytest.approx([0, 10, 60])
    assert psnr(torch.tensor(mse), peak=peak).numpy() == pytest.approx([0, 10, 60])
    assert psnr_value(torch.tensor(mse[1]), peak=peak) == pytest.approx(10)


def test_no_error_reads_the_ceiling():
    assert psnr(np.zeros(2), peak=255.0, ceiling_db=60.0) == pytest.approx(60)
    assert psnr_value(torch.zeros(()), peak=2.0) == pytest.approx(100)
    assert psnr_value(torch.zeros(()), peak=2.0, ceiling_db=math.inf) == math.inf


def test_figures_are_bit_for_bit_those_of_the_formulas_they_replace():
    mse = torch.rand(2000, generator=torch.Generator().manual_seed(0)) ** 4
    assert torch.equal(psnr(mse, peak=2.0), -10 * (mse / 4).clamp(min=1e-10).log10())
    old = [-10 * float(torch.tensor(float(one) / 4).clamp(min=1e-10).log10()) for one in mse]
    assert [psnr_value(one, peak=2.0) for one in mse] == old
    eight = mse.double().numpy() * 255
    assert np.array_equal(
        psnr(eight, peak=255.0, ceiling_db=60.0), 10 * np.log10(255.0**2 / np.maximum(eight, 255.0**2 / 1e6))
    )
