"""The card of the diffusion family: its configs, labels, and what of a plan cannot work. Torch-free."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import pydantic

from wfm.conditions.past import video_frames
from wfm.config import Share
from wfm.generation.sampler_config import TWICE, SamplerConfig
from wfm.models.diffusion.config import DenoiserConfig, DiffusionConfig, EDMConfig, FlowConfig
from wfm.models.family import FAMILIES, Family, Variant
from wfm.registry import Named
from wfm.training.config import WorldTrainingConfig, misstated

if TYPE_CHECKING:
    from torch import nn

    from wfm.models.video_tokenizer import TokenizerCard
    from wfm.training.encode_config import EncodingConfig


class DiffusionTrainingConfig(WorldTrainingConfig):
    """A denoiser and how it learns. Fields that follow from the data (latent channels, columns of the statistics, action
    width, text width, compression, rate, masks) are filled in from the latents and the tokenizer."""

    family: Annotated[Literal["diffusion"], Named(FAMILIES, "fit")] = "diffusion"
    diffusion: DenoiserConfig = DenoiserConfig(
        network=DiffusionConfig(
            condition_mask=True,
            adaln_lora_dim=64,
            max_size=(16, 64, 64),
            rope_scale=(1.0, 1.0, 1.0),
            zero_output=True,
        ),
        repeat_last=True,
        linear_prior=True,
    )
    "The diffusion transformer and what is around it. Stated in part, the rest is a plain Cosmos denoiser's."
    edm: EDMConfig = EDMConfig()
    "Its objective where `diffusion.objective` is edm."
    flow: FlowConfig = FlowConfig()
    "Its objective where `diffusion.objective` is flow."
    whitening: Share = 1.0
    "How far latent channels are brought to one deviation: 1 each on its own, 0 all by a common factor."

    @pydantic.model_validator(mode="after")
    def _sees_motion(self) -> Self:
        counts = self.denoising.condition_latents
        if self.diffusion.extrapolate and max(counts) < 2:
            raise ValueError(
                f"diffusion.extrapolate shows what the given frames' motion leads to, and {self.diffusion.objective}."
                f"condition_latents is {counts}: give 2 or more latent frames (one holds a single frame), or switch "
                "extrapolate off"
            )
        return self

    @property
    def denoising(self) -> EDMConfig | FlowConfig:
        """The objective that is used."""
        return self.edm if self.diffusion.objective == "edm" else self.flow


class DiffusionFamily(Family):
    """A denoiser of latents, by EDM or rectified flow."""

    name = "diffusion"
    makes = "world_model"
    takes = "continuous"
    title = "Diffusion"
    config = DenoiserConfig
    network = "wfm.families.diffusion.build:denoiser"
    training = DiffusionTrainingConfig
    sampling = SamplerConfig
    own = ("past", "extrapolation", "text", "action")
    weight_fields = (
        "diffusion.network.num_layers",
        "diffusion.network.num_attention_heads",
        "diffusion.network.attention_head_dim",
    )
    costs = "wfm.families.diffusion.cost:cost"
    fit = "wfm.families.diffusion.fit:FITTING"
    draw = "wfm.families.diffusion.draw:DRAWING"
    variants = {"sampled": Variant("sample", "sampled"), "mean": Variant("mean", "one-step mean")}
    headline = "sampled"
    modes = ("sample", "mean")
    versions = {"network": 2, "fit": 2}

    def blocks(self, model: Any) -> "list[nn.Module]":
        """The transformer's blocks."""
        return list(model.network.blocks)

    def head(self, model: Any) -> "list[nn.Module]":
        """The last norm and the way out of the patches."""
        return [model.network.norm_out, model.network.proj_out]

    def weight_count(self, config: DiffusionTrainingConfig) -> float:
        """Layers times the square of the width."""
        network = config.diffusion.network
        return float(network.num_layers * network.width**2)

    def passes(self, sampling: SamplerConfig) -> int:
        """One a noise level, or two."""
        return sampling.steps * (2 if sampling.sampler in TWICE else 1)

    def layers(self, config: DiffusionTrainingConfig) -> int:
        """Transformer blocks."""
        return config.diffusion.network.num_layers

    def shown_motion(self, config: DiffusionTrainingConfig) -> bool:
        """`diffusion.extrapolate`."""
        return config.diffusion.extrapolate

    def problems(
        self,
        config: DiffusionTrainingConfig,
        tokenizer: "TokenizerCard | None",
        encoded: "EncodingConfig | None",
        source: str,
    ) -> Iterator[tuple[str, str]]:
        """What is stated and follows from the data; latents beyond what the network covers; given frames that do not fit."""
        field = f"{config.diffusion.objective}.condition_latents"
        counts = config.denoising.condition_latents
        if tokenizer is None or encoded is None:
            return
        network = {"in_channels": tokenizer.latent_channels, "concat_padding_mask": False}
        known = {
            "statistics_frames": encoded.statistics_frames,
            "temporal_compression": tokenizer.temporal_compression,
        }
        yield from misstated(config.diffusion.network, network, "diffusion.network")
        yield from misstated(config.diffusion, known, "diffusion")
        grid = encoded.grid(tokenizer)
        if grid is None:
            return
        covered = config.diffusion.network
        if any(here > most for here, most in zip(grid, covered.max_size, strict=True)):
            yield "diffusion.network.max_size", f"latents (t, h, w) are {grid}, cover them"
        if any(side % patch for side, patch in zip(grid, covered.patch_size, strict=True)):
            yield "diffusion.network.patch_size", f"latents (t, h, w) are {grid}, take divisors"
        if max(counts) >= grid[0]:
            yield field, f"a window has {grid[0]} latent frames, of which some are to be predicted"
        wanted = given_frames(counts, tokenizer)
        if config.diffusion.extrapolate and not encoded.extrapolate_from:
            yield "diffusion.extrapolate", f"{source}.extrapolate_from is 0, set it to the frames given"
        elif config.diffusion.extrapolate and wanted != [encoded.extrapolate_from]:
            yield field, f"that means {wanted} given frames; {source}.extrapolate_from is {encoded.extrapolate_from}"


def given_frames(counts: tuple[int, ...], tokenizer: "TokenizerCard") -> list[int]:
    """Video frames that so many given latent frames are, each number once, sorted."""
    return sorted({video_frames(count, tokenizer.temporal_compression) for count in counts})


FAMILY = DiffusionFamily()
