"""The tokenizer's blocks over channels-last video `[B, T, H, W, C]` (Cosmos section 1.1), named as diffusers names them.

In reading order: norm, residual block, attention over space and over time, the middle, halving and doubling. Every
block takes a `Stream` and hands it on (see `convolution`).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wfm.models.tokenizer.convolution import (
    FactorisedConv,
    PointConv,
    SpatialConv,
    Stream,
    TemporalConv,
    opens,
    over_space,
    over_time,
    with_past,
)


class FrameNorm(nn.Module):
    """Norm of each frame over all its positions and channels (GroupNorm with one group), then gain and shift by
    channel: statistics never look ahead. With `silu` that activation follows."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, channels, eps=1e-6)

    def forward(self, x: Tensor, *, silu: bool = False) -> Tensor:
        y = self.norm(x.flatten(0, 1).permute(0, 3, 1, 2))
        y = y.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])
        return F.silu(y, inplace=not torch.is_grad_enabled()) if silu else y


class ResidualBlock(nn.Module):
    """norm, SiLU, convolution, twice, plus the input (through 1x1x1 where the width changes)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = FrameNorm(in_channels), FactorisedConv(in_channels, out_channels)
        self.norm2, self.conv2 = FrameNorm(out_channels), FactorisedConv(out_channels, out_channels)
        self.conv_shortcut = PointConv(in_channels, out_channels) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        y = self.conv1(self.norm1(x, silu=True), stream)
        y = self.conv2(self.norm2(y, silu=True), stream)
        return y.add_(self.conv_shortcut(x))


class FrameAttention(nn.Module):
    """Full attention among the positions of a frame: one head as wide as the channels, plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = FrameNorm(channels)
        self.to_q, self.to_k, self.to_v = (PointConv(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([PointConv(channels, channels)])

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        y = self.norm(x)
        q, k, v = (each(y).flatten(2, 3) for each in (self.to_q, self.to_k, self.to_v))  # [B, T, H W, C]
        mixed = F.scaled_dot_product_attention(q, k, v).unflatten(2, x.shape[2:4])  # frames stand where heads do
        return self.to_out[0](mixed).add_(x)


class CausalAttention(FrameAttention):
    """Attention of each position to itself in this frame and those before."""

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        y = self.norm(x)
        q, k, v = self.to_q(y), self.to_k(y), self.to_v(y)
        window = stream.attention_frames if stream is not None else 0
        if stream is not None:
            past = stream.recall(self)
            if past is not None:
                k, v = torch.cat([past[0], k], dim=1), torch.cat([past[1], v], dim=1)
            old = max(0, k.shape[1] - window + 1) if window else 0  # the next frame will not see these
            stream.keep(self, k[:, old:].clone() if old else k, v[:, old:].clone() if old else v)
        q, k, v = (each.flatten(2, 3).transpose(1, 2) for each in (q, k, v))  # [B, H W, T, C]
        mask = causal_mask(q.shape[2], k.shape[2], window, q.device) if q.shape[2] > 1 else None
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).unflatten(2, x.shape[2:4])
        return self.to_out[0](mixed).add_(x)


def causal_mask(queries: int, keys: int, window: int, device: torch.device) -> Tensor:
    """bool `[queries, keys]`: the queries are the last frames of the keys, and each sees itself and those before; of
    these the last `window`, itself counted, unless that is 0."""
    mask = torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)
    return mask.triu(keys - queries - window + 1) if window else mask


class Middle(nn.Module):
    """Block, attention over space and over time, block; `blocks` 0: nothing."""

    def __init__(self, channels: int, blocks: int, attention: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResidualBlock(channels, channels) for _ in range(blocks))
        self.attentions = nn.ModuleList([FrameAttention(channels)] if attention else [])
        self.temp_attentions = nn.ModuleList([CausalAttention(channels)] if attention else [])

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        for layer in (*self.resnets[:1], *self.attentions, *self.temp_attentions, *self.resnets[1:]):
            x = layer(x, stream)
        return x


