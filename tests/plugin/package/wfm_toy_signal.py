"""A condition of another package: how bright the given frames are."""

from typing import ClassVar

import numpy as np

from wfm.conditions.condition import Condition, View
from wfm.config import Count
from wfm.data.signals import Track
from wfm.errors import DataError
from wfm.models.slots import Geometry, Slot


class Brightness(Condition):
    """Mean brightness of the first frames, from -1 (black) to 1 (white)."""

    name: ClassVar[str] = "brightness"
    slot: ClassVar[Slot] = "vector"

    frames: Count = 5
    "Video frames that are looked at, all of them given."

    def track(self, frames: np.ndarray, fps: float) -> Track:
        """That of each frame, `[T, 1]`."""
        return Track((frames.mean(axis=(1, 2, 3)) / 127.5 - 1).astype(np.float32)[:, None], {"unit": "1"})

    def read(self, view: View) -> dict[str, np.ndarray]:
        """Their mean, float32 `[N, 1]`. Raises DataError for fewer frames."""
        rows = view.signals[self.name]
        if rows.shape[1] < self.frames:
            raise DataError(f"condition 'brightness' looks at {self.frames} given frames, here are {rows.shape[1]}")
        return {self.name: rows[:, : self.frames].mean(axis=1)}

    def width(self, geometry: Geometry) -> int:
        """One."""
        return 1
