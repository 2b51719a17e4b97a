"""Numbers that are none (NaN, infinity) end a piece of work where they arise, not in what it writes."""

import torch
from torch import Tensor

from wfm.errors import DataError


def is_finite(tensor: Tensor) -> bool:
    """Whether no number is NaN or infinite: one pass without a copy, two where a sum of finite ones is beyond the type."""
    if not tensor.is_floating_point() or bool(tensor.sum().isfinite()):
        return True
    return all(bool(part.isfinite().all()) for part in tensor.flatten().split(1 << 24))


def require_finite(values: Tensor, what: str) -> Tensor:
    """The tensor as it is. Raises DataError naming how many of its values are not finite, and where the first one stands."""
    if not is_finite(values):
        bad = (~torch.isfinite(values)).nonzero()
        raise DataError(
            f"{what}: {len(bad)} of {values.numel()} values are not finite, the first at {tuple(bad[0].tolist())} of shape "
            f"{tuple(values.shape)}; nothing is written. The weights are damaged, or a number was too large for "
            f"{values.dtype}"
        )
    return values
