"""The card: a linear predictor's configs and labels. Torch-free."""

from typing import Annotated, ClassVar, Literal, Self

import pydantic

from wfm.config import Config, Count
from wfm.generation.sampler_config import SamplerConfig
from wfm.models.family import FAMILIES, Family, Variant
from wfm.models.slots import SlotConfig, require_names
from wfm.registry import Named
from wfm.training.config import WorldTrainingConfig


class LinearConfig(Config):
    """What a predictor is; all of it follows from the data."""

    FAMILY: ClassVar[str] = "toy_linear"

    channels: Count = 16
    "Latent channels of the tokenizer."
    temporal_compression: Count = 8
    "Video frames per latent frame after the first."
    fps: float = pydantic.Field(24.0, gt=0)
    "Frames a second of the training video [1/s]."
    conditions: dict[str, SlotConfig] = {}
    "What it is conditioned on, by name."

    @property
    def slots(self) -> dict[str, SlotConfig]:
        """Every condition by name."""
        return self.conditions

    @pydantic.model_validator(mode="after")
    def _vectors_alone(self) -> Self:
        require_names(self.conditions, {}, ("vector",))
        return self


class LinearTrainingConfig(WorldTrainingConfig):
    """A predictor and how it learns."""

    family: Annotated[Literal["toy_linear"], Named(FAMILIES, "fit")] = "toy_linear"
    linear: LinearConfig = LinearConfig()
    "The predictor."


class LinearFamily(Family):
    """A linear predictor over the latents of a continuous tokenizer."""

    name = "toy_linear"
    makes = "world_model"
    takes = "continuous"
    title = "Linear toy"
    config = LinearConfig
    network = "wfm_toy_linear.network:linear"
    training = LinearTrainingConfig
    sampling = SamplerConfig
    fit = "wfm_toy_linear.fit:FITTING"
    draw = "wfm_toy_linear.draw:DRAWING"
    variants = {"mean": Variant("mean", "straight mean"), "sampled": Variant("sample", "drawn")}
    headline = "mean"
    modes = ("sample", "mean")


FAMILY = LinearFamily()
