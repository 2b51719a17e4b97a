"""The tokenizer's blocks over channels-last video `[B, T, H, W, C]` (Cosmos section 1.1), named as diffusers names them.

In reading order: norm, residual block, attention over space and over time, the middle, halving and doubling. Every
block takes a `Stream` and hands it on (see `convolution`).
"""

from collections.abc import Callable, Iterable
from typing import ClassVar

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

Layer = Callable[..., nn.Module]


class FrameNorm(nn.Module):
    """Norm of each frame over all its positions and channels (GroupNorm with one group), then gain and shift by
    channel: statistics never look ahead. With `silu` that activation follows."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, channels, eps=1e-6)

    def forward(self, x: Tensor, *, silu: bool = False) -> Tensor:
        return normed(x, self.norm, silu)


def normed(x: Tensor, norm: nn.GroupNorm, silu: bool) -> Tensor:
    """`norm` of every frame of `[B, T, H, W, C]`, then SiLU if asked for."""
    y = F.group_norm(x.flatten(0, 1).permute(0, 3, 1, 2), norm.num_groups, norm.weight, norm.bias, norm.eps)
    y = y.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])
    return F.silu(y, inplace=not torch.is_grad_enabled()) if silu else y


class ResidualBlock(nn.Module):
    """norm, SiLU, convolution, twice, plus the input (through 1x1x1 where the width changes)."""

    norm: ClassVar[Layer] = FrameNorm
    conv: ClassVar[Layer] = FactorisedConv
    point: ClassVar[Layer] = PointConv

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = self.norm(in_channels), self.conv(in_channels, out_channels)
        self.norm2, self.conv2 = self.norm(out_channels), self.conv(out_channels, out_channels)
        self.conv_shortcut = self.point(in_channels, out_channels) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        y = self.conv1(self.norm1(x, silu=True), stream)
        y = self.conv2(self.norm2(y, silu=True), stream)
        return y.add_(self.conv_shortcut(x))


class FrameAttention(nn.Module):
    """Full attention among the positions of a frame: one head as wide as the channels, plus the input."""

    kinds: ClassVar[tuple[Layer, Layer]] = (FrameNorm, PointConv)

    def __init__(self, channels: int) -> None:
        super().__init__()
        norm, point = self.kinds
        self.norm = norm(channels)
        self.to_q, self.to_k, self.to_v = (point(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([point(channels, channels)])

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


class Layers(nn.Module):
    """Layers one after the other, each handed the stream. The children of a subclass are lists of such layers."""

    def order(self) -> Iterable[nn.Module]:
        """The layers in the order of work."""
        return (layer for layers in self.children() for layer in layers.children())

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        for layer in self.order():
            x = layer(x, stream)
        return x


class Middle(Layers):
    """Block, attention over space and over time, block; `blocks` 0: nothing."""

    block: ClassVar[Layer] = ResidualBlock
    frame_attention: ClassVar[Layer] = FrameAttention
    in_time: ClassVar[bool] = True

    def __init__(self, channels: int, blocks: int, attention: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(self.block(channels, channels) for _ in range(blocks))
        self.attentions = nn.ModuleList([self.frame_attention(channels)] if attention else [])
        self.temp_attentions = nn.ModuleList([CausalAttention(channels)] if attention and self.in_time else [])

    def order(self) -> Iterable[nn.Module]:
        return (*self.resnets[:1], *self.attentions, *self.temp_attentions, *self.resnets[1:])


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
            x = over_doubled(x, weight, self.conv2.bias)
        return self.conv3(x)


def plus_identity(weight: Tensor, taps: list[list[float]]) -> Tensor:
    """`weight [C, C, kh, kw]` plus `taps [kh, kw]` from each channel to itself."""
    eye = torch.eye(weight.shape[0], dtype=weight.dtype, device=weight.device)
    return weight + eye[:, :, None, None] * weight.new_tensor(taps)


def over_doubled(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution `weight [O, C, 3, 3]` of every frame doubled in height and width by repeating, padded with zeros."""
    spread = spread_taps(spread_taps(weight, 2), 3)
    y = F.conv_transpose2d(x.flatten(0, 1).permute(0, 3, 1, 2), spread.transpose(0, 1), bias, stride=2, padding=1)
    return y.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])


def spread_taps(weight: Tensor, axis: int) -> Tensor:
    """The 4 taps of the transposed convolution by stride 2 that equals repeating each input twice along `axis` and
    convolving with the 3 taps of `weight`."""
    w0, w1, w2 = weight.split(1, dim=axis)
    return torch.cat([w2, w1 + w2, w0 + w1, w0], dim=axis)


class Level(Layers):
    """Residual blocks of one level, then what changes the resolution, if it changes (else no parameters)."""

    block: ClassVar[Layer] = ResidualBlock

    def __init__(self, in_channels: int, out_channels: int, blocks: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            self.block(in_channels if index == 0 else out_channels, out_channels) for index in range(blocks)
        )


class DownBlock(Level):
    """A level of the encoder, which ends by halving."""

    resample: ClassVar[Layer] = Downsample

    def __init__(self, in_channels: int, out_channels: int, blocks: int, *, space: bool, time: bool) -> None:
        super().__init__(in_channels, out_channels, blocks)
        self.downsamplers = nn.ModuleList(
            [self.resample(out_channels, space=space, time=time)] if space or time else []
        )


class UpBlock(Level):
    """A level of the decoder, which ends by doubling."""

    resample: ClassVar[Layer] = Upsample

    def __init__(self, in_channels: int, out_channels: int, blocks: int, *, space: bool, time: bool) -> None:
        super().__init__(in_channels, out_channels, blocks)
        self.upsamplers = nn.ModuleList([self.resample(out_channels, space=space, time=time)] if space or time else [])
