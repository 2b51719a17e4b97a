"""Which windows stand for what: moving, static, a fixed camera rate, a changing action. Named masks over the
windows."""

from dataclasses import dataclass

import numpy as np

from wfm.actions import ActionSpec
from wfm.evaluation.config import SubsetConfig


@dataclass(frozen=True)
class Subset:
    """`mask` bool [N] over the windows; `absent` says why a subset cannot be told (then the mask is empty)."""

    name: str
    description: str
    mask: np.ndarray
    absent: str = ""


def rate_column(spec: ActionSpec, name: str) -> int | None:
    """The column of action `name`, or None where the spec has no such action."""
    return spec.names.index(name) if name in spec.names else None


def subsets(
    moving: np.ndarray, actions: np.ndarray, spec: ActionSpec, past_frames: int, config: SubsetConfig
) -> list[Subset]:
    """The subsets in the order they are reported: all, moving, static, fixed_rate, changing_action.

    Args: `moving` bool [N] as measured when the windows were cut; `actions` float [N, T, A] in the units of `spec`.
    """
    count = len(moving)
    low, high = config.fixed_rate_low, config.fixed_rate_high
    found = [
        Subset("all", "every window", np.ones(count, dtype=bool)),
        Subset("moving", "the picture as a whole moves", moving),
        Subset("static", "the camera stands still", ~moving),
    ]
    fixed = f"{config.rate_action} held at {low:g} to {high:g} {config.rate_unit} through the whole window"
    column = rate_column(spec, config.rate_action)
    if column is None:
        reason = f"these windows have no action named {config.rate_action!r}"
        found.append(Subset("fixed_rate", fixed, np.zeros(count, dtype=bool), reason))
    else:
        acting = actions[:, :-1, column]  # the last action acts after the last frame
        steady = np.ptp(acting, axis=1) <= config.rate_tolerance
        speed = np.abs(acting.mean(axis=1))
        found.append(Subset("fixed_rate", fixed, steady & (speed >= low - 1e-6) & (speed <= high + 1e-6)))
    changing = "some action changes after the last given frame"
    if spec.width == 0:
        found.append(Subset("changing_action", changing, np.zeros(count, dtype=bool), "these windows have no actions"))
    else:
        scaled = spec.normalise(actions)[:, past_frames - 1 : -1]  # [N, T - P, A], from the last given frame on
        found.append(
            Subset("changing_action", changing, (np.ptp(scaled, axis=1) > config.change_tolerance).any(axis=1))
        )
    return found
