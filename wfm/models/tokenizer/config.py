"""Configuration of the video tokenizer. Torch-free."""

import math
from typing import Literal, Self

import pydantic

from wfm.config import Config


class TokenizerConfig(Config):
    """One causal video autoencoder; with `levels`, its latents are quantised to tokens."""

    temporal_compression: int = 8
    "Frames per latent frame after the first."
    spatial_compression: int = 8
    "Pixels per latent position along each side."
    latent_channels: int = 16
    "Channels of the latents; with `levels` this must be their number."
    levels: tuple[int, ...] = ()
    "FSQ levels of each channel, such as (8, 8, 8, 5, 5, 5) for 64,000 tokens; empty: continuous latents."
    hidden: int = 192
    "Width of the residual networks, which work at the latents' resolution."
    encoder_blocks: int = 1
    "Residual blocks of the encoder."
    decoder_blocks: int = 3
    "Residual blocks of the decoder."

    @pydantic.model_validator(mode="after")
    def _levels_fit(self) -> Self:
        if self.levels and len(self.levels) != self.latent_channels:
            raise ValueError(f"latent_channels is {self.latent_channels}, levels has {len(self.levels)} entries")
        if any(level < 2 for level in self.levels):
            raise ValueError(f"levels is {self.levels}; each must be at least 2")
        return self

    @property
    def discrete(self) -> bool:
        """Whether latents are quantised to tokens."""
        return bool(self.levels)

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens; 0 for a continuous tokenizer."""
        return math.prod(self.levels) if self.levels else 0

    def latent_frames(self, frames: int) -> int:
        """Latent frames of a video of `frames` frames. Raises ValueError unless frames = 1 + temporal_compression *
        n."""
        if frames < 1 or (frames - 1) % self.temporal_compression:
            c = self.temporal_compression
            raise ValueError(f"{frames} frames; a tokenizer of temporal compression {c} takes 1 + {c}n")
        return 1 + (frames - 1) // self.temporal_compression


class ReconstructionConfig(Config):
    """Weights of the reconstruction loss."""

    error: Literal["l2", "l1"] = "l2"
    "Pixel error: squared (what PSNR measures), or absolute (Cosmos stage 1)."
    gradient_weight: float = 0.0
    "Weight of the same error of neighbouring pixels' differences: sharper edges."
