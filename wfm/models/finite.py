"""Numbers that are none (NaN, infinity) end a piece of work where they arise, not in what it writes."""

import torch
from torch import Tensor

from wfm.errors import DataError


def require_finite(values: Tensor, what: str) -> Tensor:
    """The tensor as it is. Raises DataError naming how many of its values are not finite, and where the first one stands."""
    finite = torch.isfinite(values)
    if not finite.all():
        bad = (~finite).nonzero()
        raise DataError(
            f"{what}: {len(bad)} of {values.numel()} values are not finite, the first at {tuple(bad[0].tolist())} of shape "
            f"{tuple(values.shape)}; nothing is written. The weights are damaged, or a number was too large for "
            f"{values.dtype}"
        )
    return values