class Downsample(nn.Module):
    """Halve space, then time: a strided convolution plus the mean of what it halves, each in one convolution, since the
    mean is one too; then 1x1x1."""

    def __init__(self, channels: int, *, space: bool, time: bool) -> None:
        super().__init__()
        self.conv1 = SpatialConv(channels, channels) if space else nn.Identity()
        self.conv2 = TemporalConv(channels) if time else nn.Identity()
        self.conv3 = PointConv(channels, channels) if space or time else nn.Identity()

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        if isinstance(self.conv1, SpatialConv):
            weight = plus_identity(self.conv1.weight[:, :, 0], [[0.25, 0.25, 0.0], [0.25, 0.25, 0.0], [0.0, 0.0, 0.0]])
            x = over_space(F.pad(x, (0, 0, 0, 1, 0, 1)), weight, self.conv1.bias, stride=2)
        if isinstance(self.conv2, TemporalConv):
            # frames (2j - 2, 2j - 1, 2j) make frame j; the mean is that of the last two
            weight = plus_identity(self.conv2.weight[..., 0], [[0.0], [0.5], [0.5]])
            x = over_time(with_past(x, self, stream, frames=1, repeats=2), weight, self.conv2.bias, stride=2)
        return self.conv3(x)


class Upsample(nn.Module):
    """Double time (but the first frame), then space: repeat, and add a convolution of that; then 1x1x1.

    Repeating, convolving and adding together are one transposed convolution with 4 taps an axis, which sees every
    input once: 4/6 of the products along time and 16/36 in space.
    """

    def __init__(self, channels: int, *, space: bool, time: bool) -> None:
        super().__init__()
        self.conv1 = TemporalConv(channels) if time else nn.Identity()
        self.conv2 = SpatialConv(channels, channels) if space else nn.Identity()
        self.conv3 = PointConv(channels, channels) if space or time else nn.Identity()

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        if isinstance(self.conv1, TemporalConv):
            weight = spread_taps(plus_identity(self.conv1.weight[..., 0], [[0.0], [0.0], [1.0]]), 2)
            y = with_past(x, self, stream, frames=1)
            y = F.conv_transpose2d(
                y.flatten(2, 3).permute(0, 3, 1, 2),
                weight.transpose(0, 1),
                self.conv1.bias,
                stride=(2, 1),
                padding=(2, 0),
            )
            x = y.permute(0, 2, 3, 1).unflatten(2, x.shape[2:4])[:, int(opens(stream)) :]
        if isinstance(self.conv2, SpatialConv):
            weight = plus_identity(self.conv2.weight[:, :, 0], [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
            weight = spread_taps(spread_taps(weight, 2), 3)
            y = F.conv_transpose2d(
                x.flatten(0, 1).permute(0, 3, 1, 2), weight.transpose(0, 1), self.conv2.bias, stride=2, padding=1
            )
            x = y.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])
        return self.conv3(x)


def plus_identity(weight: Tensor, taps: list[list[float]]) -> Tensor:
    """`weight [C, C, kh, kw]` plus `taps [kh, kw]` from each channel to itself."""
    eye = torch.eye(weight.shape[0], dtype=weight.dtype, device=weight.device)
    return weight + eye[:, :, None, None] * weight.new_tensor(taps)


def spread_taps(weight: Tensor, axis: int) -> Tensor:
    """The 4 taps of the transposed convolution by stride 2 that equals repeating each input twice along `axis` and
    convolving with the 3 taps of `weight`."""
    w0, w1, w2 = weight.split(1, dim=axis)
    return torch.cat([w2, w1 + w2, w0 + w1, w0], dim=axis)


class DownBlock(nn.Module):
    """Residual blocks of one level of the encoder, then halving (without parameters where nothing is halved)."""

    def __init__(self, in_channels: int, out_channels: int, blocks: int, *, space: bool, time: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            ResidualBlock(in_channels if index == 0 else out_channels, out_channels) for index in range(blocks)
        )
        self.downsamplers = nn.ModuleList([Downsample(out_channels, space=space, time=time)] if space or time else [])

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        for layer in (*self.resnets, *self.downsamplers):
            x = layer(x, stream)
        return x


class UpBlock(nn.Module):
    """Residual blocks of one level of the decoder, then doubling."""

    def __init__(self, in_channels: int, out_channels: int, blocks: int, *, space: bool, time: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            ResidualBlock(in_channels if index == 0 else out_channels, out_channels) for index in range(blocks)
        )
        self.upsamplers = nn.ModuleList([Upsample(out_channels, space=space, time=time)] if space or time else [])

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        for layer in (*self.resnets, *self.upsamplers):
            x = layer(x, stream)
        return x
