import pytest
import torch

from wfm.errors import DataError
from wfm.models.finite import require_finite


def test_what_is_not_finite_is_refused_and_placed():
    values = torch.zeros(2, 3)
    assert require_finite(values, "latents") is values
    values[1, 2] = float("inf")
    values[1, 1] = float("nan")
    with pytest.raises(DataError, match=r"latents: 2 of 6 values are not finite, the first at \(1, 1\)"):
        require_finite(values, "latents")
