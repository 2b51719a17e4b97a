"""A modulation with a row for each segment (or each latent frame) of a pack, applied where it is used.

Spread over the tokens first, as `part[rows]`, a shift, a scale and a gate are three tensors as large as the hidden states, at
each norm of each block, and all three are kept for the backward. Here the rows are read where they are used, and kept are the
rows. Tokens of a row are neighbours: where the lengths are known on the host, rows that serve equally many tokens are one call;
a compiled network takes the index (`Rows.index`), which is of one size for all packs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from wfm.parallel.attention import without_autocast
from wfm.parallel.segments import equal_runs

EPS = 1e-6


@dataclass(frozen=True, eq=False)
class Rows:
    """Which of G rows each of M tokens takes."""

    index: Tensor
    "int64 `[M]`, ascending."
    runs: tuple[tuple[int, int], ...] | None = None
    "(rows, tokens of each), in order: all M tokens. None: known on the device alone, and always in a compiled network."

    @classmethod
    def of(cls, tokens: Sequence[int], device: torch.device) -> Self:
        """Of so many tokens to each row."""
        counts = torch.tensor(list(tokens), dtype=torch.int64)
        index = torch.arange(len(counts)).repeat_interleave(counts, output_size=sum(tokens))
        return cls(index.to(device, non_blocking=True), tuple((count, n) for count, n in equal_runs(tokens)))

    def read(self) -> tuple[tuple[int, int], ...] | None:
        """The runs, where they may be looked at."""
        return None if torch.compiler.is_compiling() else self.runs


def modulated(x: Tensor, shift: Tensor, scale: Tensor, rows: Rows) -> Tensor:
    """LN(x) (1 + scale) + shift of x `[M, d]`, shift and scale `[G, d]`. Statistics in fp32 or better; the result has the type
    of x."""
    with without_autocast(x):
        return _Modulated.apply(x, shift, scale, rows)


def gated(x: Tensor, gate: Tensor, y: Tensor, rows: Rows) -> Tensor:
    """x + gate * y of x and y `[M, d]`, gate `[G, d]`."""
    with without_autocast(x):
        return _Gated.apply(x, gate, y, rows)


def plain_modulated(x: Tensor, shift: Tensor, scale: Tensor, rows: Rows) -> Tensor:
    """The plain twin of `modulated`: every row spread over its tokens."""
    return F.layer_norm(x, x.shape[-1:], eps=EPS) * (1 + scale[rows.index]) + shift[rows.index]


def plain_gated(x: Tensor, gate: Tensor, y: Tensor, rows: Rows) -> Tensor:
    """The plain twin of `gated`."""
    return x + gate[rows.index] * y


class _Modulated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shift: Tensor, scale: Tensor, rows: Rows) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        unit, mean, inverse = torch.native_layer_norm(x.to(wide), x.shape[-1:], None, None, EPS)
        gain = 1 + scale
        ctx.save_for_backward(x, gain, mean, inverse)
        ctx.rows, ctx.types = rows, (shift.dtype, scale.dtype)
        return _affine(unit, gain.to(wide), shift.to(wide), rows, own=True).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, gain, mean, inverse = ctx.saved_tensors
        wide, rows = x.to(mean.dtype), ctx.rows
        grad = grad.to(mean.dtype)
        unit = torch.native_layer_norm(wide, x.shape[-1:], None, None, EPS)[
            0
        ]  # again: one pass, and nothing kept for it
        of_shift = _summed(grad, len(gain), rows)
        of_gain = _summed(unit.mul_(grad), len(gain), rows)
        of_unit = _affine(grad, gain.to(mean.dtype), None, rows)
        of_x = torch.ops.aten.native_layer_norm_backward(
            of_unit, wide, x.shape[-1:], mean, inverse, None, None, [True, False, False]
        )[0]
        return of_x.to(x.dtype), of_shift.to(ctx.types[0]), of_gain.to(ctx.types[1]), None


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gate: Tensor, y: Tensor, rows: Rows) -> Tensor:
        ctx.save_for_backward(gate, y)
        ctx.rows, ctx.types = rows, (x.dtype, gate.dtype, y.dtype)
        wide = torch.promote_types(torch.promote_types(x.dtype, gate.dtype), y.dtype)
        return _affine(y.to(wide), gate.to(wide), None, rows, plus=x.to(wide))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        gate, y = ctx.saved_tensors
        of_gate = _summed(grad * y, len(gate), ctx.rows)
        of_y = _affine(grad, gate.to(grad.dtype), None, ctx.rows)
        x_type, gate_type, y_type = ctx.types
        return grad.to(x_type), of_gate.to(gate_type), of_y.to(y_type), None


def _affine(
    x: Tensor, gain: Tensor, bias: Tensor | None, rows: Rows, plus: Tensor | None = None, *, own: bool = False
) -> Tensor:
    """x gain + (bias by row, or `plus` by token), x `[M, d]`, gain and bias `[G, d]`; own: x may be overwritten."""
    runs = rows.read()
    if runs is None:
        spread = gain[rows.index]
        if bias is not None:
            plus = bias[rows.index]
        return x * spread if plus is None else torch.addcmul(plus, x, spread)
    out = x if own else torch.empty_like(x)
    for tokens, of, shape in _slices(runs):
        here, factor, into = x[tokens].view(*shape, -1), gain[of, None], out[tokens].view(*shape, -1)
        if bias is not None:
            torch.addcmul(bias[of, None], here, factor, out=into)
        elif plus is not None:
            torch.addcmul(plus[tokens].view(*shape, -1), here, factor, out=into)
        else:
            torch.mul(here, factor, out=into)
    return out


def _summed(x: Tensor, count: int, rows: Rows) -> Tensor:
    """x `[M, d]` summed over the tokens of each of `count` rows, `[count, d]`."""
    runs, out = rows.read(), x.new_zeros(count, x.shape[-1])
    if runs is None:
        return out.index_add(0, rows.index, x)
    for tokens, of, shape in _slices(runs):
        torch.sum(x[tokens].view(*shape, -1), dim=1, out=out[of])
    return out


def _slices(runs: Sequence[tuple[int, int]]) -> Iterator[tuple[slice, slice, tuple[int, int]]]:
    """Tokens and rows of each run, and its (rows, tokens of each)."""
    token = row = 0
    for count, each in runs:
        if count * each:
            yield slice(token, token + count * each), slice(row, row + count), (count, each)
        token, row = token + count * each, row + count
