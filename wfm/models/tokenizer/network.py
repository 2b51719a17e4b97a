"""The tokenizer network: Cosmos's encoder and decoder, from the demo's size to the published ones.

    encode   video -> Haar patches -> levels -> middle -> quant_conv -> latents        -> FSQ, when `levels` are given
    decode   latents -> post_quant_conv -> middle -> levels -> Haar patches -> video

Inside, everything is channels-last `[B, T, H, W, C]`. Parameter names are those of diffusers' AutoencoderKLCosmos;
images (dimensions 2) go through the same networks made of the layers in `image`. With `linear_code` a linear code of
the patches of whole latent positions (`patches`) is added on both sides and the networks start as no-ops: at step 0
the tokenizer is the best linear one, and training can only look for what that misses.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wfm.errors import ConfigError, DataError
from wfm.models.tokenizer.blocks import DownBlock, FrameNorm, Layer, Middle, UpBlock
from wfm.models.tokenizer.config import TokenizerConfig
from wfm.models.tokenizer.convolution import FactorisedConv, HaarAnalysis, HaarSynthesis, PointConv, Stream, opens
from wfm.models.tokenizer.image import (
    ImageAnalysis,
    ImageConv,
    ImageDownBlock,
    ImageMiddle,
    ImageNorm,
    ImagePoint,
    ImageSynthesis,
    ImageUpBlock,
)
from wfm.models.tokenizer.patches import LinearCode, cut, join, patch_moments
from wfm.models.tokenizer.quantizer import FiniteScalarQuantizer
from wfm.parallel.attention import under_autocast, without_autocast


class Kinds(NamedTuple):
    """The layers that networks of some dimensions are made of."""

    analysis: Layer
    synthesis: Callable[..., HaarSynthesis | ImageSynthesis]
    conv: Layer
    point: Callable[..., PointConv | ImagePoint]
    norm: Layer
    middle: Layer
    down: Layer
    up: Layer


KINDS = {
    3: Kinds(HaarAnalysis, HaarSynthesis, FactorisedConv, PointConv, FrameNorm, Middle, DownBlock, UpBlock),
    2: Kinds(
        ImageAnalysis, ImageSynthesis, ImageConv, ImagePoint, ImageNorm, ImageMiddle, ImageDownBlock, ImageUpBlock
    ),
}


def haar_options(config: TokenizerConfig) -> dict[str, bool]:
    """Beside a linear code, which works on pixels, coefficients are as large as pixels. Cosmos's scale makes those of a
    patch of 8^3 22 times smaller, on which the networks learn more slowly."""
    return {"orthonormal": True} if config.linear_code else {}


class Encoder(nn.Module):
    """Video `[B, C, T, H, W]` -> `[B, t, h, w, z_channels]`."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        kinds, widths = KINDS[config.dimensions], config.channels
        self.conv_in = kinds.analysis(
            config.in_channels, widths[0], config.patch_size, config.end_kernel, **haar_options(config)
        )
        self.down_blocks = nn.ModuleList()
        for level, (width, wider) in enumerate(pairwise(widths)):
            space, time = config.halved(level)
            self.down_blocks.append(kinds.down(width, wider, config.encoder_blocks, space=space, time=time))
        self.mid_block = kinds.middle(widths[-1], config.mid_blocks, config.mid_attention)
        self.norm_out = kinds.norm(widths[-1])
        self.conv_out = kinds.conv(widths[-1], config.z_channels, config.end_kernel)

    def forward(self, video: Tensor, stream: Stream | None = None) -> Tensor:
        x = self.conv_in(video, stream)
        for block in self.down_blocks:
            x = block(x, stream)
        return self.conv_out(self.norm_out(self.mid_block(x, stream), silu=True), stream)


