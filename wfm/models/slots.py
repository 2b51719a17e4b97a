"""Where a condition enters a model: named tensors in slots. Torch-free.

    vector      a feature vector of each latent frame, `[B, t, width]`: joins the time embedding and AdaLN (diffusion), or the
                inputs that predict that frame (autoregressive)
    context     tokens `[B, L, width]` that every block attends to, with keys and values of their own
    channels    what is aligned with the latents place by place: channels beside them `[B, width, t, h, w]`, or token ids
                `[B, t, h, w]`
    sequence    places of the sequence itself: latent frames, or tokens, that are given

A network knows a condition by its name, its slot and its width and nothing else. Where it is absent nothing enters: the model
is then exactly the one without it. What the tensors mean, where they come from
and how they are encoded is `wfm.conditions`'.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import pydantic

from wfm.config import Config, Share
from wfm.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

Slot = Literal["vector", "context", "channels", "sequence"]


class SlotConfig(Config):
    """One condition of a model."""

    slot: Slot
    "Where it enters."
    width: int = pydantic.Field(ge=1, le=2**20)
    "Features of a latent frame, of a token or of a place."
    tensors: tuple[str, ...] = pydantic.Field(min_length=1)
    "Names of its tensors in a batch, the condition itself first; of a context the second is the number of tokens of each."
    dropout: Share = 0.0
    "Share of samples trained as if it were absent, where the objective has no field of its own for it."
    spec: dict[str, Any] = {}
    "What the condition means: the values of its class in `wfm.conditions`."

    @property
    def presence(self) -> str:
        """The tensor bool `[B]` of a batch that says which samples have it; none in the batch: all have."""
        return f"has_{self.tensors[0]}"


class Geometry(NamedTuple):
    """What an encoder is told of its model's window."""

    temporal_compression: int
    "Video frames per latent frame after the first."
    fps: float
    "Frames a second of the training video [1/s]."


class Place(NamedTuple):
    """The latent frames of a batch that an encoder speaks of."""

    frames: int
    "t: latent frames."
    given: "Tensor"
    "int64 `[B]`: how many of them are given."


class Encoder(Protocol):
    """A module that makes what enters a slot of the tensors of a condition."""

    def __call__(self, tensors: "Mapping[str, Tensor]", place: Place) -> "Tensor":
        """Tensors `[B, ...]` by name -> `[B, t, width]`, `[B, L, width]` or `[B, width, t, h, w]`, as the slot has it."""
        ...


def slots_of(config: Any) -> dict[str, SlotConfig]:
    """The slots of a model's configuration; none of one that takes no conditions."""
    found: dict[str, SlotConfig] = getattr(config, "slots", {})
    return found


def of_slot(conditions: Mapping[str, SlotConfig], slot: Slot) -> dict[str, SlotConfig]:
    """Those that enter at `slot`, in order."""
    return {name: one for name, one in conditions.items() if one.slot == slot}


def require_known(
    tensors: "Mapping[str, Tensor]", present: "Mapping[str, Tensor]", slots: Mapping[str, SlotConfig]
) -> None:
    """Raise ConfigError for a tensor or a condition that a model of these `slots` does not have."""
    known = {tensor for one in slots.values() for tensor in one.tensors}
    its = ", ".join(slots) or "none"
    for name, found in tensors.items():
        if name not in known:
            raise ConfigError(f"{name} {list(found.shape)} given, and this model takes none; its conditions: {its}")
    for name in present:
        if name not in slots:
            raise ConfigError(f"present.{name}: this model has no such condition; its: {its}")


def require_names(conditions: Mapping[str, SlotConfig], taken: Mapping[str, str], slots: tuple[Slot, ...]) -> None:
    """Raise ValueError for a name that no module can have, one that the configuration has fields for (`taken`: name -> those),
    and a slot that the model has not."""
    for name, one in conditions.items():
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise ValueError(f"conditions.{name}: a name is small letters, digits and _, and begins with a letter")
        if name in taken:
            raise ValueError(f"conditions.{name}: this model states it by {taken[name]}")
        if one.slot not in slots:
            raise ValueError(f"conditions.{name}.slot is {one.slot!r}: here it may enter at {', '.join(slots)}")
