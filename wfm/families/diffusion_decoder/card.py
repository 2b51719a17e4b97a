"""The card of the diffusion decoder: its configs and labels. Torch-free."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from wfm.config import Natural
from wfm.models.diffusion.config import DenoiserConfig, DiffusionConfig, EDMConfig
from wfm.models.diffusion_decoder.config import DecoderConfig
from wfm.models.family import FAMILIES, Family
from wfm.models.parallel_config import ParallelConfig
from wfm.registry import Named
from wfm.training.config import DecoderTraining, TrainingConfig

if TYPE_CHECKING:
    from torch import nn


class DecoderTrainingConfig(DecoderTraining):
    """What a diffusion decoder is and how it learns. Fields that follow from the data (latent channels, columns of the
    statistics, FSQ levels) are filled in from the latents and the tokenizers."""

    family: Annotated[Literal["diffusion_decoder"], Named(FAMILIES, "fit")] = "diffusion_decoder"
    model: DecoderConfig = DecoderConfig(
        denoiser=DenoiserConfig(
            network=DiffusionConfig(
                text_embed_dim=0,
                concat_padding_mask=False,
                adaln_lora_dim=64,
                max_size=(16, 64, 64),
                rope_scale=(1.0, 1.0, 1.0),
                zero_output=True,
            ),
        ),
        embedding="codes",
        mark_first=True,
        linear_prior=True,
    )
    "The denoiser and the tokens it is shown."
    objective: EDMConfig = EDMConfig(
        condition_latents=(0,), text_dropout=0.2, pixel_share=1.0, pure_noise_probability=0.3
    )
    "Its objective; `text_dropout` is the share of samples that are told nothing."
    training: TrainingConfig = TrainingConfig()
    "Steps, batch and optimiser."
    parallel: ParallelConfig = ParallelConfig()
    "Activation checkpointing and compiled blocks of the transformer."
    validation_windows: Natural = 32
    "Windows of the val split that are watched; 0: all."


class DecoderFamily(Family):
    """A denoiser of continuous latents that is shown discrete tokens."""

    name = "diffusion_decoder"
    makes = "decoder"
    title = "Diffusion decoder"
    config = DecoderConfig
    network = "wfm.models.diffusion_decoder.network:DiffusionDecoder"
    training = DecoderTrainingConfig
    weight_fields = ("model.denoiser.network.num_layers",)
    fit = "wfm.families.diffusion_decoder.fit:open_decoder"
    draw = "wfm.families.diffusion_decoder.draw:TokenDecoder"

    def blocks(self, model: Any) -> "list[nn.Module]":
        """The transformer's blocks."""
        return list(model.network.blocks)

    def weight_count(self, config: DecoderTrainingConfig) -> float:
        """Layers times the square of the width."""
        network = config.model.denoiser.network
        return float(network.num_layers * network.width**2)


FAMILY = DecoderFamily()
