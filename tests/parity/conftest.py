"""Our side of a pair as it is written, and with the pass that makes it fast on a CPU."""

from collections.abc import Callable

import pytest
from torch import nn

from wfm.models.fast_cpu import fast_cpu


@pytest.fixture(params=["plain", "fast"])
def way(request: pytest.FixtureRequest) -> Callable[[nn.Module], nn.Module]:
    """What is done to our network before it is compared."""
    return fast_cpu if request.param == "fast" else lambda model: model
