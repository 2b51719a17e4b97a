"""What makes calls on a CPU fast, applied from outside: a layer's twin in place of the layer.

    fast_cpu(model)                   from here on, in place; `plain(model)` takes it back
    with packed_weights(model): ...   for the while, and weights are laid out once (they must not change inside)

A twin is a subclass with the same parameters under the same names that computes the same by fewer and larger calls: one product
for queries, keys and values, rotated pairs side by side, norms and gates in few passes (`fused`), the library that is fastest
for a product (`product`). So a model's state dict, its checkpoints and `isinstance` know nothing of it; only the class of a
layer changes, and swapping it back and forth copies nothing. A twin reads weights of the layers inside it, past their
`forward` (`reads`): it is for one process on a CPU, the last pass of all (`parallelize`), and not for parameters that are
spread over ranks; where such a layer was replaced, wrapped or hooked, the one around it stays as it is.

Layers here are those of `layers`. A package of a network with twins of its own says so by a function `fast_twins` in its
`__init__`; whatever has no twin stays as it is.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from wfm.models import fused
from wfm.models.fused import bring_pairs_together, head_norm, stands_back
from wfm.models.layers import AdaLayerNormLoRA, Attention, DotProductAttention, GELUProjection, Linear, RMSNorm, SwiGLU
from wfm.models.product import PackedWeights, product
from wfm.models.rotary import Rope, apply_rope
from wfm.parallel.attention import Mask
from wfm.parallel.segments import AnySegments

FEW_TOKENS = 64
"""Below this many, copying the weights of queries, keys and values into one costs more than two further products."""

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def fast_cpu(model: ModuleT) -> ModuleT:
    """Put twins in place of the layers of a `model` that lies on a CPU, and return it. Again is no harm."""
    if all(parameter.device.type == "cpu" for parameter in model.parameters()):
        for part in model.modules():
            twin = _twins_around(type(part)).get(type(part))
            reads: Mapping[str, type[nn.Module]] = getattr(twin, "reads", {})
            if twin is not None and all(_is_as_written(getattr(part, name), kind) for name, kind in reads.items()):
                part.__class__ = twin
    return model


def _is_as_written(layer: nn.Module | None, kind: type[nn.Module]) -> bool:
    """Whether a layer is the network's own, of class `kind`, and nobody listens to its calls; one that is not there is."""
    if layer is None or type(layer) is nn.Identity:
        return True
    heard = layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks
    return not heard and (_made_for(type(layer)) or type(layer)) is kind  # type: ignore[arg-type]


def plain(model: ModuleT) -> ModuleT:
    """Take `fast_cpu` back."""
    for part in model.modules():
        made_for = _made_for(type(part))  # type: ignore[arg-type]
        if made_for is not None:
            part.__class__ = made_for
    return model


@contextmanager
def packed_weights(module: nn.Module, *, laid_out: bool = True) -> Iterator[None]:
    """Inside, `module` is `fast_cpu`, and its layers keep what they would otherwise make of their weights at each call: laid
    out for oneDNN (at up to twice their memory; `laid_out=False`: not, where large products do not repeat), and put together
    for calls of few rows, such as a decoding step's.

    The weights must not change meanwhile: a change would not be seen. Calls with gradients, on other devices, or in other
    types are as outside.
    """
    before = {part: type(part) for part in module.modules()}
    keepers = [part for part in fast_cpu(module).modules() if isinstance(part, _Keeps)]
    for keeper in keepers:
        keeper.kept = PackedWeights(laid_out=laid_out)
    try:
        yield
    finally:
        for keeper in keepers:
            keeper.kept = None
        for part, kind in before.items():
            part.__class__ = kind


def _twins_around(kind: type[nn.Module]) -> Mapping[type[nn.Module], type[nn.Module]]:
    """The twins among which that of a class is looked for: those of its package."""
    if kind.__module__ == Linear.__module__:
        return TWINS
    package = sys.modules.get(kind.__module__.rpartition(".")[0])
    found = getattr(package, "fast_twins", None)
    return {} if found is None else found()


