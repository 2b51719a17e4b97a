"""What a training does with a batch that would spoil it. Torch-free."""

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
