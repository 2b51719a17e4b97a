"""The action spec: what an action vector means, saved inside every checkpoint that was trained with it.

An action at frame ``t`` acts between frame ``t`` and frame ``t + 1``. A model refuses actions whose spec differs from its
own, naming the field, because a guessed unit or frame gives a plausible and wrong future.
"""

from typing import Any, Self

import numpy as np
import pydantic

from wfm.config import Config
from wfm.errors import ConfigError, InputError


class ActionSpec(Config):
    """Names, units, frame of reference, rate and normaliser of an action vector of any width."""

    names: tuple[str, ...] = ()
    "One name per component, in order. Empty: the null action."
    units: tuple[str, ...] = ()
    "One unit per component, such as deg/s."
    frame: str = "none"
    "Frame of reference the components are expressed in, such as camera or world."
    rate_hz: float = 24.0
    "Actions a second [Hz]: one per video frame."
    mean: tuple[float, ...] = ()
    "Subtracted before a model sees the action, in the component's unit."
    scale: tuple[float, ...] = ()
    "Divided by after the mean; positive, in the component's unit."

    @pydantic.model_validator(mode="after")
    def _same_width(self) -> Self:
        width = len(self.names)
        for field in ("units", "mean", "scale"):
            if len(getattr(self, field)) != width:
                raise ValueError(f"{field} has {len(getattr(self, field))} entries, names has {width}: give one each")
        if any(scale <= 0 for scale in self.scale):
            raise ValueError(f"scale must be positive, got {self.scale}")
        if self.rate_hz <= 0:
            raise ValueError(f"rate_hz must be positive, got {self.rate_hz}")
        return self

    @property
    def width(self) -> int:
        """Number of components."""
        return len(self.names)

    def normalise(self, actions: np.ndarray) -> np.ndarray:
        """Raw units [..., A] -> what a model sees [..., A], float32."""
        self._check(actions)
        mean, scale = np.asarray(self.mean), np.asarray(self.scale)
        return ((np.asarray(actions, dtype=np.float64) - mean) / scale).astype(np.float32)

    def denormalise(self, actions: np.ndarray) -> np.ndarray:
        """What a model sees [..., A] -> raw units [..., A], float32."""
        self._check(actions)
        mean, scale = np.asarray(self.mean), np.asarray(self.scale)
        return (np.asarray(actions, dtype=np.float64) * scale + mean).astype(np.float32)

    def require_same(self, other: "ActionSpec", *, whose: str = "the input") -> None:
        """Raise `InputError` unless ``other`` means the same actions; the normaliser is the model's own business."""
        for field in ("names", "units", "frame", "rate_hz"):
            mine, theirs = getattr(self, field), getattr(other, field)
            if mine != theirs:
                raise InputError(
                    f"action spec mismatch in {field!r}: the model was trained with {mine!r}, {whose} has {theirs!r}. "
                    "Convert the actions, or use a model that was trained with them."
                )

    def range_of(self, seen: np.ndarray) -> dict[str, list[float]]:
        """The least and the greatest raw value of each component in ``seen`` [..., A], normalised: what a model was shown."""
        raw = self.denormalise(seen).reshape(-1, self.width)
        return {"low": raw.min(axis=0).tolist(), "high": raw.max(axis=0).tolist()}

    def far(self, actions: np.ndarray, known: dict[str, list[float]] | None) -> dict[str, str]:
        """Component -> words, for those of ``actions`` [..., T, A] (raw units) that lie far outside what a model was shown: by
        more than half the width of ``known`` (of `range_of`). Without it, three deviations of the normaliser to each side
        stand for what was shown. Raises ConfigError for a ``known`` of another width.
        """
        raw = np.asarray(actions, dtype=np.float64)
        middle, scale = np.asarray(self.mean), np.asarray(self.scale)
        low, high = middle - 3 * scale, middle + 3 * scale
        if known is not None:
            low, high = (np.asarray(known.get(end, ()), dtype=np.float64) for end in ("low", "high"))
            if low.shape != (self.width,) or high.shape != (self.width,):
                raise ConfigError(f"action_range is {known}; wanted low and high of {', '.join(self.names)}")
        room = np.maximum((high - low) / 2, scale / 2)
        beyond = np.maximum(raw - high, low - raw).reshape(-1, raw.shape[-2], self.width).max(axis=0)  # [T, A]
        found = {}
        for index in np.flatnonzero(beyond.max(axis=0) > room):
            row, name, unit = int(beyond[:, index].argmax()), self.names[index], self.units[index]
            value = max(raw[..., row, index].flat, key=lambda one: abs(one - middle[index]))
            found[name] = (
                f"action {name!r} is {value:.4g} {unit} in row {row}; the model was trained on {'about ' * (known is None)}"
                f"{low[index]:.4g} to {high[index]:.4g} {unit}, and what it makes of such a value is a guess"
            )
        return found

    @classmethod
    def null(cls) -> "ActionSpec":
        """The spec of video without actions."""
        return cls()

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "ActionSpec":
        """Read a spec from a sidecar or checkpoint; raises `ConfigError` with the field."""
        return cls.parse(values)

    def _check(self, actions: np.ndarray) -> None:
        if np.ndim(actions) == 0 or np.shape(actions)[-1] != self.width:
            raise ConfigError(
                f"actions have shape {np.shape(actions)}; the spec has {self.width} components: {', '.join(self.names)}"
            )


CAMERA = "camera"
"""How the names of components begin that move the camera."""
ORBIT = "camera_orbit_rate"


def camera_columns(spec: ActionSpec) -> list[int]:
    """Which components move the camera."""
    return [i for i, name in enumerate(spec.names) if name.startswith(CAMERA)]


def is_moving(actions: np.ndarray, spec: ActionSpec) -> bool:
    """Whether the camera moves by the actions `[T, A]`; without a camera action, whether anything does."""
    chosen = camera_columns(spec) or list(range(spec.width))
    return bool(np.any(np.abs(actions[:, chosen]) > 1e-6))


def constant_rate(actions: np.ndarray, spec: ActionSpec, name: str = ORBIT) -> float | None:
    """The value of action `name` over a window when it never changes, else None; None for a spec without it."""
    if name not in spec.names or not len(actions):
        return None
    values = actions[:-1, spec.names.index(name)]
    return float(values[0]) if np.allclose(values, values[0], rtol=0, atol=1e-4) else None