@lru_cache(maxsize=256)
def _made_for(kind: type[nn.Module]) -> type[nn.Module] | None:
    """The class that `kind` is the twin of, if it is one."""
    return next((base for base in kind.__mro__[1:] if _twins_around(base).get(base) is kind), None)


# The twins


class _Keeps(nn.Module):
    """A layer that can keep what it makes of its weights."""

    kept: PackedWeights | None = None


class FastLinear(_Keeps, Linear):
    """On the library that is fastest for the size."""

    def forward(self, x: Tensor) -> Tensor:
        if self.kept is not None:
            out = self.kept.product(x, "weight", lambda: self.weight)
            if out is not None:
                return out
        return product(x, self.weight)


class FastRMSNorm(RMSNorm):
    """In few passes."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if stands_back(x) else fused.rms_norm(x, self.weight, self.eps)


class FastAttention(_Keeps, Attention):
    """One product for queries, keys and values, one norm and one rotation for queries and keys, pairs side by side."""

    reads = {"to_q": Linear, "to_k": Linear, "to_v": Linear, "norm_q": RMSNorm, "norm_k": RMSNorm}

    def project(
        self, x: Tensor, context: Tensor | None = None, rope: Rope | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        few = x.numel() < FEW_TOKENS * x.shape[-1]
        if context is not None or (stands_back(x) and (few or not torch.compiler.is_compiling())):
            return super().project(x, context, rope)
        paired = rope is not None and not stands_back(x)
        heads = self._few_heads(x, paired) if few else self.heads(self._fused_product(x, paired))
        qk, v = heads.split([self.num_heads + self.num_kv_heads, self.num_kv_heads], dim=-2)
        if stands_back(x):
            q, k = qk.split([self.num_heads, self.num_kv_heads], dim=-2)
            q, k = self.norm_q(q), self.norm_k(k)
            return (q, k, v) if rope is None else (apply_rope(q, rope), apply_rope(k, rope), v)
        gain = self.kept.plain(("gain", paired), lambda: self._fused_gain(paired)) if self.kept is not None else None
        gain = self._fused_gain(paired) if gain is None else gain
        qk = head_norm(qk, gain, self.norm_q.eps, None if rope is None else _turn(rope))
        q, k = qk.split([self.num_heads, self.num_kv_heads], dim=-2)
        return q, k, v

    def project_queries(self, x: Tensor) -> Tensor:
        if stands_back(x):
            return super().project_queries(x)
        return head_norm(self.heads(self.to_q(x)), self.norm_q.weight, self.norm_q.eps)

    def project_context(self, context: Tensor) -> tuple[Tensor, Tensor]:
        if stands_back(context):
            return super().project_context(context)
        k, v = product(context, torch.cat([self.to_k.weight, self.to_v.weight])).chunk(2, dim=-1)
        return head_norm(self.heads(k), self.norm_k.weight, self.norm_k.eps), self.heads(v)

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Mask = "full",
        *,
        q_segments: AnySegments | None = None,
        kv_segments: AnySegments | None = None,
    ) -> Tensor:
        own = type(self.core) is DotProductAttention and self.core.kernel == "auto"
        if own and q_segments is kv_segments is None and q.shape[1] == 1 and k.numel():
            return self._attend_once(q, k, v)
        return super().attend(q, k, v, mask, q_segments=q_segments, kv_segments=kv_segments)

    def _attend_once(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """`attend` of one query a row, which sees all keys: the query heads that share keys stand as queries of one head, so
        that no key is copied. A step of cached decoding is this; torch's own call picks the kernel at the least cost."""
        batch = q.shape[0]
        grouped = q.view(batch, self.num_kv_heads, -1, self.head_dim)  # [B, H_kv, shared, D]
        out = F.scaled_dot_product_attention(grouped, k.transpose(1, 2), v.transpose(1, 2))
        return self.to_out[0](out.reshape(batch, 1, -1))

    def _few_heads(self, x: Tensor, paired: bool) -> Tensor:
        """Queries, keys and values `[B, N, H + 2 H_kv, D]` of few tokens."""
        weight = self.kept.plain(paired, lambda: self._fused_weight(paired)) if self.kept is not None else None
        if weight is not None:
            return self.heads(product(x, weight))
        heads = torch.cat([self.heads(to(x)) for to in (self.to_q, self.to_k, self.to_v)], dim=-2)
        if not paired:
            return heads
        rotated = self.num_heads + self.num_kv_heads
        return torch.cat([bring_pairs_together(heads[..., :rotated, :]), heads[..., rotated:, :]], dim=-2)

    def _fused_product(self, x: Tensor, paired: bool) -> Tensor:
        out = self.kept.product(x, paired, lambda: self._fused_weight(paired)) if self.kept is not None else None
        return product(x, self._fused_weight(paired)) if out is None else out

    def _fused_weight(self, paired: bool) -> Tensor:
        """The weights of queries, keys and values as one `[(H + 2 H_kv) D, d]`; copying them costs less than three
        products instead of one."""
        q, k, v = (
            w.unflatten(0, (-1, 2, self.head_dim // 2)) for w in (self.to_q.weight, self.to_k.weight, self.to_v.weight)
        )
        if paired:  # rows of q and k in the order of `bring_pairs_together`, those of v as they are
            q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.view(v.shape[0], -1, 2, v.shape[-1])
        return torch.cat([q, k, v]).flatten(0, 2)

    def _fused_gain(self, paired: bool) -> Tensor:
        """The gains of the norms of queries and keys, one row a head: `[H + H_kv, D]`."""
        gain = torch.cat(
            [self.norm_q.weight.expand(self.num_heads, -1), self.norm_k.weight.expand(self.num_kv_heads, -1)]
        )
        return bring_pairs_together(gain) if paired else gain


_TURNS = WeakIdKeyDictionary()


def _turn(rope: Rope) -> Tensor:
    """cos + i sin of a rotation, complex `[N, D / 2]`; all layers of a call share one."""
    found: Tensor | None = _TURNS.get(rope.cos)
    if found is None:
        found = _TURNS[rope.cos] = torch.complex(rope.cos, rope.sin)
    return found


class FastAdaLayerNormLoRA(AdaLayerNormLoRA):
    """Norm and gate in few passes."""

    def modulated(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return super().modulated(x, shift, scale) if stands_back(x) else fused.modulated_norm(x, shift, scale)

    def gated(self, x: Tensor, gate: Tensor, y: Tensor) -> Tensor:
        return super().gated(x, gate, y) if stands_back(x) else fused.gated_sum(x, gate, y)


class FastGELUProjection(GELUProjection):
    """In place where nothing is learned."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.proj(x)
        return F.gelu(hidden) if stands_back(hidden) else fused.gelu(hidden)


class FastSwiGLU(_Keeps, SwiGLU):
    """One product for gate and value of few rows, where weights are kept."""

    reads = {"w1": Linear, "w3": Linear}

    def forward(self, x: Tensor) -> Tensor:
        both = None
        if self.kept is not None and x.numel() < FEW_TOKENS * x.shape[-1]:
            both = self.kept.plain("both", lambda: torch.cat([self.w1.weight, self.w3.weight]))
        if both is None:
            return super().forward(x)
        gate, value = product(x, both).chunk(2, dim=-1)
        return self.w2(F.silu(gate) * value)


TWINS: Mapping[type[nn.Module], type[nn.Module]] = {
    Linear: FastLinear,
    RMSNorm: FastRMSNorm,
    Attention: FastAttention,
    AdaLayerNormLoRA: FastAdaLayerNormLoRA,
    GELUProjection: FastGELUProjection,
    SwiGLU: FastSwiGLU,
}
