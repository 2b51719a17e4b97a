import pytest

from wfm.simulation.config import SimulationConfig


@pytest.fixture(scope="session")
def small() -> SimulationConfig:
    """Six short sessions at 64 pixels: every kind of junk and copy is among them."""
    return SimulationConfig(
        sessions=6,
        views=2,
        shots_per_video=2,
        seconds_per_shot=(1.0, 1.5),
        junk_seconds=(0.5, 0.6),
        size=64,
        fps=12,
    )
