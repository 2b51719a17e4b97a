"""Attention over a pack of tokens: one signature, several kernels.

Tokens are one axis. A batch is a pack `[tokens, heads, head_dim]` together with the lengths of its segments, and
attention never crosses a segment. Self-attention, cross-attention and attention against a cache differ only in the
segments given:

    self    attention(q, k, v, lengths, lengths, mask="full" | "causal")
    cross   attention(q, k, v, query_lengths, text_lengths, mask="full")
    cached  attention(q, k, v, (1,) * batch, cached_lengths, mask="causal")

Segments may be empty, and so may the pack. A query that has no keys (a text without tokens) gives zeros and a log-sum-exp
of -inf, which merges as nothing; no kernel is shown such a segment (`skipping_empty`).

A causal mask is aligned at the END of a segment: the last query sees every key of its segment, so that a query
against a cache of earlier keys needs no offset. Keys and values may have fewer heads than queries (grouped heads): each
serves as many query heads, in order, and a kernel that wants equal numbers repeats them itself. Every kernel gives
`(out, lse)`; the log-sum-exp is what lets partial results over blocks of keys be merged exactly (ring attention), and it
carries no gradient.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import compress
from typing import Literal, Protocol

import torch
from torch import Tensor

from wfm.errors import ConfigError
from wfm.parallel.varlen_cuda import flash_is_installed, flash_varlen, torch_varlen

Mask = Literal["full", "causal"]
MASKS: tuple[str, ...] = ("full", "causal")


Lengths = Sequence[int]


class Kernel(Protocol):
    """Attention of a pack. q `[Q, H, D]`, k and v `[K, H_kv, D]`, H_kv dividing H, with the lengths of their segments -> out
    `[Q, H, D]`, lse `[Q, H]` (fp32 or better)."""

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, q_segments: Lengths, kv_segments: Lengths, *, causal: bool
    ) -> tuple[Tensor, Tensor]: ...


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


def fused_cpu_kernel(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> tuple[Tensor, Tensor]:
    """The fused kernel of aten for the CPU: never materialises the scores, has a backward, gives an fp32 log-sum-exp.

    Its own causal flag aligns at the start, which is the same thing only for as many queries as keys; otherwise the
    mask is handed over explicitly. One query against a cache sees everything and needs no mask.
    """
    num_queries, num_keys = q.shape[-2], k.shape[-2]
    bias = None
    if causal and 1 < num_queries != num_keys:
        bias = torch.zeros(num_queries, num_keys, dtype=q.dtype, device=q.device)
        bias.masked_fill_(~causal_visible(num_queries, num_keys, q.device), -math.inf)
    square = causal and num_queries == num_keys
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


def by_segment(dense: DenseKernel) -> Kernel:
    """A kernel of packs from one of dense batches: segments of equal length are one batch, others run one by one."""

    def run(
        q: Tensor, k: Tensor, v: Tensor, q_segments: Lengths, kv_segments: Lengths, *, causal: bool
    ) -> tuple[Tensor, Tensor]:
        if len(set(q_segments)) == 1 and len(set(kv_segments)) == 1:  # no copies
            return _dense(dense, q, k, v, len(q_segments), causal)
        pieces = zip(q.split(list(q_segments)), k.split(list(kv_segments)), v.split(list(kv_segments)), strict=True)
        outs, lses = zip(*(_dense(dense, *piece, 1, causal) for piece in pieces), strict=True)
        return torch.cat(outs), torch.cat(lses)

    return run


def _dense(run: DenseKernel, q: Tensor, k: Tensor, v: Tensor, batch: int, causal: bool) -> tuple[Tensor, Tensor]:
    heads, head_dim = q.shape[-2:]
    if k.shape[-2] != heads:  # grouped heads
        k, v = (x.repeat_interleave(heads // x.shape[-2], dim=-2) for x in (k, v))
    q, k, v = (x.reshape(batch, -1, heads, head_dim).transpose(1, 2) for x in (q, k, v))  # [B, H, S, D]
    out, lse = run(q, k, v, causal=causal)
    return out.transpose(1, 2).reshape(-1, heads, head_dim), lse.transpose(1, 2).reshape(-1, heads)


def skipping_empty(kernel: Kernel) -> Kernel:
    """`kernel`, shown only the segments that have queries and keys. (aten's for the CPU divides by the number of keys, which
    ends the process.) Queries without keys give zeros and an lse of -inf; gradients there are zeros."""

    def run(
        q: Tensor, k: Tensor, v: Tensor, q_segments: Lengths, kv_segments: Lengths, *, causal: bool
    ) -> tuple[Tensor, Tensor]:
        if q_segments and all(q_segments) and all(kv_segments):
            return kernel(q, k, v, q_segments, kv_segments, causal=causal)
        seen = [n > 0 and m > 0 for n, m in zip(q_segments, kv_segments, strict=True)]
        if not any(seen):
            nothing = q[:0].sum() + k[:0].sum() + v[:0].sum()  # 0, and what makes gradients zeros instead of none
            lse = q.new_full(q.shape[:2], -math.inf, dtype=torch.promote_types(q.dtype, torch.float32))
            return q.new_zeros(q.shape) + nothing, lse
        packs = ((q, q_segments), (k, kv_segments), (v, kv_segments))
        queries, keys, values = (torch.cat(list(compress(x.split(list(n)), seen))) for x, n in packs)
        q_lengths, kv_lengths = (tuple(compress(n, seen)) for n in (q_segments, kv_segments))
        out, lse = kernel(queries, keys, values, q_lengths, kv_lengths, causal=causal)
        return _spread(out, q_segments, seen, 0.0), _spread(lse, q_segments, seen, -math.inf)

    return run


def _spread(x: Tensor, lengths: Lengths, seen: Sequence[bool], value: float) -> Tensor:
    """Rows of the segments that were `seen` -> rows of all segments, those of the others filled with `value`."""
    parts = iter(x.split(list(compress(lengths, seen))))
    return torch.cat(
        [next(parts) if here else x.new_full((n, *x.shape[1:]), value) for n, here in zip(lengths, seen, strict=True)]
    )


KERNELS: dict[str, Kernel] = {
    name: skipping_empty(kernel)
    for name, kernel in {
        "naive": by_segment(naive_kernel),
        "fused_cpu": by_segment(fused_cpu_kernel),
        "efficient": by_segment(efficient_cuda_kernel),
        "flash": flash_varlen,
        "torch_varlen": torch_varlen,
    }.items()
}
"""By name. naive: any device, fp64 inside, the reference. fused_cpu: aten's, on a CPU. efficient: aten's, on CUDA in fp32.
flash, torch_varlen: CUDA in half precision; the first needs the package flash-attn, the second comes with torch."""


def kernel_for(name: str, device: torch.device, dtype: torch.dtype) -> Kernel:
    """The kernel called `name`; "auto" takes the fastest that this device and type have, the reference where none is.

    Raises ConfigError for an unknown name, and for a CUDA kernel asked for elsewhere or in another type.
    """
    half_on_cuda = device.type == "cuda" and dtype in (torch.float16, torch.bfloat16)
    if name == "auto":
        if half_on_cuda:
            name = "flash" if flash_is_installed() else "torch_varlen"
        elif device.type == "cuda" and dtype == torch.float32:
            name = "efficient"
        else:
            name = "fused_cpu" if device.type == "cpu" else "naive"
    if name not in KERNELS:
        raise ConfigError(f"attention kernel: {name!r} is unknown; choose one of auto, {', '.join(sorted(KERNELS))}")
    if name in ("flash", "torch_varlen") and not half_on_cuda:
        raise ConfigError(
            f"attention kernel: {name!r} runs on CUDA in fp16 or bf16, not on {device.type} in {dtype}; use auto"
        )
    if name == "efficient" and device.type == "cpu":
        raise ConfigError("attention kernel: 'efficient' runs on CUDA; use auto, which takes fused_cpu here")
    return KERNELS[name]


def under_autocast(x: Tensor) -> bool:
    """Whether products on the device of `x` choose their own type now. (Asked of the meta device, torch raises.)"""
    return x.device.type != "meta" and torch.is_autocast_enabled(x.device.type)


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Within, products on the device of `x` keep the type of their factors: for what must not be rounded."""
    return torch.autocast(x.device.type, enabled=False) if under_autocast(x) else nullcontext()


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_segments: Sequence[int],
    kv_segments: Sequence[int],
    *,
    mask: Mask = "full",
    kernel: str = "auto",
) -> Tensor:
    """Attention over a pack. q `[Q, H, D]`, k and v `[K, H_kv, D]`, H_kv dividing H; segment lengths, which may be 0, sum to Q
    and K. Returns `[Q, H, D]`.

    Raises ConfigError for an unknown mask or kernel, for segments that do not cover the pack, for heads that do not divide,
    and for no heads or heads of no width.
    """
    return attention_with_lse(q, k, v, q_segments, kv_segments, mask=mask, kernel=kernel)[0]


