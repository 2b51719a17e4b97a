"""How futures are drawn, as far as every family shares it. Torch-free: keys are computed from it."""

import functools
from typing import Annotated

import pydantic

from wfm.config import Config, Natural, Seed, how
from wfm.models.family import FAMILIES, Family, FamilyConfig
from wfm.registry import Named


class SamplingConfig(Config):
    """How a family draws: its own fields stand beside these, in a class of its own (`Family.sampling`)."""

    batch_size: int = pydantic.Field(16, ge=1)
    """Sequences that go through the network together. The last batch is filled up by repetition, so that every matrix
    product has the same shape and a sequence's result does not depend on how many others were asked for."""


class GenerationConfig(FamilyConfig):
    """Which held-out windows are predicted, and how their futures are drawn."""

    family: Annotated[str, Named(FAMILIES, "draw")]
    "Family of the world model."
    tokenizer_family: Annotated[str, Named(FAMILIES, "network")] = "tokenizer"
    "Family of its tokenizer."
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
    threads: Natural = how(0)
    "CPU threads of torch; 0: its own choice. The same number gives the same bits."

    @classmethod
    def of_family(cls, family: Family) -> type[Config] | None:
        """With the family's sampling."""
        return with_sampling(GenerationConfig, family)


@functools.cache
def with_sampling(kind: type[Config], family: Family) -> type[Config] | None:
    """The class `kind`, whose field `sampling` is the family's own; None for a family that draws nothing."""
    if not family.draw:
        return None
    own = family.sampling or SamplingConfig
    return pydantic.create_model(f"{family.name}_{kind.__name__}", __base__=kind, sampling=(own, own()))
