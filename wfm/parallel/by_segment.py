"""Kernels of packs from kernels of dense batches: segment by segment, and none of them empty."""

import math
from collections.abc import Sequence
from itertools import compress
from typing import Protocol

import torch
from torch import Tensor

from wfm.parallel.dense import DenseKernel
from wfm.parallel.segments import AnySegments, equal_runs, lengths_of


class Kernel(Protocol):
    """Attention of a pack. q `[Q, H, D]`, k and v `[K, H_kv, D]`, H_kv dividing H, with the lengths of their segments -> out
    `[Q, H, D]`, lse `[Q, H]` (fp32 or better)."""

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, q_segments: AnySegments, kv_segments: AnySegments, *, causal: bool
    ) -> tuple[Tensor, Tensor]: ...


def by_segment(dense: DenseKernel) -> Kernel:
    """A kernel of packs from one of dense batches: neighbouring segments of equal length are one batch."""

    def run(
        q: Tensor, k: Tensor, v: Tensor, q_segments: AnySegments, kv_segments: AnySegments, *, causal: bool
    ) -> tuple[Tensor, Tensor]:
        q_segments, kv_segments = lengths_of(q_segments), lengths_of(kv_segments)
        if len(set(q_segments)) == 1 and len(set(kv_segments)) == 1:  # no copies
            return _dense(dense, q, k, v, len(q_segments), causal)
        runs = equal_runs(q_segments, kv_segments)
        of_q, of_kv = [count * n for count, n, _ in runs], [count * n for count, _, n in runs]
        pieces = zip(q.split(of_q), k.split(of_kv), v.split(of_kv), runs, strict=True)
        outs, lses = zip(*(_dense(dense, a, b, c, run[0], causal) for a, b, c, run in pieces), strict=True)
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
        q: Tensor, k: Tensor, v: Tensor, q_segments: AnySegments, kv_segments: AnySegments, *, causal: bool
    ) -> tuple[Tensor, Tensor]:
        q_segments, kv_segments = lengths_of(q_segments), lengths_of(kv_segments)
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


def _spread(x: Tensor, lengths: Sequence[int], seen: Sequence[bool], value: float) -> Tensor:
    """Rows of the segments that were `seen` -> rows of all segments, those of the others filled with `value`."""
    parts = iter(x.split(list(compress(lengths, seen))))
    return torch.cat(
        [next(parts) if here else x.new_full((n, *x.shape[1:]), value) for n, here in zip(lengths, seen, strict=True)]
    )
