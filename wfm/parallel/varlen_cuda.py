"""Attention kernels that take a pack as it is: flash-attn's and torch's own, both on CUDA in half precision.

    flash_varlen     the package flash-attn (extra `gpu`), imported when it is first called
    torch_varlen     torch.nn.attention.varlen

Both align a causal mask at the end of a segment, take grouped heads as they are, and give the log-sum-exp as `[H, Q]`. They
have not been run where this was written (no CUDA device); their arguments are tested against stand-ins that record them.
"""

from functools import lru_cache
from importlib.util import find_spec

import torch
from torch import Tensor

from wfm.errors import MissingPackage
from wfm.parallel.segments import AnySegments, Segments


def flash_is_installed() -> bool:
    """Whether the package flash-attn can be imported (it is not imported here)."""
    return find_spec("flash_attn") is not None


def flash_varlen(
    q: Tensor, k: Tensor, v: Tensor, q_segments: AnySegments, kv_segments: AnySegments, *, causal: bool
) -> tuple[Tensor, Tensor]:
    """See `wfm.parallel.attention.Kernel`. Raises MissingPackage where flash-attn is not installed."""
    try:
        from flash_attn import flash_attn_varlen_func
    except ImportError:
        raise MissingPackage("flash_attn", extra="gpu", purpose="the attention kernel 'flash'") from None
    out, lse, _ = flash_attn_varlen_func(
        q,
        k,
        v,
        _bounds(q_segments, q.device),
        _bounds(kv_segments, q.device),
        _longest(q_segments),
        _longest(kv_segments),
        causal=causal,
        return_attn_probs=True,
    )
    return out, lse.detach().transpose(0, 1)


def torch_varlen(
    q: Tensor, k: Tensor, v: Tensor, q_segments: AnySegments, kv_segments: AnySegments, *, causal: bool
) -> tuple[Tensor, Tensor]:
    """See `wfm.parallel.attention.Kernel`."""
    from torch.nn.attention.varlen import AuxRequest, varlen_attn

    out, lse = varlen_attn(
        q,
        k,
        v,
        _bounds(q_segments, q.device),
        _bounds(kv_segments, q.device),
        _longest(q_segments),
        _longest(kv_segments),
        return_aux=AuxRequest(lse=True),
        window_size=(-1, 0) if causal else (-1, -1),
        enable_gqa=k.shape[1] != q.shape[1],
    )
    return out, lse.detach().transpose(0, 1)


def _bounds(segments: AnySegments, device: torch.device) -> Tensor:
    return segments.bounds if isinstance(segments, Segments) else offsets(tuple(segments), device)


def _longest(segments: AnySegments) -> int:
    return segments.longest if isinstance(segments, Segments) else max(segments)


@lru_cache(maxsize=64)
def offsets(segments: tuple[int, ...], device: torch.device) -> Tensor:
    """Where each segment starts, and the end of the last: int32 `[S + 1]`. Kept, because all blocks of a network ask for
    the same and a copy to the device waits for it."""
    starts = torch.tensor((0, *segments), dtype=torch.int64).cumsum(0, dtype=torch.int32)
    return starts.to(device, non_blocking=True)
