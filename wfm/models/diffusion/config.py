"""Configurations of the diffusion family: the network and its EDM objective. Torch-free."""

from typing import Self

import pydantic

from wfm.config import Config


class DiffusionConfig(Config):
    """The diffusion transformer; names follow diffusers' CosmosTransformer3DModel where it has the field."""

    in_channels: int = 16
    "Latent channels of the tokenizer."
    num_attention_heads: int = 4
    "Attention heads a block."
    attention_head_dim: int = 48
    "Width of one head, even and at least 6; the model's width is heads times this."
    num_layers: int = 6
    "Transformer blocks."
    mlp_ratio: float = 4.0
    "Hidden width of the feed-forward over the model's width."
    adaln_lora_dim: int = 64
    "Rank of the AdaLN-LoRA."
    patch_size: tuple[int, int, int] = (1, 2, 2)
    "Latent positions (t, h, w) folded into one token; t must be 1."
    max_size: tuple[int, int, int] = (16, 32, 32)
    "Largest grid of tokens (t, h, w) that the learned positions cover."
    rope_scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    "NTK extension of the rotary positions for (t, h, w)."
    rope_theta: float = 10000.0
    "Base of the rotary frequencies (Cosmos: 10000). On a grid of a few tokens a side a lower one tells places apart better."
    open_gates: bool = False
    "Start with the gates of all blocks at 1 and not near 0 (Cosmos): a short run cannot wait for them to open."
    action_width: int = 0
    "Components of the action vector; 0: no actions, every sample is conditioned on the learned null action."
    temporal_compression: int = 8
    "Video frames per latent frame after the first: how many actions lead to one latent frame."
    fps: float = 24.0
    "Frames a second of the training video [1/s]; with actions given as rates, one action acts for 1 / fps seconds."
    repeat_last: bool = True
    "Concatenate the last given latent frame to the input of every frame."
    extrapolate: bool = False
    "Show the network, and the prior, the latents of the past's constant-motion extrapolation (wfm.data.motion)."
    sigma_data: float = 0.5
    "Standard deviation that latents are normalised to."

    @pydantic.model_validator(mode="after")
    def _patch_keeps_frames(self) -> Self:
        if self.patch_size[0] != 1:
            raise ValueError(f"patch_size[0] is {self.patch_size[0]}; a token must not span latent frames, use 1")
        return self

    @property
    def width(self) -> int:
        """Width of the residual stream."""
        return self.num_attention_heads * self.attention_head_dim


class EDMConfig(Config):
    """The training objective (Karras et al. 2022, as in Cosmos section 5.1.1) and what of the past is given."""

    noise_mean: float = 0.0
    "Mean of ln sigma."
    noise_std: float = 1.0
    "Standard deviation of ln sigma."
    sigma_max: float = 80.0
    "Largest noise level; the one-step mean is the prediction from it."
    pure_noise_probability: float = 0.3
    "Share of samples trained at sigma_max itself, where the best prediction is the mean of all futures."
    condition_latents: tuple[int, ...] = (2,)
    "Numbers of given latent frames; each sample draws one of them. 9 video frames are 2 latents at compression 8."
    augment_mean: float = -4.0
    "Mean of ln sigma of the small noise put on the given latents."
    augment_std: float = 1.0
    "Standard deviation of the same."
    pixel_share: float = 0.0
    "How far errors count by channel as they count in pixels: 0 all channels alike (Cosmos), 1 by their variance."
    action_dropout: float = 0.1
    "Share of samples trained with the null action in place of their own."

    @pydantic.model_validator(mode="after")
    def _something_given(self) -> Self:
        if not self.condition_latents or min(self.condition_latents) < 0:
            raise ValueError(f"condition_latents is {self.condition_latents}; give at least one count, none negative")
        return self
