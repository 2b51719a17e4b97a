"""Camera rates: which components they are, whether they move, whether they stay."""

import numpy as np

from wfm.actions import ActionSpec
from wfm.conditions.camera import constant_rate, is_moving

SPEC = ActionSpec(
    names=("camera_orbit_rate", "actor_velocity"), units=("deg/s", "m/s"), frame="f", mean=(0.0, 0.0), scale=(30.0, 1.0)
)


def test_only_the_camera_counts_as_motion() -> None:
    actions = np.zeros((5, 2), np.float32)
    actions[:, 1] = 1
    assert not is_moving(actions, SPEC)
    actions[2, 0] = -20
    assert is_moving(actions, SPEC)
    assert is_moving(np.ones((3, 1)), ActionSpec(names=("x",), units=("m",), mean=(0.0,), scale=(1.0,)))


def test_constant_rate_ignores_the_action_after_the_window() -> None:
    actions = np.full((5, 2), 40.0, np.float32)
    actions[-1] = 0
    assert constant_rate(actions, SPEC, "camera_orbit_rate") == 40
    actions[2, 0] = 41
    assert constant_rate(actions, SPEC, "camera_orbit_rate") is None
    assert constant_rate(actions, SPEC, "zoom") is None
