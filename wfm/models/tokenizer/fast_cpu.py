"""The tokenizer's twins for `wfm.models.fast_cpu`: the same numbers by fewer and larger calls.

    convolutions in time    matrix products over shifted views, which keep only their input for the gradient
    Haar                    folded into the weights of the convolution beside it
    halving, doubling       with the mean or the repeated input one convolution, since that is one too
    in place                sums and activations of what nobody else holds

What a twin leaves in a `Stream` is what the plain layer leaves there.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wfm.models.tokenizer.blocks import (
    CausalAttention,
    Downsample,
    FrameAttention,
    FrameNorm,
    Residual,
    ResidualBlock,
    Upsample,
)
from wfm.models.tokenizer.convolution import (
    HaarAnalysis,
    HaarSynthesis,
    SpatialConv,
    Stream,
    TemporalConv,
    opens,
    over_space,
    over_time,
    with_past,
)
from wfm.models.tokenizer.haar import cut_blocks, cut_tiles, fold_analysis, fold_synthesis, join_blocks, join_tiles
from wfm.models.tokenizer.image import (
    ImageAnalysis,
    ImageAttention,
    ImageBlock,
    ImageConv,
    ImageNorm,
    ImageSynthesis,
    ImageUpsample,
)

# Time


class _CausalTaps(torch.autograd.Function):
    """3 x 1 x 1 behind the first frame repeated, as matrix products over shifted views: nothing is padded, and only the
    input is kept for the gradient.

    out[t] = w2 x[t] + w1 x[t - 1] + w0 x[t - 2] + b, where x[-1] = x[-2] = x[0]
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """x `[B, T, N, C]` contiguous, weight `[3, O, C]`, bias `[O]` -> `[B, T, N, O]`."""
        ctx.save_for_backward(x, weight)
        return _shifted(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous()
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = _shifted(gradient, weight.mT, None, ahead=True)
            grad_x[:, 0] += gradient[:, 0] @ (weight[0] + weight[1])  # what the repeated first frame stood for
            if x.shape[1] > 1:
                grad_x[:, 0] += gradient[:, 1] @ weight[0]
        if ctx.needs_input_grad[1]:
            grad_weight = torch.stack([_correlated(gradient, x, lag) for lag in (2, 1, 0)])
        if ctx.needs_input_grad[2]:
            grad_bias = gradient.sum(dim=(0, 1, 2))
        return grad_x, grad_weight, grad_bias


def accumulate(total: Tensor, a: Tensor, b: Tensor) -> None:
    """`total += a @ b`, in place. (`addmm_` would do, but counters of FLOPs do not know it.)"""
    torch.addmm(total, a, b, out=total)


def _shifted(x: Tensor, weight: Tensor, bias: Tensor | None, *, ahead: bool = False) -> Tensor:
    """The sum in `_CausalTaps`; `ahead`: the sum with x[t + 1] and x[t + 2], and zeros after the end."""
    batch, frames, positions, _ = x.shape
    w0, w1, w2 = weight.mT.contiguous()  # [C, O] each
    out = x.new_empty(batch, frames, positions, w2.shape[1])
    for source, target in zip(x.flatten(1, 2), out.flatten(1, 2), strict=True):  # [T N, C], [T N, O]
        if bias is None:
            torch.mm(source, w2, out=target)
        else:
            torch.addmm(bias, source, w2, out=target)
        for lag, tap in ((1, w1), (2, w0)):
            if lag < frames:
                old, new = slice(None, -lag * positions), slice(lag * positions, None)
                accumulate(target[old if ahead else new], source[new if ahead else old], tap)
        if not ahead:
            first = source[:positions]
            accumulate(target[:positions], first, w0 + w1)
            if frames > 1:
                accumulate(target[positions : 2 * positions], first, w0)
    return out


def _correlated(gradient: Tensor, x: Tensor, lag: int) -> Tensor:
    """Gradient of the tap `lag` frames back, `[O, C]`: the sum of gradient[t] x[t - lag] over t and positions."""
    frames = x.shape[1]
    near = min(lag, frames)
    total = x.new_zeros(gradient.shape[-1], x.shape[-1])
    for g, source in zip(gradient, x, strict=True):  # [T, N, O], [T, N, C]
        if lag < frames:
            accumulate(total, g[lag:].flatten(0, 1).T, source[: frames - lag].flatten(0, 1))
        if near:
            accumulate(total, g[:near].sum(0).T, source[0])
    return total


def causal_taps(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`x [B, T, H, W, C]` under `weight [O, C, 3, 1, 1]`, the first frame repeated before the start."""
    assert bias is not None
    taps = weight[..., 0, 0].permute(2, 0, 1).to(x.dtype)
    y = _CausalTaps.apply(x.flatten(2, 3).contiguous(), taps, bias.to(x.dtype))
    return y.unflatten(2, x.shape[2:4])


class FastTemporalConv(TemporalConv):
    """By matrix products where the whole video is there."""

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        if stream is not None or self.halve:
            return super().forward(x, stream)
        return causal_taps(x, self.weight, self.bias)


# Haar


class FastHaarAnalysis(HaarAnalysis):
    """H within the weights."""

    reads = {"conv_s": SpatialConv}

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        blocks = cut_blocks(x, self.size, opening=opens(stream))
        weight = fold_analysis(self.conv_s.weight[:, :, 0], self.size) * self.scale
        y = over_space(blocks, weight, self.conv_s.bias, padding=weight.shape[-1] // 2)
        return y if self.conv_t is None else self.conv_t(y, stream)


class FastHaarSynthesis(HaarSynthesis):
    """H within the weights."""

    reads = {"conv_s": SpatialConv, "conv_t": TemporalConv}

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        assert self.last.bias is not None
        weight, bias = (fold_synthesis(each, self.size) / self.scale for each in (self.last.weight, self.last.bias))
        if self.conv_t is None:
            blocks = over_space(x, weight[:, :, 0], bias)
        elif stream is None:
            blocks = causal_taps(self.conv_s(x), weight, bias)
        else:
            blocks = over_time(with_past(self.conv_s(x), self.conv_t, stream, frames=2), weight[..., 0], bias)
        return join_blocks(blocks, self.size, opening=opens(stream))


class FastImageAnalysis(ImageAnalysis):
    """H within the weights."""

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        weight = fold_analysis(self.weight, self.size, dimensions=2)
        return over_space(cut_tiles(x, self.size), weight, self.bias, padding=self.kernel_size[0] // 2)


class FastImageSynthesis(ImageSynthesis):
    """H within the weights."""

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        assert self.bias is not None
        weight, bias = (fold_synthesis(each, self.size, dimensions=2) for each in (self.weight, self.bias))
        return join_tiles(over_space(x, weight, bias, padding=self.kernel_size[0] // 2), self.size)


# Halving and doubling


class FastDownsample(Downsample):
    """Convolution and mean in one."""

    reads = {"conv1": SpatialConv, "conv2": TemporalConv}

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        if isinstance(self.conv1, SpatialConv):
            weight = plus_identity(self.conv1.weight[:, :, 0], [[0.25, 0.25, 0.0], [0.25, 0.25, 0.0], [0.0, 0.0, 0.0]])
            x = over_space(F.pad(x, (0, 0, 0, 1, 0, 1)), weight, self.conv1.bias, stride=2)
        if isinstance(self.conv2, TemporalConv):
            # frames (2j - 2, 2j - 1, 2j) make frame j; the mean is that of the last two
            weight = plus_identity(self.conv2.weight[..., 0], [[0.0], [0.5], [0.5]])
            x = over_time(with_past(x, self.conv2, stream, frames=1, repeats=2), weight, self.conv2.bias, stride=2)
        return self.conv3(x)


class FastUpsample(Upsample):
    """Repeating, convolving and adding together are one transposed convolution with 4 taps an axis, which sees every
    input once: 4/6 of the products along time and 16/36 in space."""

    reads = {"conv1": TemporalConv, "conv2": SpatialConv}

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        if isinstance(self.conv1, TemporalConv):
            weight = spread_taps(plus_identity(self.conv1.weight[..., 0], [[0.0], [0.0], [1.0]]), 2)
            y = _behind_last(x, self.conv1, stream)
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


def _behind_last(x: Tensor, layer: TemporalConv, stream: Stream | None) -> Tensor:
    """`x` behind the last frame before it (at the start of a video its first). The stream keeps that frame doubled, as the
    plain layer sees it."""
    past = stream.recall(layer) if stream is not None else None
    whole = torch.cat([x[:, :1] if past is None else past[0][:, -1:], x], dim=1)
    if stream is not None:
        stream.keep(layer, whole[:, -1:].clone().expand(-1, 2, -1, -1, -1))
    return whole


class FastImageUpsample(ImageUpsample):
    """Repeating and convolving in one."""

    reads = {"conv": ImageConv}

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        return over_doubled(x, self.conv.weight, self.conv.bias)


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


# In place


class _InPlace(Residual):
    def joined(self, y: Tensor, x: Tensor) -> Tensor:
        return y.add_(x)


class FastResidualBlock(_InPlace, ResidualBlock):
    """Adds in place."""


class FastImageBlock(_InPlace, ImageBlock):
    """Adds in place."""


class FastFrameAttention(_InPlace, FrameAttention):
    """Adds in place."""


class FastImageAttention(_InPlace, ImageAttention):
    """Adds in place."""


class FastCausalAttention(_InPlace, CausalAttention):
    """Adds in place."""


class FastFrameNorm(FrameNorm):
    """Activates in place where nothing is learned."""

    def forward(self, x: Tensor, *, silu: bool = False) -> Tensor:
        y = super().forward(x)
        return F.silu(y, inplace=not torch.is_grad_enabled()) if silu else y


class FastImageNorm(ImageNorm):
    """Activates in place where nothing is learned."""

    def forward(self, x: Tensor, *, silu: bool = False) -> Tensor:
        y = super().forward(x)
        return F.silu(y, inplace=not torch.is_grad_enabled()) if silu else y


TWINS: Mapping[type[nn.Module], type[nn.Module]] = {
    TemporalConv: FastTemporalConv,
    HaarAnalysis: FastHaarAnalysis,
    HaarSynthesis: FastHaarSynthesis,
    ImageAnalysis: FastImageAnalysis,
    ImageSynthesis: FastImageSynthesis,
    Downsample: FastDownsample,
    Upsample: FastUpsample,
    ImageUpsample: FastImageUpsample,
    ResidualBlock: FastResidualBlock,
    ImageBlock: FastImageBlock,
    FrameAttention: FastFrameAttention,
    ImageAttention: FastImageAttention,
    CausalAttention: FastCausalAttention,
    FrameNorm: FastFrameNorm,
    ImageNorm: FastImageNorm,
}
