import numpy as np
import pytest

from wfm.simulation.actions import ACTION_NAMES, ACTOR_REACH, ELEVATION_RANGE, Commands, action_spec, draw_commands
from wfm.simulation.config import SimulationConfig

CONFIG = SimulationConfig()
DRAWN = [draw_commands(np.random.default_rng([5, i]), CONFIG, 100, (0.2, -0.3), pick=(i + 0.5) / 90) for i in range(90)]


def test_state_follows_the_action_exactly() -> None:
    for drawn in DRAWN:
        steps = drawn.actions[:-1] / CONFIG.fps
        np.testing.assert_allclose(np.diff(drawn.azimuth), steps[:, 0], atol=1e-9)
        np.testing.assert_allclose(np.diff(drawn.elevation), steps[:, 1], atol=1e-9)
        np.testing.assert_allclose(np.diff(drawn.actor, axis=0), steps[:, 2:], atol=1e-9)
        np.testing.assert_allclose(drawn.actor[0], (0.2, -0.3))


def test_cameras_come_in_their_shares_and_keep_their_promises() -> None:
    kinds = [drawn.camera for drawn in DRAWN]
    assert kinds.count("static") / 90 == pytest.approx(CONFIG.static_camera_share, abs=0.02)
    assert kinds.count("constant") / 90 == pytest.approx(CONFIG.constant_rate_share, abs=0.02)
    low, high = CONFIG.orbit_rate_range
    for drawn in DRAWN:
        rates = drawn.actions[:, 0]
        moving = np.abs(rates[rates != 0])
        if drawn.camera == "static":
            assert not drawn.actions[:, :2].any()
        elif drawn.camera == "constant":
            assert len(set(rates)) == 1
            assert low <= moving[0] <= high
        else:
            assert len(set(rates)) >= 2
            assert not len(moving) or (low <= moving.min() and moving.max() <= high)


def test_both_signs_and_reversals_occur() -> None:
    steady = [drawn.actions[0, 0] for drawn in DRAWN if drawn.camera == "constant"]
    assert min(steady) < 0 < max(steady)
    assert any(drawn.actions[:, 0].min() < 0 < drawn.actions[:, 0].max() for drawn in DRAWN)


def test_the_camera_and_the_actor_stay_in_range() -> None:
    low, high = ELEVATION_RANGE
    for drawn in DRAWN:
        assert low - 1e-6 <= drawn.elevation.min()
        assert drawn.elevation.max() <= high + 1e-6
        assert np.hypot(*drawn.actor.T).max() <= ACTOR_REACH + 1e-6
        speeds = np.hypot(*drawn.actions[:, 2:].T)
        assert speeds.max() <= CONFIG.actor_speed_range[1] + 1e-9


def test_the_actor_is_driven_most_of_the_time() -> None:
    driven = np.mean([np.hypot(*drawn.actions[:, 2:].T) > 0.4 for drawn in DRAWN])
    assert driven > 0.6


def test_the_spec_describes_the_columns() -> None:
    spec = action_spec(CONFIG)
    assert spec.names == ACTION_NAMES
    assert spec.rate_hz == CONFIG.fps
    drawn: Commands = DRAWN[0]
    normal = spec.normalise(drawn.actions)
    np.testing.assert_allclose(spec.denormalise(normal), drawn.actions, atol=1e-4)
