"""What a training does with a batch that would spoil it. Torch-free."""

from typing import Self

import pydantic

from wfm.config import AtLeastZero, Config, Count, Natural


class GuardConfig(Config):
    """Which batches are left out (`wfm.training.guard`)."""

    most_left_out: Natural = 0
    """Batches that a run may leave out: those whose loss or gradient is no finite number, and spikes. One more ends it. 0:
    none, and a loss or gradient that is no finite number ends it at once."""
    spike_ratio: AtLeastZero = 10.0
    """A gradient norm above so many times the median of the last `window` steps, before clipping, is a spike; 0: none is. Steps
    of single images are compared among each other, as are those of videos."""
    window: Count = 64
    "Steps that the median is of."
    least_steps: Count = 16
    "Steps of their kind that must be known before any is called a spike: norms fall fast at the beginning."

    @pydantic.model_validator(mode="after")
    def _spikes_are_seen(self) -> Self:
        if self.spike_ratio and self.window < self.least_steps:
            raise ValueError(
                f"window is {self.window} and least_steps {self.least_steps}: so many steps are never known, and no spike is "
                "seen; make window at least least_steps, or set spike_ratio to 0"
            )
        return self