class Decoder(nn.Module):
    """`[B, t, h, w, z_channels]` -> video `[B, C, T, H, W]`."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        kinds = KINDS[config.dimensions]
        widths = (config.channels[-1], *reversed(config.channels[1:]))  # the first level keeps the middle's width
        self.conv_in = kinds.conv(config.z_channels, widths[0], config.end_kernel)
        self.mid_block = kinds.middle(widths[0], config.mid_blocks, config.mid_attention)
        self.up_blocks = nn.ModuleList()
        for level, (width, narrower) in enumerate(pairwise(widths)):
            space, time = config.doubled(level)
            self.up_blocks.append(kinds.up(width, narrower, config.decoder_blocks, space=space, time=time))
        self.norm_out = kinds.norm(widths[-1])
        self.conv_out = kinds.synthesis(
            widths[-1], config.in_channels, config.patch_size, config.end_kernel, **haar_options(config)
        )

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        x = self.mid_block(self.conv_in(x, stream), stream)
        for block in self.up_blocks:
            x = block(x, stream)
        return self.conv_out(self.norm_out(x, silu=True), stream)


class Tokenizer(nn.Module):
    """Video `[B, C, 1 + ct n, H, W]` in [-1, 1] <-> latents `[B, K, 1 + n, H / s, W / s]` or tokens int64 `[B, 1 +
    n, ...]`. For images (dimensions 2) ct is 1: every frame is a picture of its own."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        point = KINDS[config.dimensions].point
        self.quant_conv = point(config.z_channels, config.latent_channels)
        self.post_quant_conv = point(config.latent_channels, config.z_channels)
        if config.linear_code:
            first = config.in_channels * config.spatial_compression**2
            self.first_code = LinearCode(first, config.latent_channels)
            self.later_code = LinearCode(first * config.temporal_compression, config.latent_channels)
            for last in (self.quant_conv, self.decoder.conv_out.last):
                for parameter in last.parameters():
                    nn.init.zeros_(parameter)
        self.quantizer = FiniteScalarQuantizer(config.levels) if config.discrete else None

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens; 0 for a continuous tokenizer."""
        return self.config.vocabulary_size

    @torch.no_grad()
    def start(self, videos: Sequence[Tensor]) -> None:
        """Fit the linear codes to the principal components of the patches of `videos`, batches `[B, C, T, H, W]`.

        A discrete tokenizer's linear decoder is then fitted again, to the codes after quantisation. Without
        `linear_code` there is nothing to start. Raises ConfigError when there are no patches.
        """
        if not self.config.linear_code:
            return
        with without_autocast(self.quant_conv.weight):  # the eigenvectors of rounded moments are others
            self._start(videos)

    def _start(self, videos: Sequence[Tensor]) -> None:
        config = self.config
        first, later = patch_moments(
            videos, config.in_channels, config.temporal_compression, config.spatial_compression
        )
        if not first.count or not later.count:
            raise ConfigError(
                "tokenizer start: no patches given; pass videos of at least 1 + temporal_compression frames"
            )
        self.first_code.start(first.mean(), first.covariance(), whiten=config.discrete)
        self.later_code.start(later.mean(), later.covariance(), whiten=config.discrete)
        if self.quantizer is None:
            return
        own = self.quant_conv.weight.dtype
        cuts = [cut(video.to(own), config.temporal_compression, config.spatial_compression) for video in videos]
        for code, kind in ((self.first_code, 0), (self.later_code, 1)):
            patches = torch.cat([pair[kind].flatten(0, 3) for pair in cuts])
            code.refit_decoder(self.quantizer(code.encode(patches)), patches)

    def encode(
        self, video: Tensor, *, pad: bool = False, stream: Stream | None = None, quantise: bool = True
    ) -> Tensor:
        """Latents; for a discrete tokenizer the quantised codes in [-1, 1], unless `quantise` is false.

        `pad` repeats the last frame up to the next number of frames that fits; otherwise such a video is refused.
        `stream`: `video` is the next group of frames of a longer one, see `convolution.Stream`.
        """
        video = self._fitted(video, pad, stream)
        if stream is not None:
            stream.begin()
        latents = self.quant_conv(self.encoder(video, stream))
        if self.config.linear_code:
            latents = latents + self._linear_latents(video, stream)
        if stream is not None:
            stream.advance()
        latents = latents.permute(0, 4, 1, 2, 3).contiguous()  # [B, K, t, h, w]
        return latents if self.quantizer is None or not quantise else self.quantizer(latents)

    def decode(self, latents: Tensor, *, stream: Stream | None = None) -> Tensor:
        """Video, not clamped; the first frame from the first latent frame alone. `stream` as in `encode`."""
        if latents.ndim != 5 or latents.shape[1] != self.config.latent_channels or not latents.numel():
            raise ConfigError(
                f"latents of shape {list(latents.shape)}: this tokenizer decodes [B, {self.config.latent_channels}, t, h, w]"
            )
        self._require_dtype("latents", latents)
        if stream is not None:
            stream.begin()
        codes = latents.permute(0, 2, 3, 4, 1).contiguous()
        video = self.decoder(self.post_quant_conv(codes), stream)
        if self.config.linear_code:
            video = video + self._linear_video(codes, stream)
        if stream is not None:
            stream.advance()
        return video

    def forward(self, video: Tensor) -> Tensor:
        """The reconstruction."""
        return self.decode(self.encode(video))

    def tokens(self, video: Tensor, *, pad: bool = False, stream: Stream | None = None) -> Tensor:
        """Token ids int64 `[B, t, h, w]`; arguments as in `encode`. They come from the latents, and so are those of fp32
        whatever type codes have. Raises ConfigError for a continuous tokenizer, DataError for latents that are NaN."""
        quantizer = self._quantizer()
        latents = self.encode(video, pad=pad, stream=stream, quantise=False)
        if latents.isnan().any():
            raise DataError("latents: NaN, which is no token; the video or the tokenizer's weights are not finite")
        return quantizer.latent_tokens(latents)

    def decode_tokens(self, ids: Tensor, *, stream: Stream | None = None) -> Tensor:
        """Video of token ids `[B, t, h, w]`, integers in [0, vocabulary_size). Raises ConfigError for anything else, which
        would decode as some other token."""
        quantizer = self._quantizer()
        if ids.ndim != 4 or ids.is_floating_point() or not ids.numel():
            raise ConfigError(f"token ids {ids.dtype} {list(ids.shape)}: wanted integers [B, t, h, w]")
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= self.vocabulary_size:
            raise ConfigError(f"token ids from {low} to {high}: this tokenizer's are 0 to {self.vocabulary_size - 1}")
        return self.decode(quantizer.codes(ids).to(self.quant_conv.weight.dtype), stream=stream)

    def _linear_latents(self, video: Tensor, stream: Stream | None) -> Tensor:
        first, later = cut(
            video, self.config.temporal_compression, self.config.spatial_compression, opening=opens(stream)
        )
        parts = [self.first_code.encode(first)] if opens(stream) else []
        return torch.cat([*parts, self.later_code.encode(later)], dim=1)

    def _linear_video(self, codes: Tensor, stream: Stream | None) -> Tensor:
        c, s = self.config.temporal_compression, self.config.spatial_compression
        opening = int(opens(stream))
        return join(self.first_code.decode(codes[:, :opening]), self.later_code.decode(codes[:, opening:]), c, s)

    def _fitted(self, video: Tensor, pad: bool, stream: Stream | None) -> Tensor:
        """`video` of a size that fits, or ConfigError."""
        config = self.config
        fits = video.ndim == 5 and video.shape[0] > 0 and video.shape[1] == config.in_channels
        if not (fits and video.is_floating_point()):
            raise ConfigError(
                f"video {str(video.dtype).removeprefix('torch.')} {list(video.shape)}: this tokenizer takes floating point "
                f"[B, {config.in_channels}, T, H, W] in [-1, 1]"
            )
        self._require_dtype("video", video)
        frames, *sides = video.shape[2:]
        for name, side in zip(("height", "width"), sides, strict=True):
            s = config.spatial_compression
            if side < s or side % s:
                near = f"{max(side // s, 1) * s} or {(side // s + 1) * s}" if side > s else str(s)
                raise ConfigError(f"{name} {side}: must be a multiple of spatial_compression {s}; nearest: {near}")
        ahead = 0 if opens(stream) else 1  # later groups of a stream lack the frame that every video starts with
        missing = -(frames + ahead - 1) % config.temporal_compression
        if frames and missing and pad:
            return torch.cat([video, video[:, :, -1:].expand(-1, -1, missing, -1, -1)], dim=2)
        if not frames or missing:
            try:
                config.latent_frames(frames + ahead)
            except ValueError as error:
                more = " (a first frame counted, as this group continues a stream)" if ahead else ""
                raise ConfigError(f"{error}{more}; or pass pad=True, which repeats the last frame") from None
        return video

    def _require_dtype(self, name: str, x: Tensor) -> None:
        own = self.quant_conv.weight.dtype
        if x.dtype != own and not (x.is_floating_point() and under_autocast(x)):
            raise ConfigError(f"{name}: {x.dtype} given to a tokenizer in {own}; convert one of them")

    def _quantizer(self) -> FiniteScalarQuantizer:
        if self.quantizer is None:
            raise ConfigError(
                "this tokenizer is continuous; train one with levels, such as (8, 8, 8, 5, 5, 5), for tokens"
            )
        return self.quantizer
