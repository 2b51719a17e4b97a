"""The configuration of the diffusion decoder. Torch-free."""

import math
from typing import ClassVar, Literal, Self

import pydantic

from wfm.config import Config
from wfm.models.diffusion.config import DenoiserConfig, DiffusionConfig


class DecoderConfig(Config):
    """A denoiser of continuous latents that is shown discrete tokens. `released` is Cosmos's."""

    FAMILY: ClassVar[str] = "diffusion_decoder"

    denoiser: DenoiserConfig = DenoiserConfig(
        network=DiffusionConfig(text_embed_dim=0, concat_padding_mask=False, rope_scale=(1.0, 1.0, 1.0))
    )
    "The transformer and what is around it: unconditional, as everything it is told comes with the tokens."
    levels: tuple[int, ...] = (8, 8, 8, 5, 5, 5)
    "FSQ levels of the discrete tokenizer."
    embedding: Literal["table", "codes"] = "table"
    """How tokens become channels: a learned row for each (Cosmos), or a linear layer over the codes that FSQ makes of it, for
    vocabularies too large to be learned row by row."""
    token_channels: int = pydantic.Field(32, ge=1)
    "Channels of the embedding (Cosmos's code: 32; its paper: 16)."
    mark_first: bool = False
    """One channel more says which latent frame is the video's first, which holds one frame and not many: a window cut from a
    longer video has none. (Cosmos: no.)"""
    linear_prior: bool = False
    "Denoise around the best linear guess from the tokens around, fitted in closed form before training. (Cosmos: no.)"

    @pydantic.model_validator(mode="after")
    def _fits(self) -> Self:
        if min(self.levels, default=0) < 2:
            raise ValueError(f"levels={self.levels}: each FSQ digit needs at least 2 levels")
        denoiser = self.denoiser
        if denoiser.hint_channels not in (0, self.hint_channels):
            raise ValueError(
                f"denoiser.hint_channels is {denoiser.hint_channels} and follows from the tokens: leave it 0"
            )
        needs = [name for name in ("repeat_last", "extrapolate", "linear_prior") if getattr(denoiser, name)]
        if needs or denoiser.network.condition_mask or denoiser.action_width or denoiser.conditions:
            raise ValueError(
                "denoiser: the decoder is given tokens alone; leave repeat_last, extrapolate, linear_prior, action_width, "
                "conditions and network.condition_mask off"
            )
        return self

    @property
    def vocabulary_size(self) -> int:
        """How many token ids there are."""
        return math.prod(self.levels)

    @property
    def hint_channels(self) -> int:
        """Channels that the network is shown beside the noisy latents."""
        return self.token_channels + self.mark_first

    @property
    def denoiser_config(self) -> DenoiserConfig:
        """The denoiser with what follows from the other fields filled in."""
        return DenoiserConfig.parse({**self.denoiser.resolved(), "hint_channels": self.hint_channels})

    @classmethod
    def released(cls) -> Self:
        """Cosmos's: the 7B text-to-world transformer, tokens of DV8x16x16 beside latents of CV8x8x8, padding mask kept."""
        network = DiffusionConfig(
            num_layers=28, num_attention_heads=32, attention_head_dim=128, rope_scale=(1.0, 1.5, 1.5)
        )
        return cls(denoiser=DenoiserConfig(network=network, fps_positions=True))
