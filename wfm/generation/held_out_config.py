"""Which held-out windows are predicted, and how. Torch-free."""

from typing import Annotated

import pydantic

from wfm.conditions.condition import CONDITIONS
from wfm.config import Config, Count, Natural, Seed, added, how
from wfm.generation.config import SamplingConfig, with_sampling
from wfm.models.family import FAMILIES, Family, FamilyConfig
from wfm.registry import Named


class HeldOutConfig(FamilyConfig):
    """Which windows, and how their futures are drawn."""

    family: Annotated[str, Named(FAMILIES, "draw")]
    "Family of the world model."
    tokenizer_family: Annotated[str, Named(FAMILIES, "network")] = "tokenizer"
    "Family of its tokenizer."
    conditions: Annotated[tuple[str, ...], Named(CONDITIONS)] = added(())
    "Further conditions of the model, those of its training's `conditions`."
    splits: tuple[str, ...] = ("test",)
    "Splits of the data set to predict; never train."
    past_frames: int = pydantic.Field(9, ge=1)
    "Frames given."
    stride_frames: int = pydantic.Field(16, ge=1)
    "Distance between the starts of windows within a clip [frames]."
    max_windows: int = pydantic.Field(128, ge=0)
    "Most windows a split, chosen by hash; 0: all."
    seed: Seed = 0
    "The seed of a window is a hash of this and its sample id."
    sampling: SamplingConfig = SamplingConfig()
    "How the family draws."
    examples: int = pydantic.Field(6, ge=0)
    "Windows written as mp4 too."
    windows_per_part: Count = how(256)
    "Windows that are made together, at most: a worker's share. Each part fills whole batches of `sampling.batch_size`."
    threads: Natural = how(1)
    "CPU threads of torch in each worker; 0: its own choice. The same number gives the same bits."

    @classmethod
    def of_family(cls, family: Family) -> type[Config] | None:
        """With the family's sampling."""
        return with_sampling(HeldOutConfig, family)
