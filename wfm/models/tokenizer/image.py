"""The image networks (Cosmos CI and DI): the video networks' shape in 2-D, with plain convolutions and norms of 32
groups.

A video `[B, C, T, H, W]` goes through frame by frame, so that images and video share one interface; a `Stream` has
nothing to keep here. Names are those of the video networks without their pairs of factors, such as
`encoder.down_blocks.0.resnets.0.conv1.weight`; wfm.models.convert has the original's beside them.
"""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from wfm.models.tokenizer.blocks import (
    DownBlock,
    FrameAttention,
    Layer,
    Middle,
    ResidualBlock,
    UpBlock,
    by_frame,
    doubled,
)
from wfm.models.tokenizer.convolution import Stream, over_space
from wfm.models.tokenizer.haar import analyse, cut_tiles, join_tiles, synthesise


class ImageConv(nn.Conv2d):
    """k x k over channels-last frames, padded with zeros; `halve`: by stride 2, padded on the right and at the bottom."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3, *, halve: bool = False) -> None:
        super().__init__(in_channels, out_channels, kernel)
        self.halve = halve

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        if self.halve:
            return over_space(F.pad(x, (0, 0, 0, 1, 0, 1)), self.weight, self.bias, stride=2)
        return over_space(x, self.weight, self.bias, padding=self.kernel_size[0] // 2)


class ImagePoint(ImageConv):
    """1 x 1."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)


class ImageAnalysis(ImageConv):
    """The first convolution of the encoder, over the Haar coefficients of every frame."""

    def __init__(self, channels: int, out_channels: int, size: int, kernel: int = 3) -> None:
        super().__init__(channels * size**2, out_channels, kernel)
        self.size = size

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        return super().forward(analyse(cut_tiles(x, self.size), self.size, dimensions=2), stream)


class ImageSynthesis(ImageConv):
    """The last convolution of the decoder, which gives the Haar coefficients of every frame."""

    def __init__(self, in_channels: int, channels: int, size: int, kernel: int = 3) -> None:
        super().__init__(in_channels, channels * size**2, kernel)
        self.size = size

    @property
    def last(self) -> nn.Module:
        """The convolution that gives the coefficients: this one."""
        return self

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        return join_tiles(synthesise(super().forward(x, stream), self.size, dimensions=2), self.size)


class ImageNorm(nn.GroupNorm):
    """Norm of 32 groups over each frame; with `silu` that activation follows."""

    def __init__(self, channels: int) -> None:
        super().__init__(32, channels, eps=1e-6)

    def forward(self, x: Tensor, *, silu: bool = False) -> Tensor:
        y = by_frame(super().forward, x)
        return F.silu(y) if silu else y


class ImageBlock(ResidualBlock):
    """norm, SiLU, convolution, twice, plus the input."""

    norm: ClassVar[Layer] = ImageNorm
    conv: ClassVar[Layer] = ImageConv
    point: ClassVar[Layer] = ImagePoint


class ImageAttention(FrameAttention):
    """Full attention among the positions of an image."""

    kinds: ClassVar[tuple[Layer, Layer]] = (ImageNorm, ImagePoint)


class ImageMiddle(Middle):
    """Block, attention, block."""

    block: ClassVar[Layer] = ImageBlock
    frame_attention: ClassVar[Layer] = ImageAttention
    in_time: ClassVar[bool] = False


class ImageDownsample(nn.Module):
    """Halve by a strided convolution."""

    def __init__(self, channels: int, *, space: bool, time: bool) -> None:
        super().__init__()
        self.conv = ImageConv(channels, channels, halve=True)

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        return self.conv(x)


class ImageUpsample(nn.Module):
    """Double by repeating, then convolve."""

    def __init__(self, channels: int, *, space: bool, time: bool) -> None:
        super().__init__()
        self.conv = ImageConv(channels, channels)

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        return self.conv(doubled(x))


class ImageDownBlock(DownBlock):
    """A level of the encoder."""

    block: ClassVar[Layer] = ImageBlock
    resample: ClassVar[Layer] = ImageDownsample


class ImageUpBlock(UpBlock):
    """A level of the decoder."""

    block: ClassVar[Layer] = ImageBlock
    resample: ClassVar[Layer] = ImageUpsample
