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
)

Layer = Callable[..., nn.Module]


class FrameNorm(nn.Module):
    """Norm of each frame over all its positions and channels (GroupNorm with one group), then gain and shift by
    channel: statistics never look ahead. With `silu` that activation follows."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, channels, eps=1e-6)

    def forward(self, x: Tensor, *, silu: bool = False) -> Tensor:
        y = by_frame(self.norm, x)
        return F.silu(y) if silu else y


def by_frame(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """What `layer` makes of every frame `[N, C, H, W]` of `[B, T, H, W, C]`."""
    return layer(x.flatten(0, 1).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).unflatten(0, x.shape[:2])


class Residual(nn.Module):
    """A block beside which its input goes on."""

    def joined(self, y: Tensor, x: Tensor) -> Tensor:
        """What the block made, plus what goes past it."""
        return y + x


class ResidualBlock(Residual):
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
        return self.joined(y, self.conv_shortcut(x))


class FrameAttention(Residual):
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
        return self.joined(self.to_out[0](mixed), x)


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
        return self.joined(self.to_out[0](mixed), x)


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
    """Halve space, then time: a strided convolution plus the mean of what it halves; then 1x1x1."""

    def __init__(self, channels: int, *, space: bool, time: bool) -> None:
        super().__init__()
        self.conv1 = SpatialConv(channels, channels, halve=True) if space else nn.Identity()
        self.conv2 = TemporalConv(channels, halve=True) if time else nn.Identity()
        self.conv3 = PointConv(channels, channels) if space or time else nn.Identity()

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        if isinstance(self.conv1, SpatialConv):
            mean = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean(dim=(3, 5))
            x = self.conv1(x) + mean
        if isinstance(self.conv2, TemporalConv):
            whole = torch.cat([x[:, :1], x], dim=1) if opens(stream) else x  # the first frame is a pair with itself
            x = self.conv2(x, stream) + whole.unflatten(1, (-1, 2)).mean(dim=2)
        return self.conv3(x)


class Upsample(nn.Module):
    """Double time (but the first frame), then space: repeat, and add a convolution of that; then 1x1x1."""

    def __init__(self, channels: int, *, space: bool, time: bool) -> None:
        super().__init__()
        self.conv1 = TemporalConv(channels) if time else nn.Identity()
        self.conv2 = SpatialConv(channels, channels) if space else nn.Identity()
        self.conv3 = PointConv(channels, channels) if space or time else nn.Identity()

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        if isinstance(self.conv1, TemporalConv):
            x = x.repeat_interleave(2, dim=1)[:, int(opens(stream)) :]
            x = x + self.conv1(x, stream)
        if isinstance(self.conv2, SpatialConv):
            x = doubled(x)
            x = x + self.conv2(x)
        return self.conv3(x)


def doubled(x: Tensor) -> Tensor:
    """Every frame of `[B, T, H, W, C]` doubled in height and width by repeating."""
    return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


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
