"""The action spec refuses what it cannot mean."""

import numpy as np
import pytest

from wfm.actions import ActionSpec, constant_rate, is_moving
from wfm.errors import ConfigError, InputError

SPEC = ActionSpec(
    names=("yaw", "x"), units=("deg/s", "m/s"), frame="camera", rate_hz=24.0, mean=(0.0, 1.0), scale=(30.0, 2.0)
)


def test_normalise_there_and_back() -> None:
    actions = np.array([[30.0, 3.0], [-60.0, 1.0]])
    assert np.allclose(SPEC.normalise(actions), [[1.0, 1.0], [-2.0, 0.0]])
    assert np.allclose(SPEC.denormalise(SPEC.normalise(actions)), actions)


def test_wrong_width_names_the_components() -> None:
    with pytest.raises(ConfigError, match="yaw, x"):
        SPEC.normalise(np.zeros((4, 3)))


@pytest.mark.parametrize(
    ("field", "value"), [("names", ("yaw", "y")), ("units", ("rad/s", "m/s")), ("frame", "world"), ("rate_hz", 30.0)]
)
def test_mismatch_is_refused_by_field(field: str, value: object) -> None:
    other = SPEC.model_copy(update={field: value})
    with pytest.raises(InputError, match=f"mismatch in '{field}'"):
        SPEC.require_same(other)


def test_normaliser_may_differ() -> None:
    SPEC.require_same(SPEC.model_copy(update={"scale": (1.0, 1.0)}))


def test_lengths_must_agree() -> None:
    with pytest.raises(ConfigError, match="units has 1 entries, names has 2"):
        ActionSpec.parse({"names": ["a", "b"], "units": ["m"], "mean": [0, 0], "scale": [1, 1]})


def test_null_action_has_no_width() -> None:
    assert ActionSpec.null().width == 0
    assert ActionSpec.null().normalise(np.zeros((5, 0))).shape == (5, 0)


def test_what_lies_far_outside_of_training_is_named() -> None:
    known = SPEC.range_of(SPEC.normalise(np.array([[-60.0, 0.0], [60.0, 1.0]])))
    assert known == {"low": [-60.0, 0.0], "high": [60.0, 1.0]}
    track = np.array([[[0.0, 0.5], [100.0, 1.2]]])
    assert SPEC.far(track, known) == {}
    track[0, 1] = (-500.0, 9.0)
    words = SPEC.far(track, known)
    assert list(words) == ["yaw", "x"]
    assert "action 'yaw' is -500 deg/s in row 1; the model was trained on -60 to 60 deg/s" in words["yaw"]
    about = SPEC.far(track, None)
    assert "trained on about -90 to 90 deg/s" in about["yaw"]
    assert "x" not in about
    with pytest.raises(ConfigError, match="wanted low and high of yaw, x"):
        SPEC.far(track, {"low": [0.0], "high": [1.0]})


CAMERA_SPEC = ActionSpec(
    names=("camera_orbit_rate", "actor_velocity"), units=("deg/s", "m/s"), frame="f", mean=(0.0, 0.0), scale=(30.0, 1.0)
)


def test_only_the_camera_counts_as_motion() -> None:
    actions = np.zeros((5, 2), np.float32)
    actions[:, 1] = 1
    assert not is_moving(actions, CAMERA_SPEC)
    actions[2, 0] = -20
    assert is_moving(actions, CAMERA_SPEC)
    assert is_moving(np.ones((3, 1)), ActionSpec(names=("x",), units=("m",), mean=(0.0,), scale=(1.0,)))


def test_constant_rate_ignores_the_action_after_the_window() -> None:
    actions = np.full((5, 2), 40.0, np.float32)
    actions[-1] = 0
    assert constant_rate(actions, CAMERA_SPEC, "camera_orbit_rate") == 40
    actions[2, 0] = 41
    assert constant_rate(actions, CAMERA_SPEC, "camera_orbit_rate") is None
    assert constant_rate(actions, CAMERA_SPEC, "zoom") is None
