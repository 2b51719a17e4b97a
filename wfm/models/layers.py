"""Layers that the diffusion and the autoregressive transformer share.

The structure is that of Cosmos 1.0 and the parameter names are those of its diffusers port (`norm1.linear_1`,
`attn1.to_q`, `attn1.norm_q`, `ff.net.0.proj`), so that published weights find their places. Shapes: B batch, N
tokens, d width. Reading order: norms, attention, the feed-forwards, then the adaptive norm that conditions them
all. These are plain modules; what makes them fast on a CPU is `fast_cpu`, applied from outside.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wfm.errors import ConfigError
from wfm.models.rotary import Rope, apply_rope
from wfm.parallel.attention import Mask, attention
from wfm.parallel.block_causal import covered_blocks, packed_blocks
from wfm.parallel.segments import AnySegments


class Linear(nn.Linear):
    """`nn.Linear` without bias: every projection of the transformers is one, called as a module."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis with a learnable gain (Zhang and Sennrich 2019)."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


class DotProductAttention(nn.Module):
    """softmax(q k^T / sqrt(D)) v over a pack, nothing learned: the one place where tokens see each other.

    Every `Attention` of either family holds one as `core`; another module of the same signature takes its place from
    outside (`attention.core = ...`), as attention over several devices does.
    """

    def __init__(self, kernel: str = "auto") -> None:
        super().__init__()
        self.kernel = kernel

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        q_segments: AnySegments,
        kv_segments: AnySegments,
        *,
        mask: Mask = "full",
    ) -> Tensor:
        """q `[Q, H, D]`, k and v `[K, H_kv, D]` with the lengths of their segments -> `[Q, H, D]`: see
        `wfm.parallel.attention`."""
        return attention(q, k, v, q_segments, kv_segments, mask=mask, kernel=self.kernel)

    def by_blocks(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        lengths: Tensor,
    ) -> Tensor:
        """Causal by blocks; lengths int64 `[3, S]` in host memory: queries, keys and block of each segment (see
        `wfm.parallel.block_causal`). Rows behind the last segment, which fill a pack up, give zeros."""
        if q.device.type == "cpu" and self.kernel != "naive":
            return packed_blocks(q, k, v, lengths)
        return covered_blocks(q, k, v, lengths, self.kernel)

    def visible(self, q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
        """A dense batch against keys of which some are not there yet: q `[B, N, H, D]`, k and v `[B, M, H_kv, D]`, seen bool
        `[M]` -> `[B, N, H, D]`. Of fixed shapes, for a compiled decode."""
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen[None, None, None], enable_gqa=True)
        return out.transpose(1, 2)


