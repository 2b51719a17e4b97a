"""Attention that is causal by blocks: a query sees the keys of its own block and of all blocks before (frame order).

One call for a whole pack, exact, without a mask and without work on what is masked. Of a segment of n queries in blocks of s,
a query sees

    the keys that stand before the first query       full
    the keys up to its own                           causal
    the later keys of its own block                  causal within each block, read backwards: s - 1 queries and keys

and the three are merged by their log-sum-exps, as partial results are in ring attention. Backward hands the merged output and
log-sum-exp to each part's own backward: the gradients of the parts then add up to that of the whole.

(A loop over blocks, each against the keys up to its end, does the same work in as many calls, copies every prefix, and its
backward fills a gradient of all keys for every block: quadratic in the number of blocks.)

On a CPU this is an operator of its own (`wfm::block_causal`), whose lengths are a tensor: a compiled graph serves every pack.
Elsewhere each segment is one call of torch's with a mask, between two graphs; not run on CUDA.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wfm.errors import ConfigError
from wfm.parallel.attention import kernel_for

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def block_causal(
    q: Tensor, k: Tensor, v: Tensor, q_segments: Sequence[int], kv_segments: Sequence[int], blocks: Sequence[int],
    *, kernel: str = "auto",
) -> Tensor:  # fmt: skip
    """Attention over a pack: q `[Q, H, D]`, k and v `[K, H_kv, D]`, H_kv dividing H; of each segment its queries, its keys and
    the positions of one of its blocks (1: plain causal). A segment's queries are whole blocks, and its keys end where they do.
    Returns `[Q, H, D]`. kernel: as of `attention`; "naive" is the fp64 reference, and on a CPU every other this file's own.

    Raises ConfigError for segments that do not cover the pack, and for queries that are no whole number of blocks.
    """
    _check(q, k, v, q_segments, kv_segments, blocks)
    kernel_for(kernel, q.device, v.dtype)
    if kernel != "naive" and q.device.type == "cpu":
        lengths = torch.tensor([list(q_segments), list(kv_segments), list(blocks)])
        return packed_blocks(q, k, v, lengths)
    dense = naive_blocks if kernel == "naive" else masked_blocks
    pieces = zip(q.split(list(q_segments)), k.split(list(kv_segments)), v.split(list(kv_segments)), blocks, strict=True)
    outs = [q[:0].to(v.dtype)]
    for *qkv, block in pieces:
        if not len(qkv[0]):
            continue
        one, keys, values = (x.transpose(0, 1)[None] for x in qkv)
        outs.append(dense(one, keys, values, block)[0].transpose(0, 1))
    return torch.cat(outs)


@torch.compiler.disable
def covered_blocks(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, kernel: str) -> Tensor:
    """`block_causal` of a pack that is filled up, on any device; lengths as of `packed_blocks`, and rows behind the last
    segment give zeros as there. It goes by the lengths as numbers: a compiled graph of it would be one for each pack."""
    queries, keys, blocks = lengths.tolist()
    filled, known = sum(queries), sum(keys)
    out = block_causal(q[:filled], k[:known], v[:known], queries, keys, blocks, kernel=kernel)
    return F.pad(out, (0, 0, 0, 0, 0, len(q) - filled))


def packed_blocks(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor) -> Tensor:
    """`block_causal` on a CPU; lengths int64 `[3, S]` on the CPU: queries, keys and block of each segment, 0 in segments that
    are not there. Rows behind the last segment give zeros."""
    q, k = q.to(v.dtype), k.to(v.dtype)  # autocast norms queries and keys in fp32
    return torch.ops.wfm.block_causal(q, k, v, lengths)[0]  # type: ignore[no-any-return]


# The references


def visible(queries: int, keys: int, block: int, device: torch.device) -> Tensor:
    """Which key `[Q, K]` (bool) each query may see; queries and keys end together, and blocks are counted from the end."""
    behind = torch.arange(queries - 1, -1, -1, device=device)[:, None] // block * block  # keys behind the query's block
    return torch.arange(keys - 1, -1, -1, device=device)[None] >= behind


def naive_blocks(q: Tensor, k: Tensor, v: Tensor, block: int) -> Tensor:
    """Dense, q `[B, H, Q, D]`, k and v `[B, H_kv, K, D]`: scores are materialised, everything in fp64; differentiable."""
    k, v = (x.double().repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    scores = q.double() @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    scores = scores.masked_fill(~visible(q.shape[-2], k.shape[-2], max(block, 1), q.device), -math.inf)
    return (torch.softmax(scores, dim=-1) @ v).to(q.dtype)


def masked_blocks(q: Tensor, k: Tensor, v: Tensor, block: int) -> Tensor:
    """The same by torch's own attention with a mask."""
    seen = visible(q.shape[-2], k.shape[-2], max(block, 1), q.device)
    return F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, attn_mask=seen, enable_gqa=True)


