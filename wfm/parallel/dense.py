"""Attention kernels of a dense batch, which those of packs are made of (`by_segment`), and their backward for where autograd
does not see the forward (`opaque`).

q `[B, H, Q, D]`, k and v `[B, H, K, D]` -> out `[B, H, Q, D]`, lse `[B, H, Q]`.
"""

import math
from typing import Protocol

import torch
from torch import Tensor


class DenseKernel(Protocol):
    """Attention of a dense batch. q `[B, H, Q, D]`, k and v `[B, H, K, D]` -> out `[B, H, Q, D]`, lse `[B, H, Q]`."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> tuple[Tensor, Tensor]: ...


def causal_visible(num_queries: int, num_keys: int, device: torch.device) -> Tensor:
    """Which key `[Q, K]` (bool) each query may see, aligned at the end of both."""
    query = torch.arange(num_queries, device=device)[:, None] + (num_keys - num_queries)
    return torch.arange(num_keys, device=device)[None, :] <= query


def naive_kernel(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> tuple[Tensor, Tensor]:
    """The reference: scores are materialised and everything is computed in fp64. Any device, any shape,
    differentiable."""
    q64, k64, v64 = q.double(), k.double(), v.double()
    scores = q64 @ k64.transpose(-1, -2) / math.sqrt(q.shape[-1])  # [B, H, Q, K]
    if causal:
        scores = scores.masked_fill(~causal_visible(q.shape[-2], k.shape[-2], q.device), -math.inf)
    lse = torch.logsumexp(scores, dim=-1)  # [B, H, Q]
    out = torch.exp(scores - lse[..., None]) @ v64
    return out.to(q.dtype), lse.detach()


def _aligned(q: Tensor, k: Tensor, causal: bool) -> tuple[Tensor | None, bool]:
    """The mask and the causal flag by which a kernel whose own mask is aligned at the start does the same at the end."""
    num_queries, num_keys = q.shape[-2], k.shape[-2]
    bias = None
    if causal and 1 < num_queries != num_keys:
        bias = torch.zeros(num_queries, num_keys, dtype=q.dtype, device=q.device)
        bias.masked_fill_(~causal_visible(num_queries, num_keys, q.device), -math.inf)
    return bias, causal and num_queries == num_keys


def fused_cpu_kernel(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> tuple[Tensor, Tensor]:
    """The fused kernel of aten for the CPU: never materialises the scores, has a backward, gives an fp32 log-sum-exp.

    Its own causal flag aligns at the start, which is the same thing only for as many queries as keys; otherwise the
    mask is handed over explicitly. One query against a cache sees everything and needs no mask.
    """
    bias, square = _aligned(q, k, causal)
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, square, attn_mask=bias)
    return out, lse


def efficient_cuda_kernel(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> tuple[Tensor, Tensor]:
    """aten's memory-efficient kernel, for fp32 on CUDA: never materialises the scores, has a backward, gives a log-sum-exp.

    As on the CPU, its causal flag aligns at the start. The log-sum-exp comes padded to whole blocks of queries.
    """
    num_queries, num_keys = q.shape[-2], k.shape[-2]
    bias = None
    if causal and 1 < num_queries != num_keys:
        padded = num_keys + -num_keys % 8  # rows must start on 16 bytes
        bias = torch.zeros(num_queries, padded, dtype=q.dtype, device=q.device)[:, :num_keys]
        bias.masked_fill_(~causal_visible(num_queries, num_keys, q.device), -math.inf)
        bias = bias.expand(*q.shape[:2], -1, -1)
    square = causal and num_queries == num_keys
    out, lse, _, _ = torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, bias, True, 0.0, square)
    return out, lse[..., :num_queries]


def fused_cpu_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, *, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v from that of `out`, as torch has them for `fused_cpu_kernel`."""
    bias, square = _aligned(q, k, causal)
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        grad, q, k, v, out, lse, 0.0, square, attn_mask=bias
    )
    return found


def plain_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, *, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The same by formula, in fp64, of any kernel: weights p = exp(s - lse), ds = p (dp - sum(grad out)). The scores are
    materialised."""
    g, q64, k64, v64 = grad.double(), q.double(), k.double(), v.double()
    scale = 1 / math.sqrt(q.shape[-1])
    scores = q64 @ k64.transpose(-1, -2) * scale
    if causal:
        scores = scores.masked_fill(~causal_visible(q.shape[-2], k.shape[-2], q.device), -math.inf)
    weights = torch.exp(scores - lse.double()[..., None])  # [B, H, Q, K]
    of_scores = weights * (g @ v64.transpose(-1, -2) - (g * out.double()).sum(-1, keepdim=True)) * scale
    found = of_scores @ k64, of_scores.transpose(-1, -2) @ q64, weights.transpose(-1, -2) @ g
    return tuple(one.to(q.dtype) for one in found)  # type: ignore[return-value]
