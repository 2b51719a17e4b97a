"""What a model is conditioned on, one object each: the protocol, and the registry.

A condition says, in one file,

    reads      what it takes of a window: `read(view)` -> named arrays, the same in training and in generation
    encoder    a module: the batch's tensors -> what enters the model, at the width that `width` says
    slot       where that enters (`wfm.models.slots`)
    null       what stands there where it is absent: `nothing` (exactly the model without it) or something learned
    dropout    the share of samples that training shows without it
    spec       its fields: saved with the model, and refused on mismatch (`require_same`)

More come from other packages, by an entry point of group `wfm.conditions` (name = "package.module:Class"). A plan that names
one imports its file: keep what is heavy inside `encoder` where planning should stay light.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np
import pydantic

from wfm.actions import ActionSpec
from wfm.config import Config, Share
from wfm.errors import ConfigError, InputError
from wfm.models.slots import Null, Slot, SlotConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

GROUP = "wfm.conditions"
"""Entry points of this group register conditions of other packages."""

BUILT_IN: dict[str, str] = {
    "past": "wfm.conditions.past:Past",
    "extrapolation": "wfm.conditions.extrapolation:Extrapolation",
    "text": "wfm.conditions.text:Text",
    "action": "wfm.conditions.action:Action",
    "camera": "wfm.conditions.camera:Camera",
}


@dataclass(frozen=True)
class View:
    """What a condition may look at of one window: in training of one that is known whole, in generation of one whose future
    is not there yet. What it reads must be the same in both."""

    past: np.ndarray
    "The given frames, uint8 `[P, H, W, 3]`."
    num_frames: int
    "T: given and predicted frames together."
    fps: float
    "Frames a second [1/s]."
    signals: Mapping[str, np.ndarray] = field(default_factory=dict)
    "What lies beside the video by frame, `[T, ...]` each, in raw units: of the clip's sidecars, or of the caller's files."
    meanings: Mapping[str, ActionSpec] = field(default_factory=dict)
    "What the components of a signal mean, where it says so: names, units, frame, rate."
    text: str = ""
    "The caption."


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


class Condition(Config):
    """Base of every condition. The fields of a subclass are its spec; those of this class say how it is trained."""

    name: ClassVar[str] = ""
    "Under which it is registered."
    tensors: ClassVar[tuple[str, ...]] = ()
    "Names of its tensors in a batch, the first of which is the condition itself; empty: one, called as the condition is."
    slot: ClassVar[Slot]
    "Where it enters."
    null: ClassVar[Null] = "nothing"
    dropout: Share = pydantic.Field(0.1)
    """Share of samples trained as if it were absent. (An objective that has a field of its own for it, such as
    `action_dropout`, goes before.)"""

    TRAINING: ClassVar[tuple[str, ...]] = ("dropout",)
    "Fields that say how it is trained and not what it means: they may differ."

    @classmethod
    def reads(cls) -> tuple[str, ...]:
        """Names of its tensors in a batch."""
        return cls.tensors or (cls.name,)

    @classmethod
    def presence(cls) -> str:
        """The tensor bool `[B]` of a batch that says which samples have it; none in the batch: all have."""
        return f"has_{cls.reads()[0]}"

    encoded: ClassVar[bool] = False
    """Whether what `read` gives is video uint8 `[T, H, W, 3]`, which the model's own tokenizer encodes as it does the window:
    the tensor is then like the window's latents or tokens."""

    def read(self, view: View) -> dict[str, np.ndarray]:
        """The arrays of one window by the names of `reads()`; shapes are alike for all windows of a model. Empty: the window
        has none, and the null stands for it. Raises DataError for what cannot be."""
        raise NotImplementedError(f"{type(self).__name__} reads nothing")

    def width(self, geometry: Geometry) -> int:
        """Features that enter the slot."""
        raise NotImplementedError(f"{type(self).__name__} has no width")

    def encoder(self, geometry: Geometry) -> "nn.Module | None":
        """A module called as `encoder(tensors, place)`: the batch's tensors of this condition, `[B, ...]` each, and the
        `Place` they speak of -> what its slot takes. None: its one tensor enters as it is."""
        return None

    def fitted(self, tensors: Mapping[str, "Tensor"]) -> Self:
        """This condition with what is learned from the training samples, such as a normaliser: `[N, ...]` each."""
        return self

    def slot_config(self, geometry: Geometry) -> SlotConfig:
        """What a model's configuration holds of it."""
        return SlotConfig(slot=self.slot, width=self.width(geometry), null=self.null, spec=self.resolved())

    def require_same(self, other: "Condition", *, whose: str = "the input") -> None:
        """Raise InputError unless `other` means the same, naming the field, both values and what to do."""
        if type(other) is not type(self):
            raise InputError(f"condition {self.name!r}: {whose} gives {other.name!r}; give it what it was trained with")
        for name in type(self).model_fields:
            mine, theirs = getattr(self, name), getattr(other, name)
            if name not in self.TRAINING and mine != theirs:
                raise InputError(
                    f"condition {self.name!r} mismatch in {name!r}: the model was trained with {mine!r}, {whose} has "
                    f"{theirs!r}. Convert what you give, or use a model that was trained with it."
                )


def names() -> tuple[str, ...]:
    """Every condition there is: those of this package, then those of others."""
    return (*BUILT_IN, *sorted({entry.name for entry in entry_points(group=GROUP)} - set(BUILT_IN)))


def condition_class(name: str) -> type[Condition]:
    """The class registered as `name`. Raises ConfigError for an unknown name and for an entry point that is no condition, of
    another name, or that takes a name of ours."""
    if name in BUILT_IN:
        return _resolve(BUILT_IN[name])
    found = [entry for entry in entry_points(group=GROUP) if entry.name == name]
    if not found:
        raise ConfigError(
            f"unknown condition {name!r}. Choices: {', '.join(names())}; another package adds one by an entry point of "
            f"group {GROUP!r}"
        )
    if len(found) > 1:
        raise ConfigError(f"condition {name!r} is registered {len(found)} times: {', '.join(e.value for e in found)}")
    made = found[0].load()
    if not (isinstance(made, type) and issubclass(made, Condition)) or made.name != name:
        raise ConfigError(f"condition {name!r}: {found[0].value} is no Condition of that name")
    return made


def parse(values: Mapping[str, Mapping[str, Any]]) -> dict[str, Condition]:
    """Conditions from plain values by name, in order. Raises ConfigError naming condition, field, value and choices."""
    found: dict[str, Condition] = {}
    for name, fields in values.items():
        try:
            found[name] = condition_class(name).parse(fields)
        except ConfigError as error:
            raise ConfigError(f"conditions.{name}: {error}") from None
    return found


def _resolve(path: str) -> type[Condition]:
    module, attribute = path.split(":")
    found: type[Condition] = getattr(import_module(module), attribute)
    return found
