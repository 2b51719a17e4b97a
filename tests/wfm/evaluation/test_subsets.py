import numpy as np
import pytest

from wfm.actions import ActionSpec
from wfm.evaluation.config import SubsetConfig
from wfm.evaluation.subsets import subsets

PAST, FRAMES = 5, 13
SPEC = ActionSpec(
    names=("camera_orbit_rate", "push"), units=("deg/s", "m/s"), mean=(0.0, 0.0), scale=(30.0, 1.0), rate_hz=24.0
)


def masks(actions: np.ndarray, spec: ActionSpec = SPEC, **changes: float) -> dict[str, list[bool]]:
    moving = np.ones(len(actions), dtype=bool)
    parts = subsets(moving, actions, spec, PAST, SubsetConfig(**changes))
    return {part.name: part.mask.tolist() for part in parts}


def constant(*rates: float) -> np.ndarray:
    actions = np.zeros((len(rates), FRAMES, 2), dtype=np.float32)
    actions[..., 0] = np.array(rates)[:, None]
    return actions


def test_fixed_rate_is_20_to_60_either_way():
    assert masks(constant(0, 19, 20, -45, 60, 61))["fixed_rate"] == [False, False, True, True, True, False]


def test_a_rate_that_changes_anywhere_is_not_fixed():
    actions = constant(40, 40, 40)
    actions[0, 2:, 0] = 30  # in the given part
    actions[1, 9:, 0] = 30  # in the predicted part
    actions[2, -1, 0] = 30  # acts after the last frame
    found = masks(actions)
    assert found["fixed_rate"] == [False, False, True]
    assert found["changing_action"] == [False, True, False]


def test_any_action_may_change():
    actions = constant(40)
    actions[0, 8, 1] = 0.5
    assert masks(actions)["changing_action"] == [True]


def test_bounds_are_the_configs():
    assert masks(constant(40), fixed_rate_high=30.0)["fixed_rate"] == [False]


@pytest.mark.parametrize(
    "spec", [ActionSpec.null(), ActionSpec(names=("push",), units=("m/s",), mean=(0.0,), scale=(1.0,))]
)
def test_without_the_action_the_subset_is_absent_with_a_reason(spec):
    parts = subsets(np.ones(2, bool), np.zeros((2, FRAMES, spec.width), np.float32), spec, PAST, SubsetConfig())
    fixed = next(part for part in parts if part.name == "fixed_rate")
    assert not fixed.mask.any()
    assert "camera_orbit_rate" in fixed.absent