class Attention(nn.Module):
    """Multi-head attention with per-head RMSNorm on queries and keys, rotary positions, no biases (Cosmos section
    2.1).

    `num_kv_heads` below `num_heads` shares keys and values between groups of heads. Cross-attention is the same
    module with a `context` of its own for keys and values; rotary positions then apply to neither side.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        num_kv_heads: int | None = None,
        context_dim: int | None = None,
        head_dim: int | None = None,
        eps: float = 1e-6,
        kernel: str = "auto",
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.num_kv_heads = num_kv_heads or num_heads
        self.head_dim = head_dim or dim // num_heads
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(f"num_kv_heads: {self.num_kv_heads} does not divide num_heads {num_heads}")
        inner, inner_kv = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        self.to_q = Linear(dim, inner)
        self.to_k = Linear(context_dim or dim, inner_kv)
        self.to_v = Linear(context_dim or dim, inner_kv)
        self.norm_q = RMSNorm(self.head_dim, eps)
        self.norm_k = RMSNorm(self.head_dim, eps)
        self.core: nn.Module = DotProductAttention(kernel)
        self.to_out = nn.ModuleList([Linear(inner, dim)])

    def project(
        self, x: Tensor, context: Tensor | None = None, rope: Rope | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries `[B, N, H, D]` and keys, values `[B, M, H_kv, D]` of x `[B, N, d]`, normed and rotated. (The components of
        rotated queries and keys may stand in an order of their own, alike in both.)"""
        q = self.project_queries(x)
        k, v = self.project_context(x if context is None else context)
        if rope is not None and context is None:
            q, k = apply_rope(q, rope), apply_rope(k, rope)
        return q, k, v

    def project_queries(self, x: Tensor) -> Tensor:
        """The queries of cross-attention: x `[..., d]` -> `[..., H, D]`, normed."""
        return self.norm_q(self.heads(self.to_q(x)))

    def project_context(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Keys (normed) and values of a context `[..., context_dim]`, each `[..., H_kv, D]`."""
        return self.norm_k(self.heads(self.to_k(context))), self.heads(self.to_v(context))

    def heads(self, x: Tensor) -> Tensor:
        """`[..., H D]` -> `[..., H, D]`."""
        return x.unflatten(-1, (-1, self.head_dim))

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
        """Attention of projected heads, and the output projection: `[B, N, d]`.

        q `[B, N, H, D]`, k and v `[B, M, H_kv, D]`, one segment a row; or q `[..., H, D]` and k, v `[..., H_kv, D]` of
        packs with the lengths of their segments, whatever the leading shape.
        """
        out = self.core(
            q.flatten(0, -3),
            k.flatten(0, -3),
            v.flatten(0, -3),
            q_segments or (q.shape[1],) * q.shape[0],
            kv_segments or (k.shape[1],) * k.shape[0],
            mask=mask,
        )
        return self.to_out[0](out.reshape(*q.shape[:-2], q.shape[-2] * q.shape[-1]))

    def attend_blocks(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        lengths: Tensor,
    ) -> Tensor:
        """`attend` of packs, causal by blocks (see `by_blocks` of the core): `[B, N, d]`. A core of another make, which has no
        such call, is asked block by block."""
        by_blocks = getattr(self.core, "by_blocks", None) or partial(block_by_block, self.core)
        out = by_blocks(q.flatten(0, -3), k.flatten(0, -3), v.flatten(0, -3), lengths)
        return self.to_out[0](out.reshape(*q.shape[:-2], q.shape[-2] * q.shape[-1]))

    def attend_visible(self, q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
        """`attend` to those keys of `[B, M, H_kv, D]` that are `seen` (bool `[M]`), by the core's `visible`: `[B, N, d]`."""
        found = self.core.visible(q, k, v, seen)  # type: ignore[operator]
        return self.to_out[0](found.flatten(2))

    def forward(
        self,
        x: Tensor,
        *,
        context: Tensor | None = None,
        rope: Rope | None = None,
        mask: Mask = "full",
    ) -> Tensor:
        """x `[B, N, d]`, context `[B, M, context_dim]` or None, rope of N positions -> `[B, N, d]`."""
        q, k, v = self.project(x, context, rope)
        return self.attend(q, k, v, mask)


def block_by_block(core: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, lengths: Tensor) -> Tensor:
    """`DotProductAttention.by_blocks` by plain calls: each block against the keys up to its end. Rows behind the last segment
    give zeros."""
    outs, at_q, at_k = [q[:0].to(v)], 0, 0
    for queries, keys, block in lengths.T.tolist():
        for first in range(0, queries, max(block, 1)):
            seen = keys - queries + first + block
            mine, theirs = slice(at_q + first, at_q + first + block), slice(at_k, at_k + seen)
            outs.append(core(q[mine], k[theirs], v[theirs], (block,), (seen,), mask="full"))
        at_q, at_k = at_q + queries, at_k + keys
    return torch.cat([*outs, torch.zeros_like(q[at_q:], dtype=v.dtype)])


class GELUProjection(nn.Module):
    """Linear then exact GELU; a module of its own for the key `net.0.proj`."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.proj = Linear(dim, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.proj(x))


class FeedForward(nn.Module):
    """dim -> ratio * dim -> dim with an exact GELU, no biases. `net.1` is where other implementations keep
    dropout."""

    def __init__(self, dim: int, ratio: float = 4.0) -> None:
        super().__init__()
        hidden = int(dim * ratio)
        self.net = nn.ModuleList([GELUProjection(dim, hidden), nn.Identity(), Linear(hidden, dim)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.net:
            x = layer(x)
        return x


class SwiGLU(nn.Module):
    """SwiGLU: w2(silu(w1 x) * w3 x), no biases."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.w1 = Linear(dim, hidden)
        self.w2 = Linear(hidden, dim)
        self.w3 = Linear(dim, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class TimestepEmbedding(nn.Module):
    """Time of the diffusion -> (embedding `[..., d]`, AdaLN-LoRA vector `[..., 3d]`) (Cosmos `t_embedder`,
    `affline_norm`).

    The embedding is the RMS-normed sinusoid itself; only the AdaLN vector goes through the two linears.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.t_embedder = nn.ModuleDict({"linear_1": Linear(dim, dim), "linear_2": Linear(dim, 3 * dim)})
        self.norm = RMSNorm(dim)

    def sinusoid(self, timestep: Tensor) -> Tensor:
        """[cos, sin] of `timestep` at frequencies 10000^(-i / (d / 2))."""
        half = self.dim // 2
        timestep = timestep.to(torch.promote_types(timestep.dtype, torch.float32))
        step = torch.arange(half, dtype=timestep.dtype, device=timestep.device)
        angle = timestep[..., None] * torch.exp(-math.log(10000.0) * step / half)
        return torch.cat([angle.cos(), angle.sin()], dim=-1).to(self.norm.weight.dtype)

    def forward(
        self, timestep: Tensor, extra: Tensor | None = None, extra_lora: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """`extra` `[..., d]` joins the embedding before its norm, `extra_lora` `[..., 3d]` the AdaLN vector
        (actions)."""
        embedding = self.sinusoid(timestep)
        lora = self.t_embedder["linear_2"](F.silu(self.t_embedder["linear_1"](embedding)))
        if extra is not None:
            embedding = embedding + extra
        if extra_lora is not None:
            lora = lora + extra_lora
        return self.norm(embedding), lora


class Modulation(NamedTuple):
    """Shift, scale and gate of one adaptive norm, each `[G, d]`: one row for all tokens, for each sample or for each
    latent frame. A final norm has no gate."""

    shift: Tensor
    scale: Tensor
    gate: Tensor | None = None


class AdaLayerNormLoRA(nn.Module):
    """(LN(x) (1 + scale) + shift, gate) with the three from W2 W1 SiLU(e) + the shared AdaLN vector (Cosmos
    AdaLN-LoRA).

    `chunks` is 3 in a block, 2 in the final layer (no gate). W2 starts at zero.
    """

    def __init__(self, dim: int, rank: int, chunks: int = 3) -> None:
        super().__init__()
        self.dim, self.chunks = dim, chunks
        self.linear_1 = Linear(dim, rank)
        self.linear_2 = Linear(rank, chunks * dim)

    def modulation(self, embedding: Tensor, lora: Tensor) -> Modulation:
        """Shift, scale and gate, each like `embedding` `[..., d]`; lora `[..., 3d]`."""
        mixed = self.linear_2(self.linear_1(F.silu(embedding))) + lora[..., : self.chunks * self.dim]
        return Modulation(*mixed.chunk(self.chunks, dim=-1))

    def modulated(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """LN(x) (1 + scale) + shift of x `[..., n, d]`, shift and scale `[..., d]`."""
        return torch.addcmul(shift.unsqueeze(-2), F.layer_norm(x, (self.dim,), eps=1e-6), 1 + scale.unsqueeze(-2))

    def gated(self, x: Tensor, gate: Tensor, y: Tensor) -> Tensor:
        """x + gate * y of x and y `[..., n, d]`, gate `[..., d]`."""
        return torch.addcmul(x, gate.unsqueeze(-2), y)

    def forward(self, x: Tensor, embedding: Tensor, lora: Tensor) -> tuple[Tensor, Tensor | None]:
        """x `[..., n, d]`; embedding and lora `[..., d]` and `[..., 3d]`: one modulation for n tokens each."""
        shift, scale, gate = self.modulation(embedding, lora)
        return self.modulated(x, shift, scale), None if gate is None else gate.unsqueeze(-2)


class LearnablePositions(nn.Module):
    """Learned absolute positions of the three axes, summed and normalised (Cosmos `extra_pos_embedder`); `[t*h*w,
    d]`."""

    def __init__(self, max_size: tuple[int, int, int], dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        frames, rows, columns = max_size
        self.pos_emb_t = nn.Parameter(torch.zeros(frames, dim))
        self.pos_emb_h = nn.Parameter(torch.zeros(rows, dim))
        self.pos_emb_w = nn.Parameter(torch.zeros(columns, dim))

    def forward(self, grid: tuple[int, int, int]) -> Tensor:
        t, h, w = grid
        for size, table in zip(grid, (self.pos_emb_t, self.pos_emb_h, self.pos_emb_w), strict=True):
            if size > len(table):
                raise ConfigError(
                    f"max_size: a grid of {grid} tokens does not fit into the {len(table)} learned positions"
                )
        total = (
            self.pos_emb_t[:t, None, None] + self.pos_emb_h[None, :h, None] + self.pos_emb_w[None, None, :w]
        ).flatten(0, 2)
        length = torch.linalg.vector_norm(total, dim=-1, keepdim=True) / math.sqrt(total.shape[-1])
        return total / (self.eps + length)
