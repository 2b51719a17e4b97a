"""Camera rates: those components of an action that move the camera, known by their names (`camera_orbit_rate` ...).

A model that is told the camera's path and not what acts in the scene is conditioned on these alone; a model of whole actions
reads a camera path as an action whose other components are zero (`wfm.generation.camera_files`).
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from wfm.actions import CAMERA, ActionSpec, camera_columns
from wfm.conditions.action import Action
from wfm.conditions.condition import View, action_spec
from wfm.errors import InputError


class Camera(Action):
    """The camera's components of the action vector of each frame."""

    name: ClassVar[str] = "camera"
    tensors: ClassVar[tuple[str, ...]] = ("camera",)
    replaces: ClassVar[tuple[str, ...]] = ("action",)

    def described(self, meanings: Mapping[str, Mapping[str, Any]]) -> Self:
        """With the camera's part of the spec of the data's actions. Raises InputError where no action moves the camera."""
        found = camera_spec(action_spec(meanings))
        if not found.width:
            raise InputError(
                f"condition 'camera': the data set's actions are {', '.join(action_spec(meanings).names) or 'none'}, of which "
                f"none begins with {CAMERA!r}; leave it out"
            )
        return self._of(found)

    def read(self, view: View) -> dict[str, np.ndarray]:
        """Normalised rates float32 `[N, T, A]`; nothing without actions."""
        raw = view.signals.get("actions")
        if raw is None:
            return {}
        chosen = camera_columns(action_spec(view.meanings))
        return self._with_presence(self.spec.normalise(raw[..., chosen]), view)


def camera_spec(spec: ActionSpec) -> ActionSpec:
    """The camera's part of an action spec; null without any."""
    chosen = camera_columns(spec)
    parts = {name: tuple(getattr(spec, name)[i] for i in chosen) for name in ("names", "units", "mean", "scale")}
    return spec.model_copy(update=parts) if chosen else ActionSpec.null()
