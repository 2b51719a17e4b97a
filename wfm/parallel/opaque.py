"""Attention over a pack as one operation that torch.compile does not look into.

Kernels that go segment by segment ask for the lengths as numbers, and traced they would make one graph for each pack. Here the
lengths are a tensor (`segments.Segments.at_host`), read when the operation runs: one graph for all packs of one size. Its
backward is an operation too, by the kernels' own formulas (`dense`); results are those of the kernel called plainly. Kept for
it is one output of the pack, and not those of its runs beside it: so it is the way of ragged packs without a compiler too.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from wfm.parallel.by_segment import by_segment, skipping_empty
from wfm.parallel.dense import (
    efficient_cuda_kernel,
    fused_cpu_backward,
    fused_cpu_kernel,
    naive_kernel,
    plain_backward,
)
from wfm.parallel.segments import equal_runs

Backward = Callable[..., tuple[Tensor, Tensor, Tensor]]

FORWARD = {
    "naive": skipping_empty(by_segment(naive_kernel)),
    "fused_cpu": skipping_empty(by_segment(fused_cpu_kernel)),
    "efficient": skipping_empty(by_segment(efficient_cuda_kernel)),
}
BACKWARD: dict[str, Backward] = {"naive": plain_backward, "fused_cpu": fused_cpu_backward, "efficient": plain_backward}
"""By name of the kernel; those of CUDA that take a pack as it is are operations already."""


@torch.library.custom_op("wfm::pack_attention", mutates_args=())
def pack_attention(
    q: Tensor, k: Tensor, v: Tensor, q_bounds: Tensor, kv_bounds: Tensor, kernel: str, causal: bool
) -> tuple[Tensor, Tensor]:
    """`wfm.parallel.attention` of q `[Q, H, D]`, k and v `[K, H_kv, D]` with the bounds of their segments, int32 `[most + 1]`:
    out `[Q, H, D]`, lse `[Q, H]`, by one of `FORWARD`."""
    out, lse = FORWARD[kernel](q, k, v, _lengths(q_bounds), _lengths(kv_bounds), causal=causal)
    return out.contiguous(), lse.contiguous()


@torch.library.custom_op("wfm::pack_attention_backward", mutates_args=())
def pack_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, q_bounds: Tensor, kv_bounds: Tensor,
    kernel: str, causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q, k and v; zeros where a segment has no queries or no keys."""
    found = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    shared = q.shape[1] // k.shape[1]
    at_q = at_k = 0
    for count, n, m in equal_runs(_lengths(q_bounds), _lengths(kv_bounds)):
        of_q, of_k = slice(at_q, at_q + count * n), slice(at_k, at_k + count * m)
        at_q, at_k = of_q.stop, of_k.stop
        if not n or not m:
            for part, where in zip(found, (of_q, of_k, of_k), strict=True):
                part[where] = 0
            continue
        keys, values = (x[of_k].repeat_interleave(shared, dim=1) if shared > 1 else x[of_k] for x in (k, v))
        dense = [_dense(x, count) for x in (grad[of_q], q[of_q], keys, values, out[of_q])]
        parts = BACKWARD[kernel](*dense, _dense(lse[of_q], count), causal=causal)
        _dense(found[0][of_q], count).copy_(parts[0])
        for into, part in zip(found[1:], parts[1:], strict=True):
            _dense(into[of_k], count).copy_(part.unflatten(1, (-1, shared)).sum(2) if shared > 1 else part)
    return found


def _lengths(bounds: Tensor) -> list[int]:
    return [end - first for first, end in pairwise(bounds.tolist())]


def _dense(x: Tensor, count: int) -> Tensor:
    """`[count * n, H, ...]` -> `[count, H, n, ...]`."""
    return x.unflatten(0, (count, -1)).transpose(1, 2)


@pack_attention.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, q_bounds: Tensor, kv_bounds: Tensor, kernel: str, causal: bool
) -> tuple[Tensor, Tensor]:
    full = q.new_empty(
        q.shape[:2], dtype=torch.float64 if kernel == "naive" else torch.promote_types(q.dtype, torch.float32)
    )
    return torch.empty_like(q, memory_format=torch.contiguous_format), full


@pack_attention_backward.register_fake
def _(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, q_bounds: Tensor, kv_bounds: Tensor,
    kernel: str, causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, q_bounds, kv_bounds, ctx.kernel, ctx.causal = inputs
    ctx.save_for_backward(q, k, v, *output, q_bounds, kv_bounds)
    ctx.mark_non_differentiable(output[1])


def _back(ctx: Any, grad: Tensor, _: Any) -> tuple[Any, ...]:
    found = pack_attention_backward(grad.contiguous(), *ctx.saved_tensors, ctx.kernel, ctx.causal)
    return (*found, None, None, None, None)


pack_attention.register_autograd(_back, setup_context=_keep)
