"""What a model is conditioned on, one object each: the protocol, and the registry.

A condition says, in one file,

    reads      what it takes of windows: `read(view)` -> named arrays, the same in training and in generation, those that are
               video for the model's tokenizer to encode; and, where the data have no such signal, `track(frames)`: how it is
               made of a clip's frames
    encoder    a module: the batch's tensors -> what enters the model, at the width that `width` says
    slot       where that enters (`wfm.models.slots`)
    null       where it is absent nothing enters: the model is then exactly the one without it
    dropout    the share of samples that training shows without it
    spec       its fields: saved with the model, and refused on mismatch (`require_same`)

More come from other packages, by an entry point of group `wfm.conditions` (name = "package.module:Class"). A plan that names
one imports its file: keep what is heavy inside `encoder` where planning should stay light.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import pydantic

from wfm.actions import ActionSpec
from wfm.config import Config, Share
from wfm.errors import ConfigError, InputError
from wfm.models.slots import Geometry, Slot, SlotConfig
from wfm.registry import Registry

if TYPE_CHECKING:
    from torch import nn

    from wfm.data.signals import Track

Reads = Literal["past", "frames", "signals", "actions", "captions"]

CONDITIONS = Registry(
    "wfm.conditions",
    "condition",
    {
        "past": "wfm.conditions.past:Past",
        "extrapolation": "wfm.conditions.extrapolation:Extrapolation",
        "text": "wfm.conditions.text:Text",
        "action": "wfm.conditions.action:Action",
        "camera": "wfm.conditions.camera:Camera",
    },
)


@dataclass(frozen=True)
class View:
    """What a condition may look at of N windows: in training of such as are known whole, in generation of such whose future is
    not there yet. What it reads must be the same in both."""

    signals: Mapping[str, np.ndarray]
    """By name, `[N, T, ...]` in raw units, a row a frame, of the clips' sidecars or the caller's files. Of one that a condition
    makes of the frames (`track`) generation holds the given frames' rows alone: no others may be read."""
    num_frames: int
    "T: given and predicted frames together."
    fps: float
    "Frames a second [1/s]."
    meanings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    "What the numbers of a signal are, as the clips' sidecars say it."
    frames: np.ndarray | None = None
    """The given frames uint8 `[N, P, H, W, 3]`, in generation; None in training, where windows were encoded before, and what is
    video among a condition's tensors with them (`encode_latents`)."""


class Condition(Config):
    """Base of every condition. The fields of a subclass are its spec; those of this class say how it is trained."""

    name: ClassVar[str] = ""
    "Under which it is registered."
    tensors: ClassVar[tuple[str, ...]] = ()
    "Names of its tensors in a batch, the first of which is the condition itself; empty: one, called as the condition is."
    slot: ClassVar[Slot]
    "Where it enters."
    encoded: ClassVar[tuple[str, ...]] = ()
    """Those of its tensors that are latents or tokens: `read` gives video uint8 `[N, T, H, W, 3]`, the given frames first, for
    the model's own tokenizer to encode."""
    reads: ClassVar[tuple[Reads, ...]] = ("frames", "signals")
    """What it reads: the past as it is (pixels or encoded), pixels of the given frames, signals, the actions among these,
    captions. A long future stays encoded between windows unless one reads pixels."""
    replaces: ClassVar[tuple[str, ...]] = ()
    "Conditions that a model with this one goes without."
    dropout: Share = pydantic.Field(0.1)
    """Share of samples trained as if it were absent. (An objective that has a field of its own for it, such as
    `action_dropout`, goes before.)"""

    TRAINING: ClassVar[tuple[str, ...]] = ("dropout",)
    "Fields that say how it is trained and not what it means: they may differ."

    @classmethod
    def tensor_names(cls) -> tuple[str, ...]:
        """Names of its tensors in a batch."""
        return cls.tensors or (cls.name,)

    def track(self, frames: np.ndarray, fps: float) -> "Track | None":
        """The signal that it makes of a clip's frames uint8 `[T, H, W, 3]`, kept under the condition's name; None: it makes
        none, and reads what the data have."""
        return None

    def described(self, meanings: Mapping[str, Mapping[str, Any]]) -> Self:
        """This condition with what the data say of their signals taken into its spec. Raises InputError where that is
        another."""
        return self

    def require_given(self, frames: int) -> None:
        """Raise ConfigError where a past of so many video frames is none that this condition can follow."""
        return None

    def own_fields(self) -> dict[str, Any]:
        """What the configuration of a network that has fields of its own for this condition says in them, as far as it follows
        from what the data mean."""
        return {}

    def read(self, view: View) -> dict[str, np.ndarray]:
        """The arrays `[N, ...]` of windows by the names of `tensor_names()`; `has_<name>` bool `[N]` beside the first where
        not all have it. Empty: none has it. Raises DataError for what cannot be."""
        raise NotImplementedError(f"{type(self).__name__} reads nothing")

    def width(self, geometry: Geometry) -> int:
        """Features that enter the slot."""
        raise NotImplementedError(f"{type(self).__name__} has no width")

    def encoder(self, geometry: Geometry) -> "nn.Module | None":
        """A module called as `encoder(tensors, place)`: the batch's tensors of this condition, `[B, ...]` each, and the
        `Place` they speak of -> what its slot takes. None: its one tensor enters as it is."""
        return None

    @classmethod
    def encoder_of(cls, slot: SlotConfig, geometry: Geometry) -> "nn.Module | None":
        """The encoder of a model that holds it as `slot`."""
        return cls.parse(slot.spec).encoder(geometry)

    def slot_config(self, geometry: Geometry) -> SlotConfig:
        """What a model's configuration holds of it."""
        return SlotConfig(
            slot=self.slot,
            width=self.width(geometry),
            tensors=self.tensor_names(),
            dropout=self.dropout,
            spec=self.resolved(),
        )

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


def condition_class(name: str) -> type[Condition]:
    """The class registered as `name`. Raises ConfigError for an unknown name, and for what is no condition of that name."""
    made = CONDITIONS.load(name)
    if not (isinstance(made, type) and issubclass(made, Condition)) or made.name != name:
        raise ConfigError(f"condition {name!r}: {CONDITIONS.path(name)} is no Condition of that name")
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


def of_slots(slots: Mapping[str, SlotConfig], meanings: Mapping[str, Mapping[str, Any]]) -> dict[str, Condition]:
    """The conditions of a model, by the specs in its configuration; those that this has fields for mean what its card says
    (`meanings`)."""
    found = parse({name: slot.spec for name, slot in slots.items()})
    return {name: one if slots[name].spec else one.described(meanings) for name, one in found.items()}


def encoders(
    slots: Mapping[str, SlotConfig], geometry: Geometry, known: Iterable[type[Condition]] = ()
) -> "dict[str, nn.Module]":
    """The encoders of a model's conditions, of those that have one; `known`: classes of those that it has fields for. Raises
    ConfigError for a condition that is not here."""
    own = {kind.name: kind for kind in known}
    found = {name: (own.get(name) or condition_class(name)).encoder_of(slot, geometry) for name, slot in slots.items()}
    return {name: one for name, one in found.items() if one is not None}


def action_spec(meanings: Mapping[str, Mapping[str, Any]]) -> ActionSpec:
    """What the actions of the data mean; the spec of none where they have none."""
    return ActionSpec.parse(meanings["actions"]) if "actions" in meanings else ActionSpec.null()
