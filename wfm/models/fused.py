"""What stands between the matrix products of a transformer block, in as few passes over memory as torch allows on a CPU.

    rms_norm         RMSNorm over the last axis
    head_norm        RMSNorm of every head, and its rotation, of queries and keys together
    modulated_norm   LN(x) (1 + scale) + shift, one row of shift and scale for each group of tokens
    gated_sum        x + gate * y
    gelu             exact

What each means stands in `layers`; `fast_cpu` puts these in their place, in fp32 and fp64 (`stands_back`: not in half
precision, which computes in fp32, nor under torch.compile, which fuses the plain forms itself). At small widths these passes
are a third of a plain implementation's time.
"""

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from wfm.parallel.attention import under_autocast

MANY_GROUPS = 16
"""Up to so many groups the norm is called once a group with the modulation as its own gain and bias."""


def stands_back(x: Tensor) -> bool:
    """Whether the plain form is to be used."""
    if torch.compiler.is_compiling() or x.dtype not in (torch.float32, torch.float64):
        return True
    return under_autocast(x)  # what is mixed then is for autocast's own rules to settle


def _learning(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def bring_pairs_together(x: Tensor) -> Tensor:
    """The components of `[..., head_dim]` reordered so that each rotated pair, half a head apart, stands side by side: (0, 1),
    (2, 3) ... As a query and a key may have their components reordered alike without changing any score, a rotation is
    then one complex product."""
    return x.unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2)


def head_norm(x: Tensor, gain: Tensor, eps: float, turn: Tensor | None = None) -> Tensor:
    """RMSNorm of heads x `[R, N, H, D]` with a gain `[H, D]`, then the rotation turn = cos + i sin, complex `[N, D / 2]`, of
    neighbouring pairs (x and the gain are then in the order of `bring_pairs_together`). x may be overwritten."""
    turn = None if turn is None else turn[:, None]  # [N, 1, D / 2]
    if _learning(x, gain):
        return _HeadNorm.apply(x, gain, eps, turn)
    return _turned(x.mul_(_inverse_length(x, eps)).mul_(gain), turn)


def rms_norm(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    """RMSNorm over the last axis with a gain `[D]`."""
    if _learning(x, gain):
        return _HeadNorm.apply(x, gain, eps, None)
    return (x * _inverse_length(x, eps)).mul_(gain)


def _inverse_length(x: Tensor, eps: float) -> Tensor:
    """1 / root of the mean square plus eps `[..., 1]`: root(D) / hypot(norm, root(D eps)), three calls."""
    dim = x.shape[-1]
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    constant = _constant if type(x) is Tensor else _constant.__wrapped__  # a fake tensor's constants are fake
    return constant(dim**0.5, x.dtype, x.device) / length.hypot_(constant((dim * eps) ** 0.5, x.dtype, x.device))


@lru_cache(maxsize=64)
def _constant(value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A number as a tensor: made from a float at each call, it costs more than what is done with a decoding step's row."""
    return torch.tensor(value, dtype=dtype, device=device)


def _turned(x: Tensor, turn: Tensor | None) -> Tensor:
    """Rotate neighbouring pairs in place: one complex product."""
    if turn is not None:
        torch.view_as_complex(x.unflatten(-1, (-1, 2))).mul_(turn)
    return x


class _HeadNorm(torch.autograd.Function):
    """y = turn * (x r gain), r = 1 / rms(x) over the last axis; the gain has the last axes of x, one or more."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, eps: float, turn: Tensor | None) -> Tensor:
        inverse = _inverse_length(x, eps)
        ctx.save_for_backward(x, gain, inverse, turn)
        return _turned((x * inverse).mul_(gain), turn)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, gain, inverse, turn = ctx.saved_tensors
        if turn is not None:  # the inverse of a rotation is its conjugate
            grad = torch.view_as_real(torch.view_as_complex(grad.unflatten(-1, (-1, 2))) * turn.conj()).flatten(-2)
        unit = x * inverse
        of_gain = (grad * unit).sum(tuple(range(x.ndim - gain.ndim)))
        grad = grad * gain
        along = (grad * unit).mean(-1, keepdim=True)
        return grad.addcmul_(unit, along, value=-1).mul_(inverse), of_gain, None, None


def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-6) -> Tensor:
    """LN(x) (1 + scale) + shift of x `[G, n, d]` (`[..., n, d]`), shift and scale `[G, d]`."""
    dim = x.shape[-1:]
    groups = shift.numel() // dim[0]
    if groups == 1:
        return F.layer_norm(x, dim, (1 + scale).view(dim), shift.reshape(dim), eps)
    if _learning(x, shift, scale):
        if groups <= MANY_GROUPS and x.ndim == 3:
            return _ModulatedNorm.apply(x, shift, 1 + scale, eps)
        return torch.addcmul(shift.unsqueeze(-2), F.layer_norm(x, dim, eps=eps), 1 + scale.unsqueeze(-2))
    out = F.layer_norm(x, dim, eps=eps)
    return torch.addcmul(shift.unsqueeze(-2), out, 1 + scale.unsqueeze(-2), out=out)


class _ModulatedNorm(torch.autograd.Function):
    """Layer norm of each group x `[G, n, d]` with a gain and bias `[G, d]` of its own, and torch's fused backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor, gain: Tensor, eps: float) -> Tensor:
        parts = [
            torch.native_layer_norm(group, x.shape[-1:], g, b, eps)
            for group, g, b in zip(x.unbind(), gain.unbind(), bias.unbind(), strict=True)
        ]
        out, mean, inverse = (torch.stack(part) for part in zip(*parts, strict=True))
        ctx.save_for_backward(x, bias, gain, mean, inverse)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, bias, gain, mean, inverse = ctx.saved_tensors
        parts = [
            torch.ops.aten.native_layer_norm_backward(g, group, x.shape[-1:], m, i, w, b, [True, True, True])
            for g, group, m, i, w, b in zip(*(t.unbind() for t in (grad, x, mean, inverse, gain, bias)), strict=True)
        ]
        of_x, of_gain, of_bias = (torch.stack(part) for part in zip(*parts, strict=True))
        return of_x, of_bias, of_gain, None


def gated_sum(x: Tensor, gate: Tensor, y: Tensor) -> Tensor:
    """x + gate * y of x and y `[G, n, d]`, gate `[G, d]`. y may be overwritten."""
    if _learning(x, gate, y):
        return torch.addcmul(x, gate.unsqueeze(-2), y)
    return torch.addcmul(x, gate.unsqueeze(-2), y, out=y)


def gelu(x: Tensor) -> Tensor:
    """Exact GELU. x may be overwritten."""
    if _learning(x):
        return F.gelu(x)
    return torch.ops.aten.gelu_(x)
