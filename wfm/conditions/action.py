"""Actions: what acts on the scene between each video frame and the next. How they become a vector per latent frame lies in
`action_features`, apart, as a plan that names this condition loads no torch.

Absent, nothing joins: "no action is known" is not "nothing moves", which is a vector of its own (actions of zero).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from wfm.actions import ActionSpec
from wfm.conditions.condition import Condition, Reads, View, action_spec
from wfm.models.slots import Geometry, Slot, SlotConfig

if TYPE_CHECKING:
    from torch import nn

FREQUENCIES = (1.0, 2.0, 4.0)
"""Of the sines and cosines of the accumulated action."""


class Action(Condition):
    """The action vector of each frame, as its `spec` says what it means."""

    name: ClassVar[str] = "action"
    tensors: ClassVar[tuple[str, ...]] = ("actions",)
    reads: ClassVar[tuple[Reads, ...]] = ("actions",)
    slot: ClassVar[Slot] = "vector"

    spec: ActionSpec = ActionSpec.null()
    "Names, units, frame of reference, rate and normaliser."

    def described(self, meanings: Mapping[str, Mapping[str, Any]]) -> Self:
        """With the spec of the data's actions."""
        return self._of(action_spec(meanings))

    def _of(self, found: ActionSpec) -> Self:
        if self.spec.width:
            self.spec.require_same(found, whose="the data set")
            return self
        return self.model_copy(update={"spec": found})

    def read(self, view: View) -> dict[str, np.ndarray]:
        """Normalised actions float32 `[N, T, A]`; nothing without any."""
        raw = view.signals.get("actions")
        if raw is None or not self.spec.width:
            return {}
        return self._with_presence(self.spec.normalise(raw), view)

    def _with_presence(self, values: np.ndarray, view: View) -> dict[str, np.ndarray]:
        name, has = self.tensor_names()[0], view.signals.get("has_actions")
        return {name: values} | ({} if has is None else {f"has_{name}": has})

    def width(self, geometry: Geometry) -> int:
        """Features of a latent frame: see `ActionFeatures`."""
        return feature_width(self.spec.width, geometry.temporal_compression)

    def own_fields(self) -> dict[str, Any]:
        """`action_width`."""
        return {"action_width": self.spec.width}

    def encoder(self, geometry: Geometry) -> "nn.Module":
        """`wfm.conditions.action_features.ActionFeatures`."""
        from wfm.conditions.action_features import ActionFeatures

        width, name = self.spec.width, self.tensor_names()[0]
        return ActionFeatures(width, geometry.temporal_compression, geometry.fps, FREQUENCIES, name=name)

    @classmethod
    def encoder_of(cls, slot: SlotConfig, geometry: Geometry) -> "nn.Module":
        """As many components as the slot is wide for: a model's configuration knows no more of them."""
        from wfm.conditions.action_features import ActionFeatures

        width = slot.width // feature_width(1, geometry.temporal_compression)
        return ActionFeatures(width, geometry.temporal_compression, geometry.fps, FREQUENCIES, name=slot.tensors[0])

    def require_same(self, other: Condition, *, whose: str = "the input") -> None:
        """As of every condition; the normaliser is the model's own business."""
        if isinstance(other, Action):
            self.spec.require_same(other.spec, whose=whose)
            other = other.model_copy(update={"spec": self.spec})
        super().require_same(other, whose=whose)


def feature_width(actions: int, compression: int) -> int:
    """Features of one latent frame of `actions` components a video frame."""
    return actions * (1 + 2 * len(FREQUENCIES) + compression)
