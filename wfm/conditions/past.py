"""The past: the first frames of the window, which are given and not predicted.

It enters the sequence itself: given latent frames (or tokens) stand in their own places, and the network is told which they
are. Absent, nothing is given: text2world.
"""

from typing import ClassVar

import numpy as np
import pydantic

from wfm.conditions.condition import Condition, Reads, View
from wfm.models.slots import Geometry, Slot, SlotConfig


class Past(Condition):
    """The given frames: `past`, latents in the tokenizer's units or tokens, and, where not all of them are given, how many,
    `given` `[B]`. In training `past` is the window's own and an objective draws `given`."""

    name: ClassVar[str] = "past"
    tensors: ClassVar[tuple[str, ...]] = ("past", "given")
    encoded: ClassVar[tuple[str, ...]] = ("past",)
    reads: ClassVar[tuple[Reads, ...]] = ("past",)
    slot: ClassVar[Slot] = "sequence"

    dropout: float = pydantic.Field(0.0, ge=0, le=0)
    "It is not dropped: an objective draws how much of it is given, which may be nothing."

    def read(self, view: View) -> dict[str, np.ndarray]:
        """The given frames."""
        return {} if view.frames is None else {"past": view.frames}

    @classmethod
    def encoder_of(cls, slot: SlotConfig, geometry: Geometry) -> None:
        """None: its latents or tokens enter as they are."""
        return None


def video_frames(latents: int, compression: int) -> int:
    """Video frames that so many latent frames show, `compression` to each but the first."""
    return 1 + (latents - 1) * compression if latents else 0