# On a CPU


@torch.library.custom_op("wfm::block_causal", mutates_args=())
def _block_causal(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Output `[Q, H, D]` and log-sum-exp `[Q, H]`, fp32 or better."""
    out = torch.zeros(q.shape, dtype=v.dtype)
    lse = torch.zeros(q.shape[:2], dtype=torch.promote_types(q.dtype, torch.float32))
    for place, of_keys, block in _segments(lengths):
        mine, of_mine = _merged(place(q), of_keys(k), of_keys(v), block)
        place(out).copy_(mine)
        place(lse).copy_(of_mine)
    return out, lse


@_block_causal.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape[:2], dtype=torch.promote_types(q.dtype, torch.float32))


@torch.library.custom_op("wfm::block_causal_backward", mutates_args=())
def _block_causal_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, lengths: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    of_q, of_k, of_v = (torch.zeros(x.shape, dtype=x.dtype) for x in (q, k, v))
    for place, of_keys, block in _segments(lengths):
        given = (place(grad), place(q), of_keys(k), of_keys(v), place(out), place(lse))
        wholes = (place(of_q), of_keys(of_k), of_keys(of_v))
        for whole, mine in zip(wholes, _gradients(*given, block), strict=True):
            whole.copy_(mine)
    return of_q, of_k, of_v


@_block_causal_backward.register_fake
def _(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, lengths: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:3], *output, inputs[3])
    ctx.set_materialize_grads(False)


def _back(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return None, None, None, None
    return *torch.ops.wfm.block_causal_backward(grad, *ctx.saved_tensors), None


_block_causal.register_autograd(_back, setup_context=_keep)

Rows = Callable[[Tensor], Tensor]


def _segments(lengths: Tensor) -> Iterator[tuple[Rows, Rows, int]]:
    """Of each segment that has queries: what takes its rows of a pack as a dense batch, `[Q, H, ...]` -> `[B, H, n, ...]`, the
    same of keys, and its block. Neighbours that are alike are one batch."""
    first, of_keys, number = 0, 0, 0
    columns = lengths.T.tolist()
    while number < len(columns):
        queries, keys, block = columns[number]
        alike = 1
        while number + alike < len(columns) and columns[number + alike] == columns[number]:
            alike += 1
        if queries:
            yield _rows(first, alike, queries), _rows(of_keys, alike, keys), max(block, 1)
        first, of_keys, number = first + alike * queries, of_keys + alike * keys, number + alike


def _rows(first: int, batch: int, each: int) -> Rows:
    def take(x: Tensor) -> Tensor:
        return x[first : first + batch * each].unflatten(0, (batch, each)).transpose(1, 2)

    return take


def _merged(q: Tensor, k: Tensor, v: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Of a dense batch, q `[B, H, n, D]`: output and log-sum-exp `[B, H, n]`."""
    queries, before = q.shape[2], k.shape[2] - q.shape[2]
    if queries == block:
        return _forward(q, k, v, 0.0, False)  # type: ignore[no-any-return]
    out, lse = _forward(q, k[:, :, before:], v[:, :, before:], 0.0, True)
    if before:
        _merge(out, lse, *_forward(q, k[:, :, :before], v[:, :, :before], 0.0, False))
    if block > 1:
        more, of_more = _forward(
            _early(q, block), _late(k[:, :, before:], block), _late(v[:, :, before:], block), 0.0, True
        )
        rows, of_rows = (x.unflatten(2, (-1, block))[:, :, :, :-1] for x in (out, lse))
        _merge(rows, of_rows, *(x.unflatten(0, (len(q), -1)).transpose(1, 2).flip(3) for x in (more, of_more)))
    return out, lse


def _merge(out: Tensor, lse: Tensor, more: Tensor, of_more: Tensor) -> None:
    """Add another part's result to one, `[..., D]` with log-sum-exps `[...]`, in place. (sigmoid never overflows.)"""
    out.copy_(torch.lerp(out.to(lse), more.to(lse), torch.sigmoid(of_more - lse)[..., None]))
    lse.copy_(torch.logaddexp(lse, of_more))


def _gradients(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, block: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Of queries, keys and values of a dense batch; out and lse: the merged ones."""
    queries, before = q.shape[2], k.shape[2] - q.shape[2]
    if queries == block:
        return _backward(grad, q, k, v, out, lse, 0.0, False)  # type: ignore[no-any-return]
    own = k[:, :, before:], v[:, :, before:]
    of_q, *of_own = _backward(grad, q, *own, out, lse, 0.0, True)
    of_k, of_v = (F.pad(x, (0, 0, before, 0)) for x in of_own) if before else of_own
    if before:
        more, *of_before = _backward(grad, q, k[:, :, :before], v[:, :, :before], out, lse, 0.0, False)
        of_q = of_q + more
        for whole, part in zip((of_k, of_v), of_before, strict=True):
            whole[:, :, :before] += part
    if block > 1:
        early = (_early(x, block) for x in (grad, q))
        late = (_late(x, block) for x in own)
        kept = (_early(x, block) for x in (out, lse))
        parts = _backward(*early, *late, *kept, 0.0, True)
        of_q, of_k, of_v = (x.contiguous() for x in (of_q, of_k, of_v))
        for whole, part, rows in zip(
            (of_q, of_k, of_v), parts, (slice(-1), slice(1, None), slice(1, None)), strict=True
        ):
            mine = whole[:, :, whole.shape[2] - queries :].unflatten(2, (-1, block))[:, :, :, rows]
            mine += part.unflatten(0, (len(q), -1)).transpose(1, 2).flip(3)
    return of_q, of_k, of_v


def _early(x: Tensor, block: int) -> Tensor:
    """All but the last row of each block, backwards, a block a sample: `[B, H, n, ...]` -> `[B n / s, H, s - 1, ...]`."""
    return x.unflatten(2, (-1, block))[:, :, :, :-1].flip(3).transpose(1, 2).flatten(0, 1)


def _late(x: Tensor, block: int) -> Tensor:
    """All but the first row, likewise."""
    return x.unflatten(2, (-1, block))[:, :, :, 1:].flip(3).transpose(1, 2).flatten(0, 1)


def _check(
    q: Tensor, k: Tensor, v: Tensor, q_segments: Sequence[int], kv_segments: Sequence[int], blocks: Sequence[int]
) -> None:
    if not len(q_segments) == len(kv_segments) == len(blocks):
        raise ConfigError(
            f"attention by blocks: {len(q_segments)} segments of queries, {len(kv_segments)} of keys, {len(blocks)} blocks; "
            "give one of each"
        )
    if q.ndim != 3 or k.shape != v.shape or q.shape[2] != k.shape[2] or not k.shape[1] or q.shape[1] % k.shape[1]:
        raise ConfigError(
            f"attention by blocks: queries {list(q.shape)}, keys {list(k.shape)}, values {list(v.shape)}; wanted "
            "[tokens, heads, head_dim], and heads of queries a multiple of those of keys"
        )
    if sum(q_segments) != q.shape[0] or sum(kv_segments) != k.shape[0]:
        raise ConfigError(
            f"attention by blocks: segments of {sum(q_segments)} queries and {sum(kv_segments)} keys do not cover a pack of "
            f"{q.shape[0]} and {k.shape[0]}"
        )
    for queries, keys, block in zip(q_segments, kv_segments, blocks, strict=True):
        if (queries and block < 1) or queries % max(block, 1) or queries > keys:
            raise ConfigError(
                f"attention by blocks: {queries} queries in blocks of {block} against {keys} keys; a segment's queries are "
                "whole blocks, and no more than its keys"
            )