def attention_with_lse(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_segments: Sequence[int],
    kv_segments: Sequence[int],
    *,
    mask: Mask = "full",
    kernel: str = "auto",
) -> tuple[Tensor, Tensor]:
    """As `attention`, with the log-sum-exp `[Q, H]` of every query's scores beside the output."""
    _check(q, k, v, q_segments, kv_segments, mask)
    q, k = (
        x.to(v.dtype) for x in (q, k)
    )  # autocast norms queries and keys in fp32; `_check` has refused any other mix
    run = kernel_for(kernel, q.device, q.dtype)
    return run(q, k, v, q_segments, kv_segments, causal=mask == "causal")


def _check(q: Tensor, k: Tensor, v: Tensor, q_segments: Sequence[int], kv_segments: Sequence[int], mask: str) -> None:
    if mask not in MASKS:
        raise ConfigError(f"attention mask: {mask!r} is unknown; choose one of {', '.join(MASKS)}")
    if len(q_segments) != len(kv_segments):
        raise ConfigError(f"attention: {len(q_segments)} query segments against {len(kv_segments)} key segments")
    shaped = all(x.ndim == 3 and x.shape[2] == q.shape[2] and 0 not in x.shape[1:] for x in (q, k, v))
    if not shaped or k.shape[1] != v.shape[1] or q.shape[1] % k.shape[1]:
        raise ConfigError(
            f"attention: queries {list(q.shape)}, keys {list(k.shape)}, values {list(v.shape)}; "
            "wanted [tokens, heads, head_dim] with the same head_dim in all three, as many heads of keys as of values, and a "
            "multiple of them of queries, at least 1 of each"
        )
    if min((*q_segments, *kv_segments), default=0) < 0:
        raise ConfigError(
            f"attention: segments of {list(q_segments)} queries and {list(kv_segments)} keys; none is below 0"
        )
    if sum(q_segments) != q.shape[0] or sum(kv_segments) != k.shape[0] or k.shape[0] != v.shape[0]:
        raise ConfigError(
            f"attention: segments of {sum(q_segments)} queries and {sum(kv_segments)} keys do not cover a pack of "
            f"{q.shape[0]} queries, {k.shape[0]} keys and {v.shape[0]} values"
        )
    if not q.dtype == k.dtype == v.dtype and not under_autocast(q):
        raise ConfigError(
            f"attention: queries {q.dtype}, keys {k.dtype}, values {v.dtype}; give all three in one type (autocast may mix)"
        )
    if mask == "causal" and any(n > m for n, m in zip(q_segments, kv_segments, strict=True)):
        raise ConfigError("attention: a causal segment needs at least as many keys as queries")
