"""Where planted bugs are noted: which promise each breaks, and what finds it."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.cluster.conftest import MakeWorld
from wfm.cluster import decide, launcher
from wfm.cluster.view import Decision

Plant = Callable[[pytest.MonkeyPatch], None]
Scenario = Callable[[MakeWorld], object]
PLANTS: list[tuple[str, str, Plant, Scenario, float]] = []


def planted(invariant: str, scenario: Scenario, longest: float = 1e9) -> Callable[[Plant], Plant]:
    """Note a bug: which promise it breaks, and what finds it. `longest`: twice what the scenario takes without it [s], where
    the bug would make it long."""

    def note(plant: Plant) -> Plant:
        PLANTS.append((plant.__name__, invariant, plant, scenario, longest))
        return plant

    return note


def deciding(patch: pytest.MonkeyPatch, other: Callable[[Any, Callable[[Any], Decision]], Decision]) -> None:
    """Put a decision of its own before the launcher's."""
    right = decide.decide
    patch.setattr(launcher, "decide", lambda view: other(view, right))
