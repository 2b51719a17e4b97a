"""Configuration of the tokenizers: one class, from the demo's few layers to Cosmos's 105M. Torch-free."""

import math
from typing import ClassVar, Literal, Self

import pydantic

from wfm.config import Config, Count, Natural

MAX_LEVELS = 1 << 20
"""Most FSQ levels of one channel: that many fp32 still tells apart with room for rounding."""


class TokenizerConfig(Config):
    """One autoencoder of video or images; with `levels`, its latents are quantised to tokens. The defaults are
    Cosmos's CV8x8x8."""

    FAMILY: ClassVar[str] = "tokenizer"

    dimensions: Literal[2, 3] = 3
    "3: video, causal in time. 2: images; a video is then encoded frame by frame."
    in_channels: int = 3
    "Channels of a frame: 3 for colour, more for depth or spectral bands."
    temporal_compression: int = 8
    "Frames per latent frame after the first, a power of two; 1 for images."
    spatial_compression: int = 8
    "Pixels per latent position along each side, a power of two."
    patch_size: int = 4
    "Side of the Haar patches, in time too for video, a power of two; what they leave of the compression the levels do."
    channels: tuple[int, ...] = (128, 256, 512, 512)
    "Width after the first convolution, then of each level of the encoder; the decoder mirrors the levels."
    encoder_blocks: Natural = 2
    "Residual blocks of each level of the encoder."
    decoder_blocks: Natural = 3
    "Residual blocks of each level of the decoder."
    mid_blocks: Literal[0, 2] = 2
    "Residual blocks of the middle, at the latents' resolution, on both sides."
    mid_attention: bool = True
    "Attention between the two blocks of the middle: over each frame, then back in time."
    end_kernel: Literal[1, 3] = 3
    "Kernel of the first and last convolutions. 1 suits patches as large as a latent position, where 3 would be the "
    "greater part of the network."
    latent_channels: Count = 16
    "Channels of the latents; with `levels` this must be their number."
    z_channels: Count = 16
    "Width between the networks and the 1x1x1 convolutions on either side of the latents."
    levels: tuple[int, ...] = ()
    "FSQ levels of each channel, such as (8, 8, 8, 5, 5, 5) for 64,000 tokens; empty: continuous latents."
    linear_code: bool = False
    "A linear code of the patches of whole latent positions runs beside the networks, whose last layers start at zero: "
    "started from principal components it is a good tokenizer before training. Not in Cosmos."

    @pydantic.model_validator(mode="after")
    def _levels_fit(self) -> Self:
        if self.levels and len(self.levels) != self.latent_channels:
            raise ValueError(f"latent_channels is {self.latent_channels}, levels has {len(self.levels)} entries")
        if any(not 2 <= level <= MAX_LEVELS for level in self.levels):
            raise ValueError(
                f"levels is {self.levels}; each must be at least 2, and at most {MAX_LEVELS:,} (fp32's limit)"
            )
        if math.prod(self.levels) > 2**63:
            raise ValueError(
                f"levels {self.levels} make {math.prod(self.levels):.1e} tokens; ids end at 2^63 (about 9e18)"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        for name in ("temporal_compression", "spatial_compression", "patch_size"):
            value = getattr(self, name)
            if value < 1 or value & (value - 1):
                raise ValueError(f"{name} is {value}; it must be a power of two")
        for name in ("in_channels", "latent_channels", "z_channels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("encoder_blocks", "decoder_blocks"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative")
        if len(self.channels) < 2 or min(self.channels) < 1:
            raise ValueError(f"channels is {self.channels}; give the first width and at least one level, all positive")
        for name, blocks in (("encoder_blocks", self.encoder_blocks), ("decoder_blocks", self.decoder_blocks)):
            widths = self.channels if name == "encoder_blocks" else self.channels[1:]
            if not blocks and len(set(widths)) > 1:
                raise ValueError(f"{name} is 0, so nothing changes the width; channels {self.channels} must be equal")
        if self.mid_attention and not self.mid_blocks:
            raise ValueError(
                "mid_attention needs the middle it stands in: set mid_blocks to 2, or mid_attention to false"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _compression_is_reached(self) -> Self:
        if self.patch_size > self.spatial_compression:
            raise ValueError(f"patch_size {self.patch_size} exceeds spatial_compression {self.spatial_compression}")
        if self.dimensions == 2:
            return self._image_fits()
        if self.patch_size > self.temporal_compression:
            raise ValueError(f"patch_size {self.patch_size} exceeds temporal_compression {self.temporal_compression}")
        steps = range(len(self.channels) - 1)
        wanted = (self._halvings(self.spatial_compression), self._halvings(self.temporal_compression))
        for side, resampled in (("encoder", self.halved), ("decoder", self.doubled)):
            found = tuple(sum(resampled(level)[axis] for level in steps) for axis in (0, 1))
            if found != wanted:
                raise ValueError(
                    f"channels {self.channels} give the {side} {found} spatial and temporal steps of 2, but compression "
                    f"{self.spatial_compression} and {self.temporal_compression} with patch_size {self.patch_size} "
                    f"need {wanted}: use more levels or larger patches"
                )
        return self

    def _image_fits(self) -> Self:
        if self.temporal_compression != 1:
            raise ValueError(f"temporal_compression is {self.temporal_compression}; images (dimensions 2) have 1")
        if self.linear_code:
            raise ValueError("linear_code is for video (dimensions 3)")
        if self.end_kernel != 3:
            raise ValueError(f"end_kernel is {self.end_kernel}; images (dimensions 2) have 3")
        if self._halvings(self.spatial_compression) > len(self.channels) - 1:
            raise ValueError(
                f"channels {self.channels} have {len(self.channels) - 1} levels, but spatial_compression "
                f"{self.spatial_compression} with patch_size {self.patch_size} needs "
                f"{self._halvings(self.spatial_compression)}"
            )
        if any(width % 32 for width in self.channels):
            raise ValueError(
                f"channels is {self.channels}; images (dimensions 2) have norms of 32 groups: use multiples"
            )
        return self

    def _halvings(self, compression: int) -> int:
        return int(math.log2(compression // self.patch_size))

    def halved(self, level: int) -> tuple[bool, bool]:
        """Whether level `level` of the encoder ends by halving (space, time). The last of a video's never does."""
        space, time = self._halvings(self.spatial_compression), 0
        if self.dimensions == 2:
            return level < space, False
        time = self._halvings(self.temporal_compression)
        last = level == len(self.channels) - 2
        return level < space and not last, level < time and not last

    def doubled(self, level: int) -> tuple[bool, bool]:
        """Whether level `level` of the decoder, counted from the latents, ends by doubling (space, time).

        This is the released models' rule, not the encoder's mirror: time is never doubled in the first level.
        """
        space = self._halvings(self.spatial_compression)
        if self.dimensions == 2:
            return level < space, False
        if level == len(self.channels) - 2:
            return False, False
        time = self._halvings(self.temporal_compression)
        doubles_time = 0 < level < time + 1
        return doubles_time or (level < space and space > time), doubles_time

    @property
    def discrete(self) -> bool:
        """Whether latents are quantised to tokens."""
        return bool(self.levels)

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens; 0 for a continuous tokenizer."""
        return math.prod(self.levels) if self.levels else 0

    def latent_frames(self, frames: int) -> int:
        """Latent frames of a video of `frames` frames. Raises ValueError, naming the nearest that fit, unless frames
        = 1 + temporal_compression * n."""
        c = self.temporal_compression
        if frames < 1 or (frames - 1) % c:
            below = 1 + (frames - 1) // c * c
            nearest = f"{below} or {below + c}" if frames > 1 else "1"
            raise ValueError(
                f"{frames} frames; a tokenizer of temporal compression {c} takes 1 + {c}n: nearest are {nearest}"
            )
        return 1 + (frames - 1) // c
