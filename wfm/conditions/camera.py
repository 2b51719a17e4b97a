"""Camera rates: those components of an action that move the camera, known by their names (`camera_orbit_rate` ...).

A model that is told the camera's path and not what acts in the scene is conditioned on these alone; a model of whole actions
reads a camera path as an action whose other components are zero (`wfm.generation.camera_files`).
"""

from typing import ClassVar

import numpy as np

from wfm.actions import ActionSpec
from wfm.conditions.action import Action
from wfm.conditions.condition import View

PREFIX = "camera"
ORBIT = "camera_orbit_rate"


class Camera(Action):
    """The camera's components of the action vector of each frame."""

    name: ClassVar[str] = "camera"
    tensors: ClassVar[tuple[str, ...]] = ("camera",)

    def read(self, view: View) -> dict[str, np.ndarray]:
        """Raw rates float32 `[T, A]`; nothing for a window whose actions do not move the camera."""
        spec = view.meanings.get("actions", ActionSpec.null())
        chosen = columns(spec)
        if not chosen:
            return {}
        self.spec.require_same(camera_spec(spec), whose="the window")
        return {self.name: np.asarray(view.signals["actions"][:, chosen], np.float32)}


def columns(spec: ActionSpec) -> list[int]:
    """Which components move the camera."""
    return [i for i, name in enumerate(spec.names) if name.startswith(PREFIX)]


def camera_spec(spec: ActionSpec) -> ActionSpec:
    """The camera's part of an action spec; null without any."""
    chosen = columns(spec)
    parts = {name: tuple(getattr(spec, name)[i] for i in chosen) for name in ("names", "units", "mean", "scale")}
    return spec.model_copy(update=parts) if chosen else ActionSpec.null()


def is_moving(actions: np.ndarray, spec: ActionSpec) -> bool:
    """Whether the camera moves by the actions `[T, A]`; without a camera action, whether anything does."""
    chosen = columns(spec) or list(range(spec.width))
    return bool(np.any(np.abs(actions[:, chosen]) > 1e-6))


def constant_rate(actions: np.ndarray, spec: ActionSpec, name: str = ORBIT) -> float | None:
    """The value of action `name` over a window when it never changes, else None; None for a spec without it."""
    if name not in spec.names or not len(actions):
        return None
    values = actions[:-1, spec.names.index(name)]
    return float(values[0]) if np.allclose(values, values[0], rtol=0, atol=1e-4) else None
