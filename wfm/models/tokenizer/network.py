"""The tokenizer network: a linear code of causal patches plus residual networks that start as no-ops.

    encode   latents = linear(patches) + networks(patches)           -> FSQ, when `levels` are given
    decode   patches = linear(latents) + networks(latents)

Both networks work at the latents' resolution, so that a block costs one convolution of h x w positions per latent
frame. Their blocks are Cosmos's (section 1.1): causal factorised convolutions (1x3x3, then 3x1x1 padded with the
first frame), norms per frame. Their last layers start at zero: at step 0 the tokenizer is the best linear one, and
training can only look for what that misses.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wfm.errors import ConfigError
from wfm.models.tokenizer.config import TokenizerConfig
from wfm.models.tokenizer.patches import LinearCode, cut, join, patch_moments
from wfm.models.tokenizer.quantizer import FiniteScalarQuantizer


class CausalConv3d(nn.Module):
    """1x3x3 then 3x1x1, the latter padded in front by repeating the first frame. `[B, C, t, h, w]` -> the same grid.

    Both run as 2-D or linear products over folded axes, which is several times faster than conv3d on a CPU.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv_s = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv_t = nn.Conv1d(out_channels, out_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, frames = x.shape[:3]
        y = self.conv_s(x.transpose(1, 2).flatten(0, 1))  # [B t, C, h, w]
        y = y.unflatten(0, (batch, frames)).permute(0, 3, 4, 1, 2)  # [B, h, w, t, C]
        y = torch.cat([y[..., :1, :], y[..., :1, :], y], dim=-2)
        weight, bias = self.conv_t.weight, self.conv_t.bias  # [C, C, 3], [C]
        assert bias is not None
        out = F.linear(
            torch.cat([y[..., k : k + frames, :] for k in range(3)], dim=-1), weight.permute(0, 2, 1).flatten(1)
        )
        return (out + bias).permute(0, 4, 3, 1, 2)


class FrameNorm(nn.Module):
    """GroupNorm with one group over each frame alone (Cosmos `CausalNormalize`): statistics never look ahead."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        folded = self.norm(x.transpose(1, 2).flatten(0, 1))
        return folded.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)


class ResidualBlock(nn.Module):
    """norm, SiLU, convolution, twice, plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = FrameNorm(channels), FrameNorm(channels)
        self.conv1, self.conv2 = CausalConv3d(channels, channels), CausalConv3d(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(y)))


class ResidualNetwork(nn.Module):
    """Patches or codes of both kinds in, corrections of both kinds out; zero at the start. Channels last on both
    sides."""

    def __init__(self, first_in: int, later_in: int, first_out: int, later_out: int, hidden: int, blocks: int) -> None:
        super().__init__()
        self.first_in, self.later_in = nn.Linear(first_in, hidden), nn.Linear(later_in, hidden)
        self.blocks = nn.ModuleList(ResidualBlock(hidden) for _ in range(blocks))
        self.norm_out = FrameNorm(hidden)
        self.first_out, self.later_out = nn.Linear(hidden, first_out), nn.Linear(hidden, later_out)
        for linear in (self.first_out, self.later_out):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, first: Tensor, later: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.cat([self.first_in(first), self.later_in(later)], dim=1).permute(0, 4, 1, 2, 3)  # [B, d, t, h, w]
        for block in self.blocks:
            x = block(x)
        x = F.silu(self.norm_out(x)).permute(0, 2, 3, 4, 1)
        return self.first_out(x[:, :1]), self.later_out(x[:, 1:])


class Tokenizer(nn.Module):
    """Video `[B, 3, 1 + ct n, H, W]` in [-1, 1] <-> latents `[B, C, 1 + n, H / s, W / s]` or tokens int64 `[B, 1 +
    n, ...]`."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        c, s, k = config.temporal_compression, config.spatial_compression, config.latent_channels
        first, later = 3 * s * s, 3 * c * s * s
        self.first_code, self.later_code = LinearCode(first, k), LinearCode(later, k)
        self.encoder = ResidualNetwork(first, later, k, k, config.hidden, config.encoder_blocks)
        self.decoder = ResidualNetwork(k, k, first, later, config.hidden, config.decoder_blocks)
        self.quantizer = FiniteScalarQuantizer(config.levels) if config.discrete else None

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens; 0 for a continuous tokenizer."""
        return self.config.vocabulary_size

    @torch.no_grad()
    def start(self, videos: Sequence[Tensor]) -> None:
        """Fit the linear codes to the principal components of the patches of `videos`, batches `[B, 3, T, H, W]`.

        A discrete tokenizer's linear decoder is then fitted again, to the codes after quantisation.
        """
        config = self.config
        first, later = patch_moments(videos, config.temporal_compression, config.spatial_compression)
        if not first.count or not later.count:
            raise ConfigError(
                "tokenizer start: no patches given; pass videos of at least 1 + temporal_compression frames"
            )
        self.first_code.start(first.mean(), first.covariance(), whiten=config.discrete)
        self.later_code.start(later.mean(), later.covariance(), whiten=config.discrete)
        if self.quantizer is None:
            return
        cuts = [cut(video, config.temporal_compression, config.spatial_compression) for video in videos]
        for code, kind in ((self.first_code, 0), (self.later_code, 1)):
            patches = torch.cat([pair[kind].flatten(0, 3) for pair in cuts])
            code.refit_decoder(self.quantizer(code.encode(patches)), patches)

    def encode(self, video: Tensor) -> Tensor:
        """Latents; for a discrete tokenizer the quantised codes in [-1, 1]."""
        first, later = cut(video, self.config.temporal_compression, self.config.spatial_compression)
        first_fix, later_fix = self.encoder(first, later)
        latents = torch.cat(
            [self.first_code.encode(first) + first_fix, self.later_code.encode(later) + later_fix], dim=1
        )
        latents = latents.permute(0, 4, 1, 2, 3)  # [B, C, t, h, w]
        return latents if self.quantizer is None else self.quantizer(latents)

    def decode(self, latents: Tensor) -> Tensor:
        """Video, not clamped; the first frame from the first latent frame alone."""
        codes = latents.permute(0, 2, 3, 4, 1)
        first, later = codes[:, :1], codes[:, 1:]
        first_fix, later_fix = self.decoder(first, later)
        return join(
            self.first_code.decode(first) + first_fix,
            self.later_code.decode(later) + later_fix,
            self.config.temporal_compression,
            self.config.spatial_compression,
        )

    def forward(self, video: Tensor) -> Tensor:
        """The reconstruction."""
        return self.decode(self.encode(video))

    def tokens(self, video: Tensor) -> Tensor:
        """Token ids int64 `[B, t, h, w]`. Raises ConfigError for a continuous tokenizer."""
        return self._quantizer().tokens(self.encode(video))

    def decode_tokens(self, ids: Tensor) -> Tensor:
        """Video of token ids `[B, t, h, w]`."""
        return self.decode(self._quantizer().codes(ids).to(self.first_code.decoder.weight.dtype))

    def _quantizer(self) -> FiniteScalarQuantizer:
        if self.quantizer is None:
            raise ConfigError(
                "this tokenizer is continuous; train one with levels, such as (8, 8, 8, 5, 5, 5), for tokens"
            )
        return self.quantizer
