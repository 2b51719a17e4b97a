"""The extrapolated past: what constant motion makes of the given frames (`wfm.data.motion`), as a first idea of the future.

The network improves on it in place of finding motion anew. Its video is encoded as the window is, and its latents or tokens
stand beside the window's, place by place. Absent, nothing does.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import pydantic

from wfm.conditions.condition import Condition, Reads, View
from wfm.config import Natural
from wfm.data.motion import extrapolate
from wfm.errors import ConfigError
from wfm.models.slots import Geometry, Slot, SlotConfig


class Extrapolation(Condition):
    """The window whose frames after the given ones are what constant motion makes of those."""

    name: ClassVar[str] = "extrapolation"
    tensors: ClassVar[tuple[str, ...]] = ("extrapolated",)
    encoded: ClassVar[tuple[str, ...]] = ("extrapolated",)
    reads: ClassVar[tuple[Reads, ...]] = ("frames",)
    slot: ClassVar[Slot] = "channels"

    given_frames: Natural = 0
    "Video frames whose motion goes on, 2 or more, as one frame has none; 0: as many as are given."
    channels: int = pydantic.Field(16, ge=1)
    "Latent channels of the tokenizer that encodes it."
    dropout: float = pydantic.Field(0.0, ge=0, le=0)
    "It is never dropped: it follows from the past, which is there."

    def described(self, meanings: Mapping[str, Mapping[str, Any]]) -> Self:
        """With the number of frames that the data's extrapolations were made from."""
        found = int(meanings.get(self.tensors[0], {}).get("given_frames", 0))
        return self.model_copy(update={"given_frames": found}) if found else self

    def require_given(self, frames: int) -> None:
        """Raise ConfigError for one frame, and for another number than the model was trained with."""
        if frames < 2:
            raise ConfigError(
                f"past_frames is {frames}; this model is shown what the motion of the given frames leads to (extrapolate), and "
                "one frame has none: give 2 or more"
            )
        if self.given_frames and frames != self.given_frames:
            raise ConfigError(
                f"the model was trained to be shown what follows {self.given_frames} frames, and is asked with {frames}: set "
                f"past_frames={self.given_frames}"
            )

    def read(self, view: View) -> dict[str, np.ndarray]:
        """The window's video, of which the given frames are known."""
        return {} if view.frames is None else {"extrapolated": self.video(view.frames, view.num_frames)}

    def video(self, past: np.ndarray, num_frames: int) -> np.ndarray:
        """Windows uint8 `[N, T, H, W, 3]` of their given frames `[N, P, H, W, 3]` and what follows from those, for the model's
        own tokenizer to encode. Raises ConfigError for another number of given frames than the model knows."""
        given = past.shape[1]
        if self.given_frames not in (0, given):
            raise ConfigError(
                f"extrapolation.given_frames is {self.given_frames} and {given} frames are given: the model is shown "
                f"what follows {self.given_frames} frames, give as many"
            )
        return np.concatenate([past, extrapolate(past, num_frames - given)], axis=1)

    def width(self, geometry: Geometry) -> int:
        """Channels beside the latents."""
        return self.channels

    @classmethod
    def encoder_of(cls, slot: SlotConfig, geometry: Geometry) -> None:
        """None: its latents or tokens enter as they are."""
        return None


def require_encoded(section: str, extrapolate_from: int) -> None:
    """Raise ConfigError when a model is to be shown the extrapolated past (`section`.extrapolate) and the samples hold none
    (`extrapolate_from` 0)."""
    if not extrapolate_from:
        raise ConfigError(
            f"{section}.extrapolate is on and the latents hold no extrapolated past: encode them with extrapolate_from, the "
            "frames given"
        )
