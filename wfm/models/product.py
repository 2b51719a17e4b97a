"""The matrix product of a linear layer without bias on a CPU: the one place that chooses which library it runs on.

    x [..., K], weight [N, K]  ->  [..., N]

On a CPU in fp32 `F.linear` calls MKL; oneDNN, which torch brings along, does the same product faster on processors that
are not Intel's (measured on an AMD EPYC "Rome": 1.1 to 1.2 times on one thread, up to 1.35 on two). Small products are left
to MKL, whose call costs less. Elsewhere (CUDA, other types, meta tensors) `F.linear` is already the right call.

oneDNN lays out a weight for itself at every call, which costs as much as a tenth of a product of few hundred rows;
`PackedWeights` does that once, for calls that repeat with weights that stay, as a sampler's. `fast_cpu` puts both to use.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wfm.parallel.attention import under_autocast

FEW = 8_000_000
"""Multiply-adds below which a oneDNN call (25 microseconds before it starts, MKL: 5) is no gain."""
FEW_ROWS, FEW_OF_FEW_ROWS = 192, 20_000_000
"""The same for fewer rows than that, where laying out the weight at each call weighs more."""
FEW_OF_ONE_ROW = 1_000_000
"""The same for a single row, a step of decoding: below, MKL's product of a matrix and a vector is 1.1 to 2 times as fast as its
product of matrices; above, it runs on one thread and oneDNN on all."""
FEW_LEARNING = 64_000_000
"""The same where gradients are wanted: torch's own gradient of a product runs without Python."""


def product(x: Tensor, weight: Tensor) -> Tensor:
    """x `[..., K]` times weight `[N, K]` transposed: `[..., N]`."""
    if torch.compiler.is_compiling():
        fits = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
        return _compiled(x, weight) if _compiled and fits and _is_large(x, weight) else F.linear(x, weight)
    rows = x.numel() // weight.shape[1]
    if rows == 1 and _is_short(x, weight):
        return torch.mv(weight, x.reshape(-1)).view(*x.shape[:-1], -1)
    few = FEW if rows >= FEW_ROWS else FEW_OF_FEW_ROWS if rows > 1 else FEW_OF_ONE_ROW
    if not _onednn_is_faster(x, weight, few):
        return F.linear(x, weight)
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return _Product.apply(x, weight) if _is_large(x, weight, FEW_LEARNING) else F.linear(x, weight)
    return _onednn(x, weight)


def _is_short(row: Tensor, weight: Tensor) -> bool:
    return (
        weight.numel() < FEW_OF_ONE_ROW
        and row.device.type == "cpu"
        and row.dtype == weight.dtype
        and not torch.is_grad_enabled()
        and not under_autocast(row)
    )


def _onednn_is_faster(x: Tensor, weight: Tensor, few: int | None = None) -> bool:
    return (
        _is_large(x, weight, few)
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == "cpu"
        and _onednn_is_there()
        and not under_autocast(x)
    )


def _is_large(x: Tensor, weight: Tensor, few: int | None = None) -> bool:
    return x.numel() * weight.shape[0] >= (FEW if few is None else few)


@lru_cache(maxsize=1)
def _onednn_is_there() -> bool:
    return torch.backends.mkldnn.is_available()


def _onednn(x: Tensor, weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")


_compiled: Callable[[Tensor, Tensor], Tensor] | None = None
"""`_onednn` as an operator that torch.compile leaves alone (its own rule for it wants constant weights)."""
_library: torch.library.Library | None = None


def allow_compiling() -> None:
    """Make `product` run on oneDNN inside torch.compile too; without this it is `F.linear` there. Call it before compiling;
    again is no harm."""
    global _compiled, _library
    if _compiled is not None or not _onednn_is_there():
        return
    _library = torch.library.Library("wfm", "FRAGMENT")  # lives as long as its operators
    _library.define("product(Tensor x, Tensor weight) -> Tensor")
    _library.impl("product", _onednn, "CPU")
    torch.library.register_fake(
        "wfm::product", lambda x, weight: x.new_empty((*x.shape[:-1], weight.shape[0])), lib=_library
    )
    torch.library.register_autograd("wfm::product", _gradients, setup_context=_keep, lib=_library)
    _compiled = torch.ops.wfm.product.default


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Of x and of the weight. The latter stays with MKL: it reads both factors transposed, which oneDNN copies first."""
    x, weight = ctx.saved_tensors
    of_x = product(grad, weight.t()) if ctx.needs_input_grad[0] else None
    of_weight = grad.flatten(0, -2).t() @ x.flatten(0, -2) if ctx.needs_input_grad[1] else None
    return of_x, of_weight


class PackedWeights:
    """What a layer keeps inside `fast_cpu.packed_weights`: weights as oneDNN wants them, by name, each made when first used."""

    def __init__(self, *, laid_out: bool = True) -> None:
        self._laid_out = laid_out
        self._made: dict[Any, Tensor] = {}
        self._plain: dict[Any, Tensor] = {}

    def plain(self, key: Any, weight: Callable[[], Tensor]) -> Tensor | None:
        """The weight called `key`, put together by `weight` once: for a few rows, where putting it together costs more than
        the product; None where gradients or autocast want the parameters themselves."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return None
        found = self._plain.get(key)
        if found is None:
            found = self._plain[key] = weight().detach()
        return found

    def product(self, x: Tensor, key: Any, weight: Callable[[], Tensor]) -> Tensor | None:
        """x times the weight called `key`, made by `weight` once; None where packing is of no use."""
        if not self._laid_out or torch.is_grad_enabled() or torch.compiler.is_compiling() or under_autocast(x):
            return None
        packed = self._made.get(key)
        if packed is None:
            plain = weight()
            if not _onednn_is_faster(x, plain):
                return None
            packed = self._made[key] = torch.ops.mkldnn._reorder_linear_weight(plain.detach(), x.numel() // x.shape[-1])
        return _onednn(x, packed) if _is_large(x, packed) and x.dtype == packed.dtype else None


class _Product(torch.autograd.Function):
    """`_onednn` with the gradient it lacks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _onednn(x, weight)

    backward = staticmethod(_gradients)
