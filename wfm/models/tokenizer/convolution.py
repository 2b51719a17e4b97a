"""Causal convolutions over channels-last video `[B, T, H, W, C]`, whole or fed group by group.

Parameters have the shapes and names of Cosmos's conv3d weights; the computation does not use conv3d, which is slow on
CPUs. A 1x3x3 kernel is a 2-D convolution of frames over channels-last views, a 3x1x1 kernel one of the plane of time and
position.

**Streaming.** A causal layer needs a few frames of its past. Given no `Stream` it stands at the start of a video and
repeats the first frame, as Cosmos does. Given one, it takes its past from there and leaves there what it needs next, so
that feeding a video group by group gives what feeding it whole gives:

    stream = Stream()
    parts = [network(group, stream) for group in groups]     # the first group holds the first frame

A stream belongs to one network and one video (or batch of them).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wfm.errors import ConfigError
from wfm.models.tokenizer.haar import analyse, cut_blocks, join_blocks, synthesise


class Stream:
    """What each causal layer keeps of the frames fed so far. `attention_frames`: what a query of the temporal attention
    sees, itself and those before [latent frames]; 0: all, which is exact."""

    def __init__(self, attention_frames: int = 0) -> None:
        self.attention_frames = attention_frames
        self.groups = 0
        self._under_way = False
        self._kept: dict[nn.Module, tuple[Tensor, ...]] = {}

    @property
    def opening(self) -> bool:
        """Whether the group that is going through is the first."""
        return self.groups == 0

    def begin(self) -> None:
        """Called by the whole network before a group goes through. Raises ConfigError when the group before broke off: some
        layers have seen it and others not, so what follows would be wrong."""
        if self._under_way:
            raise ConfigError(
                f"this stream broke off within group {self.groups + 1}: start the video again with a new stream, or go on "
                "from a state that was saved"
            )
        self._under_way = True

    def advance(self) -> None:
        """Called by the whole network when a group has gone through."""
        self.groups += 1
        self._under_way = False

    def recall(self, layer: nn.Module) -> tuple[Tensor, ...] | None:
        """What `layer` kept of the groups before; None for the first."""
        return self._kept.get(layer)

    def keep(self, layer: nn.Module, *tensors: Tensor) -> None:
        """Keep tensors for the next group of `layer`, in place of what it kept before."""
        self._kept[layer] = tensors

    @property
    def bytes(self) -> int:
        """Memory held [bytes]."""
        return sum(tensor.numel() * tensor.element_size() for kept in self._kept.values() for tensor in kept)


def opens(stream: Stream | None) -> bool:
    """Whether a group is the first of its video: always so for a video fed whole."""
    return stream is None or stream.opening


def with_past(x: Tensor, layer: nn.Module, stream: Stream | None, *, frames: int, repeats: int | None = None) -> Tensor:
    """`x` with `frames` frames of its past in front; at the start of a video its first frame `repeats` times (as many,
    unless given)."""
    past = stream.recall(layer) if stream is not None else None
    front = past[0] if past is not None else x[:, :1].expand(-1, frames if repeats is None else repeats, -1, -1, -1)
    whole = torch.cat([front, x], dim=1)
    if stream is not None:
        stream.keep(layer, whole[:, -frames:].clone())
    return whole


def over_space(x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int = 1, padding: int = 0) -> Tensor:
    """2-D convolution of every frame: `x [B, T, H, W, C]`, `weight [O, C, k, k]`."""
    y = F.conv2d(x.flatten(0, 1).permute(0, 3, 1, 2), weight, bias, stride, padding)
    return y.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])


def over_time(x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int = 1) -> Tensor:
    """Convolution along time of every position, without padding: `x [B, T, H, W, C]`, `weight [O, C, k, 1]`."""
    y = F.conv2d(x.flatten(2, 3).permute(0, 3, 1, 2), weight, bias, (stride, 1))
    return y.permute(0, 2, 3, 1).unflatten(2, x.shape[2:4])


class SpatialConv(nn.Conv3d):
    """1 x k x k, padded with zeros; `halve`: by stride 2, padded on the right and at the bottom."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3, *, halve: bool = False) -> None:
        super().__init__(in_channels, out_channels, (1, kernel, kernel))
        self.halve = halve

    def forward(self, x: Tensor) -> Tensor:
        if self.halve:
            return over_space(F.pad(x, (0, 0, 0, 1, 0, 1)), self.weight[:, :, 0], self.bias, stride=2)
        return over_space(x, self.weight[:, :, 0], self.bias, padding=self.kernel_size[1] // 2)


class PointConv(SpatialConv):
    """1 x 1 x 1: a linear layer over channels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)


class TemporalConv(nn.Conv3d):
    """3 x 1 x 1, padded in front with the past, or with the first frame repeated; `halve`: by stride 2, frames (2j - 2, 2j - 1,
    2j) of a video make frame j."""

    def __init__(self, channels: int, *, halve: bool = False) -> None:
        super().__init__(channels, channels, (3, 1, 1))
        self.halve = halve

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        if self.halve:
            return over_time(with_past(x, self, stream, frames=1, repeats=2), self.weight[..., 0], self.bias, stride=2)
        return over_time(with_past(x, self, stream, frames=2), self.weight[..., 0], self.bias)


class FactorisedConv(nn.Module):
    """Cosmos's factorised convolution: space, then causal time. Kernel 1 is a 1 x 1 x 1 alone."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv_s = SpatialConv(in_channels, out_channels, kernel)
        self.conv_t = TemporalConv(out_channels) if kernel == 3 else None

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        x = self.conv_s(x)
        return x if self.conv_t is None else self.conv_t(x, stream)


class HaarAnalysis(FactorisedConv):
    """The first convolution of the encoder, over the Haar coefficients of a video `[B, C, T, H, W]`.

    `orthonormal`: coefficients as large as the pixels, which Cosmos's are not: theirs are smaller by size^1.5.
    """

    def __init__(
        self, channels: int, out_channels: int, size: int, kernel: int = 3, *, orthonormal: bool = False
    ) -> None:
        super().__init__(channels * size**3, out_channels, kernel)
        self.size, self.scale = size, size**1.5 if orthonormal else 1.0

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        blocks = cut_blocks(x, self.size, opening=opens(stream))
        return super().forward(analyse(blocks, self.size) * self.scale, stream)


class HaarSynthesis(FactorisedConv):
    """The last convolution of the decoder: gives the Haar coefficients of a video `[B, C, T, H, W]`. `orthonormal` as in
    `HaarAnalysis`."""

    def __init__(
        self, in_channels: int, channels: int, size: int, kernel: int = 3, *, orthonormal: bool = False
    ) -> None:
        super().__init__(in_channels, channels * size**3, kernel)
        self.size, self.scale = size, size**1.5 if orthonormal else 1.0

    @property
    def last(self) -> nn.Conv3d:
        """The convolution that gives the coefficients."""
        return self.conv_s if self.conv_t is None else self.conv_t

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        blocks = synthesise(super().forward(x, stream) / self.scale, self.size)
        return join_blocks(blocks, self.size, opening=opens(stream))
