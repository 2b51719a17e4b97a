"""The extrapolated past: what constant motion makes of the given frames (`wfm.data.motion`), as a first idea of the future.

The network improves on it in place of finding motion anew. Its video is encoded as the window is, and its latents or tokens
stand beside the window's, place by place. Absent, nothing does.
"""

from typing import ClassVar

import numpy as np
import pydantic

from wfm.conditions.condition import Condition
from wfm.data.motion import extrapolate
from wfm.errors import ConfigError
from wfm.models.slots import Geometry, Slot, SlotConfig


class Extrapolation(Condition):
    """The window whose frames after the given ones are what constant motion makes of those."""

    name: ClassVar[str] = "extrapolation"
    tensors: ClassVar[tuple[str, ...]] = ("extrapolated",)
    slot: ClassVar[Slot] = "channels"

    given_frames: int = pydantic.Field(9, ge=2)
    "Video frames whose motion goes on; one frame has none."
    channels: int = pydantic.Field(16, ge=1)
    "Latent channels of the tokenizer that encodes it."
    dropout: float = pydantic.Field(0.0, ge=0, le=0)
    "It is never dropped: it follows from the past, which is there."

    def video(self, past: np.ndarray, num_frames: int) -> np.ndarray:
        """Windows uint8 `[N, T, H, W, 3]` of their given frames `[N, P, H, W, 3]` and what follows from those, for the model's
        own tokenizer to encode. Raises ConfigError for another number of given frames than the model knows."""
        if past.shape[1] != self.given_frames:
            raise ConfigError(
                f"extrapolation.given_frames is {self.given_frames} and {past.shape[1]} frames are given: the model is shown "
                f"what follows {self.given_frames} frames, give as many"
            )
        return np.concatenate([past, extrapolate(past, num_frames - self.given_frames)], axis=1)

    def width(self, geometry: Geometry) -> int:
        """Channels beside the latents."""
        return self.channels

    @classmethod
    def encoder_of(cls, slot: SlotConfig, geometry: Geometry) -> None:
        """None: its latents or tokens enter as they are."""
        return None
