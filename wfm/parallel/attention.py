"""Attention over a pack of tokens: one signature, several kernels.

Tokens are one axis. A batch is a pack `[tokens, heads, head_dim]` together with the lengths of its segments, and
attention never crosses a segment. Self-attention, cross-attention and attention against a cache differ only in the
segments given:

    self    attention(q, k, v, lengths, lengths, mask="full" | "causal")
    cross   attention(q, k, v, query_lengths, text_lengths, mask="full")
    cached  attention(q, k, v, (1,) * batch, cached_lengths, mask="causal")

Segments may be given as a tensor (`segments.Segments`), which a compiled network needs: no graph then depends on a length.

Segments may be empty, and so may the pack. A query that has no keys (a text without tokens) gives zeros and a log-sum-exp
of -inf, which merges as nothing; no kernel is shown such a segment (`skipping_empty`).

A causal mask is aligned at the END of a segment: the last query sees every key of its segment, so that a query
against a cache of earlier keys needs no offset. Keys and values may have fewer heads than queries (grouped heads): each
serves as many query heads, in order, and a kernel that wants equal numbers repeats them itself. Every kernel gives
`(out, lse)`; the log-sum-exp is what lets partial results over blocks of keys be merged exactly (ring attention), and it
carries no gradient.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor

from wfm.errors import ConfigError
from wfm.parallel.by_segment import Kernel, skipping_empty
from wfm.parallel.opaque import FORWARD, pack_attention
from wfm.parallel.segments import AnySegments, Segments, equal_runs, lengths_of
from wfm.parallel.varlen_cuda import flash_is_installed, flash_varlen, torch_varlen

Mask = Literal["full", "causal"]
MASKS: tuple[str, ...] = ("full", "causal")


KERNELS: dict[str, Kernel] = {
    **FORWARD,
    "flash": skipping_empty(flash_varlen),
    "torch_varlen": skipping_empty(torch_varlen),
}
"""By name. naive: any device, fp64 inside, the reference. fused_cpu: aten's, on a CPU. efficient: aten's, on CUDA in fp32.
flash, torch_varlen: CUDA in half precision; the first needs the package flash-attn, the second comes with torch."""
BY_BOUNDS: dict[str, Kernel] = {"flash": flash_varlen, "torch_varlen": torch_varlen}
"""Those that read where segments begin on the device themselves, empty ones included."""


def kernel_for(name: str, device: torch.device, dtype: torch.dtype) -> Kernel:
    """The kernel called `name`: see `kernel_name`."""
    return KERNELS[kernel_name(name, device, dtype)]


def kernel_name(name: str, device: torch.device, dtype: torch.dtype) -> str:
    """`name`, or for "auto" the fastest that this device and type have, the reference where none is.

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
    return name


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
    q_segments: AnySegments,
    kv_segments: AnySegments,
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
    q_segments: AnySegments,
    kv_segments: AnySegments,
    *,
    mask: Mask = "full",
    kernel: str = "auto",
) -> tuple[Tensor, Tensor]:
    """As `attention`, with the log-sum-exp `[Q, H]` of every query's scores beside the output."""
    _check(q, k, v, q_segments, kv_segments, mask)
    q, k = (
        x.to(v.dtype) for x in (q, k)
    )  # autocast norms queries and keys in fp32; `_check` has refused any other mix
    name = kernel_name(kernel, q.device, q.dtype)
    if isinstance(q_segments, Segments) and isinstance(kv_segments, Segments):
        if name in BY_BOUNDS:
            return BY_BOUNDS[name](q, k, v, q_segments, kv_segments, causal=mask == "causal")
        if torch.compiler.is_compiling() or len(equal_runs(q_segments.host(), kv_segments.host())) > 1:
            return pack_attention(q, k, v, q_segments.at_host, kv_segments.at_host, name, mask == "causal")
    return KERNELS[name](q, k, v, q_segments, kv_segments, causal=mask == "causal")


def _check(q: Tensor, k: Tensor, v: Tensor, q_segments: AnySegments, kv_segments: AnySegments, mask: str) -> None:
    if mask not in MASKS:
        raise ConfigError(f"attention mask: {mask!r} is unknown; choose one of {', '.join(MASKS)}")
    if torch.compiler.is_compiling() and isinstance(q_segments, Segments):
        return  # what follows reads lengths, which a graph must not
    q_segments, kv_segments = lengths_of(q_segments), lengths_of(kv_segments)
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
