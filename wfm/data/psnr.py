"""Peak signal-to-noise ratio from a mean squared error: the one formula, for numpy arrays and for tensors."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    Errors = TypeVar("Errors", np.ndarray, Tensor)

CEILING_DB = 100.0


def psnr(mse: "Errors", *, peak: float, ceiling_db: float = CEILING_DB) -> "Errors":
    """PSNR [dB] of each mean squared error, at most `ceiling_db`: equal pictures would read infinity, and one such would drown
    a mean. `peak` is the range of the values: 255 for 8 bits, 2 for [-1, 1].
    """
    return 10 * _bels(mse, peak, ceiling_db)


def psnr_value(mse: "Tensor", *, peak: float, ceiling_db: float = CEILING_DB) -> float:
    """The same of one error, as a plain number."""
    return 10 * float(_bels(mse, peak, ceiling_db))


def mean_psnr(found: "Sequence[tuple[float, float]]") -> float:
    """The PSNR [dB] of a mean squared error of which others hold shares: (share, its PSNR) of each."""
    error = math.fsum(share * 10 ** (-value / 10) for share, value in found) / math.fsum(share for share, _ in found)
    return -10 * math.log10(error)


def _bels(mse: "Errors", peak: float, ceiling_db: float) -> "Errors":
    floor = peak**2 / 10 ** (ceiling_db / 10)
    if isinstance(mse, np.ndarray):
        return np.log10(peak**2 / np.maximum(mse, floor))
    return -(mse / peak**2).clamp(min=floor / peak**2).log10()
