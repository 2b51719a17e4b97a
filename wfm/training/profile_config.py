"""What of a training is profiled. Torch-free."""

from wfm.config import Config, Count, Natural, how


class ProfileConfig(Config):
    """A look at a few steps, on request; all of it `how`."""

    steps: Natural = how(0)
    """Steps that are profiled; 0: none. Each rank writes `profile/trace-<rank>.json`, which Perfetto and chrome://tracing show,
    and `profile/memory-<rank>.json` beside the curves in the run's scratch folder."""
    after: Count = how(5)
    "Steps of an attempt before the first that is profiled: those compile, and fill caches."
