"""The card of the autoregressive family: its configs, labels, and what of a plan cannot work. Torch-free."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pydantic

from wfm.generation.config import SamplingConfig
from wfm.models.autoregressive.config import AutoregressiveConfig, AutoregressiveObjectiveConfig
from wfm.models.family import FAMILIES, Family, Variant
from wfm.registry import Named
from wfm.training.config import WorldTrainingConfig, misstated

if TYPE_CHECKING:
    from torch import nn

    from wfm.models.video_tokenizer import TokenizerCard
    from wfm.training.encode_config import EncodingConfig


class AutoregressiveTrainingConfig(WorldTrainingConfig):
    """A causal transformer and how it learns. Fields that follow from the data (FSQ levels, action width, text width,
    compression, rate) are filled in from the tokens and the tokenizer."""

    family: Annotated[Literal["autoregressive"], Named(FAMILIES, "fit")] = "autoregressive"
    autoregressive: AutoregressiveConfig = AutoregressiveConfig()
    "The causal transformer."
    cross_entropy: AutoregressiveObjectiveConfig = AutoregressiveObjectiveConfig()
    "Its objective."


class DecodingConfig(SamplingConfig):
    """How tokens are chosen."""

    temperature: float = pydantic.Field(1.0, gt=0)
    "Softmax temperature of sampling."
    top_p: float = pydantic.Field(0.8, gt=0, le=1)
    "Sampling keeps the smallest set of choices with this probability."


class AutoregressiveFamily(Family):
    """A causal transformer over the tokens of a discrete tokenizer."""

    name = "autoregressive"
    makes = "world_model"
    takes = "discrete"
    title = "Autoregressive"
    config = AutoregressiveConfig
    network = "wfm.families.autoregressive.build:transformer"
    training = AutoregressiveTrainingConfig
    sampling = DecodingConfig
    own = ("past", "extrapolation", "text", "action")
    weight_fields = ("autoregressive.layers", "autoregressive.dim")
    costs = "wfm.families.autoregressive.cost:cost"
    fit = "wfm.families.autoregressive.fit:FITTING"
    draw = "wfm.families.autoregressive.draw:DRAWING"
    variants = {
        "greedy": Variant("greedy", "greedy"),
        "mean": Variant("mean", "mean"),
        "sampled": Variant("sample", "sampled"),
    }
    headline = "greedy"
    modes = ("sample", "greedy", "mean")
    versions = {"network": 2, "fit": 2, "draw": 2}

    def blocks(self, model: Any) -> "list[nn.Module]":
        """The transformer's layers."""
        return list(model.layers)

    def head(self, model: Any) -> "list[nn.Module]":
        """The last norm, the output and the Medusa heads."""
        return [model.norm, model.output, *([model.medusa] if model.medusa is not None else [])]

    def weight_count(self, config: AutoregressiveTrainingConfig) -> float:
        """Layers times the square of the width."""
        return float(config.autoregressive.layers * config.autoregressive.dim**2)

    def layers(self, config: AutoregressiveTrainingConfig) -> int:
        """Transformer blocks."""
        return config.autoregressive.layers

    def shown_motion(self, config: AutoregressiveTrainingConfig) -> bool:
        """`autoregressive.extrapolate`."""
        return config.autoregressive.extrapolate

    def problems(
        self,
        config: AutoregressiveTrainingConfig,
        tokenizer: "TokenizerCard | None",
        encoded: "EncodingConfig | None",
        source: str,
    ) -> Iterator[tuple[str, str]]:
        """What is stated and follows from the data; token frames that are no whole number of patches."""
        if encoded is not None and config.autoregressive.extrapolate and not encoded.extrapolate_from:
            yield "autoregressive.extrapolate", f"{source}.extrapolate_from is 0, set it to the frames given"
        if tokenizer is None or encoded is None:
            return
        known = {"levels": list(tokenizer.levels), "temporal_compression": tokenizer.temporal_compression}
        yield from misstated(config.autoregressive, known, "autoregressive")
        grid = encoded.grid(tokenizer)
        if grid is not None and any(side % config.autoregressive.patch for side in grid[1:]):
            yield "autoregressive.patch", f"token frames are {grid[1]} x {grid[2]}, take a divisor of both"


FAMILY = AutoregressiveFamily()
