"""What the conditions of a model read of each window of a future."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wfm.actions import ActionSpec
from wfm.conditions.action import Action
from wfm.conditions.condition import Condition, Reads, View, of_slots
from wfm.conditions.past import Past
from wfm.data.pixels import as_frames, as_video
from wfm.errors import ConfigError
from wfm.generation.rollout import Given
from wfm.models.slots import slots_of


class ConditionReading:
    """Of a model with `config`, whose actions mean `spec`, at `fps` frames a second; tensors are like `weight`. meanings: what
    else its card says of what conditions mean."""

    def __init__(
        self,
        config: Any,
        spec: ActionSpec,
        fps: float,
        weight: Tensor,
        meanings: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    ) -> None:
        self.meanings = {Action.tensors[0]: spec.resolved(), **meanings}
        found = of_slots(slots_of(config), self.meanings)
        self.conditions: dict[str, Condition] = {Past.name: Past(), **found}  # every world model continues one
        self.further = tuple(getattr(config, "conditions", {}))
        "Those that its configuration has no fields of its own for."
        self.fps, self.weight = fps, weight
        self.encoded = tuple(name for one in self.conditions.values() for name in one.encoded)
        self.frames = bool(self.that_read("frames"))

    def that_read(self, *what: Reads) -> dict[str, Condition]:
        """The conditions that read any of these."""
        return {name: one for name, one in self.conditions.items() if set(what) & set(one.reads)}

    def require_given(self, frames: int) -> None:
        """Raise ConfigError where a condition cannot follow a past of so many video frames."""
        for condition in self.conditions.values():
            condition.require_given(frames)

    def tensors(self, past: Tensor | None, beside: Given, start: int, length: int) -> dict[str, Tensor]:
        """See `wfm.generation.rollout.Reading`."""
        pixels = None if past is None else as_frames(past).cpu().numpy()
        view = View(self._signals(pixels, beside, start, length), length, self.fps, self.meanings, pixels)
        arrays = {name: x for one in self.conditions.values() for name, x in _of_all(one, view).items()}
        read = {name: torch.from_numpy(x) for name, x in arrays.items()}
        found = {name: x.to(self.weight if x.is_floating_point() else self.weight.device) for name, x in read.items()}
        if past is not None:  # what is given enters as it is, not by 8 bits a colour
            given = past.shape[2]
            for name in read.keys() & set(self.encoded):
                found[name] = torch.cat([past, as_video(read[name][:, given:]).to(past)], dim=2)
        return {**found, **beside.text}

    def _signals(self, pixels: np.ndarray | None, beside: Given, start: int, length: int) -> dict[str, np.ndarray]:
        """What the caller gave of the window's frames, past the end the last row again; and what conditions make of those that
        are given."""
        told = {**beside.signals, **({} if beside.actions is None else {"actions": beside.actions})}
        signals = {name: x if x.ndim == 1 else x[:, _rows(start, length, x.shape[1])] for name, x in told.items()}
        for name, condition in self.conditions.items() if pixels is not None else ():
            made = [track for track in (condition.track(one, self.fps) for one in pixels) if track is not None]  # type: ignore[union-attr]
            if made:
                signals[name] = np.stack([track.values for track in made])
        return signals


def _of_all(reader: Condition, view: View) -> dict[str, np.ndarray]:
    """What a condition reads of sequences that all have it, or that all have not. Raises ConfigError for some of both."""
    read = reader.read(view)
    has = np.concatenate([read.pop(name) for name in list(read) if name.startswith("has_")] or [np.ones(1, bool)])
    if not has.any():
        return {}
    if not has.all():
        raise ConfigError(
            f"condition {reader.name!r}: {int((~has).sum())} of {len(has)} sequences lack it; ask for these by themselves"
        )
    return read


def _rows(start: int, length: int, known: int) -> np.ndarray:
    return np.arange(start, start + length).clip(max=known - 1)
