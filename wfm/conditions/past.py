"""The past: the first frames of the window, which are given and not predicted.

It enters the sequence itself: given latent frames (or tokens) stand in their own places, and the network is told which they
are. `repeat_last` shows the last of them beside every frame too. Absent, nothing is given: text2world.
"""

from typing import ClassVar

from wfm.conditions.condition import Condition
from wfm.config import Natural
from wfm.errors import ConfigError
from wfm.models.slots import Geometry, Slot


class Past(Condition):
    """The given frames. Its tensor is the window's own latents or tokens: nothing is kept beside them."""

    name: ClassVar[str] = "past"
    slot: ClassVar[Slot] = "sequence"

    frames: Natural = 9
    "Given video frames; 0: none. 1 + temporal_compression * n."
    repeat_last: bool = False
    "Whether the last given latent frame is shown beside every frame."

    def latent_frames(self, geometry: Geometry) -> int:
        """Given latent frames. Raises ConfigError for frames that are no whole number of them."""
        step = geometry.temporal_compression
        if self.frames and (self.frames - 1) % step:
            raise ConfigError(
                f"past.frames is {self.frames}; with {step} frames to a latent frame give 1, {1 + step}, {1 + 2 * step} ..."
            )
        return 1 + (self.frames - 1) // step if self.frames else 0
