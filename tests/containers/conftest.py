"""What the checks in containers share. No part of ``make test``: ``make containers`` names their files to pytest."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.containers.podman import Bridge
from tests.faults import stage_runs
from tests.faults.conftest import calm

__all__ = ["bridge", "calm", "moto"]


@pytest.fixture(scope="session")
def bridge() -> Iterator[Bridge]:
    with Bridge() as found:
        yield found


@pytest.fixture(scope="session")
def moto(bridge: Bridge) -> Iterator[Any]:
    """Its server, at this machine's address on the bridge."""
    with stage_runs.s3_server(bridge.host) as server:
        yield server
