"""Layers that the diffusion and the autoregressive transformer share.

The structure is that of Cosmos 1.0 and the parameter names are those of its diffusers port (`norm1.linear_1`,
`attn1.to_q`, `attn1.norm_q`, `ff.net.0.proj`), so that published weights find their places. Shapes: B batch, N
tokens, d width. Reading order: norms and rotary positions, attention, the feed-forward, then the adaptive norm that
conditions them all.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wfm.errors import ConfigError
from wfm.models.fused import gelu, head_norm, modulated_norm, plain, rms_norm
from wfm.models.linear import Linear, PackedWeights, product
from wfm.models.rotary import Rope, bring_pairs_together
from wfm.parallel.attention import Mask, attention

FEW_TOKENS = 64
"""Below this many, copying the weights of queries, keys and values into one costs more than two further products."""


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis with a learnable gain (Zhang and Sennrich 2019)."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


class Attention(nn.Module):
    """Multi-head attention with per-head RMSNorm on queries and keys, rotary positions, no biases (Cosmos section
    2.1).

    `num_kv_heads` below `num_heads` shares keys and values between groups of heads. Cross-attention is the same
    module with a `context` of its own for keys and values; rotary positions then apply to neither side.
    """

    kept: PackedWeights | None = None

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
        self.kernel = kernel
        inner, inner_kv = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        self.to_q = Linear(dim, inner)
        self.to_k = Linear(context_dim or dim, inner_kv)
        self.to_v = Linear(context_dim or dim, inner_kv)
        self.norm_q = RMSNorm(self.head_dim, eps)
        self.norm_k = RMSNorm(self.head_dim, eps)
        self.to_out = nn.ModuleList([Linear(inner, dim)])

    def project(
        self, x: Tensor, context: Tensor | None = None, rope: Rope | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries `[B, N, H, D]` and keys, values `[B, M, H_kv, D]` of x `[B, N, d]`, normed and rotated.

        The components of rotated queries and keys may stand in an order of their own (pairs side by side), alike in both.
        """
        if context is not None:
            return self.project_queries(x), *self.project_context(context)
        paired = rope is not None and not plain(x)
        few = x.numel() < FEW_TOKENS * x.shape[-1]
        fused = self.kept.plain(paired, lambda: self._fused_weight(paired)) if few and self.kept is not None else None
        if fused is not None:
            heads = self._heads(product(x, fused))
        elif few:
            heads = torch.cat([self._heads(to(x)) for to in (self.to_q, self.to_k, self.to_v)], dim=-2)
            if paired:
                rotated = self.num_heads + self.num_kv_heads
                heads = torch.cat([bring_pairs_together(heads[..., :rotated, :]), heads[..., rotated:, :]], dim=-2)
        else:
            heads = self._heads(self._fused_product(x, paired))  # [B, N, H + 2 H_kv, D]
        qk, v = heads.split([self.num_heads + self.num_kv_heads, self.num_kv_heads], dim=-2)
        gain = self.kept.plain(("gain", paired), lambda: self._fused_gain(paired)) if self.kept is not None else None
        qk = head_norm(qk, self._fused_gain(paired) if gain is None else gain, self.norm_q.eps, rope, paired=paired)
        q, k = qk.split([self.num_heads, self.num_kv_heads], dim=-2)
        return q, k, v

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

    def project_queries(self, x: Tensor) -> Tensor:
        """The queries of cross-attention: x `[..., d]` -> `[..., H, D]`, normed."""
        return head_norm(self._heads(self.to_q(x)), self.norm_q.weight, self.norm_q.eps)

    def project_context(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Keys (normed) and values of a context `[..., context_dim]`, each `[..., H_kv, D]`."""
        fused = product(context, torch.cat([self.to_k.weight, self.to_v.weight]))
        k, v = fused.chunk(2, dim=-1)
        return head_norm(self._heads(k), self.norm_k.weight, self.norm_k.eps), self._heads(v)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_dim))

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Mask = "full",
        *,
        q_segments: Sequence[int] | None = None,
        kv_segments: Sequence[int] | None = None,
    ) -> Tensor:
        """Attention of projected heads, and the output projection: `[B, N, d]`.

        q `[B, N, H, D]`, k and v `[B, M, H_kv, D]`, one segment a row; or q `[..., H, D]` and k, v `[..., H_kv, D]` of
        packs with the lengths of their segments, whatever the leading shape.
        """
        if self.kernel == "auto" and q_segments is kv_segments is None and q.shape[1] == 1 and k.numel():
            return self._attend_once(q, k, v)
        if self.num_kv_heads != self.num_heads:
            k, v = (y.repeat_interleave(self.num_heads // self.num_kv_heads, dim=-2) for y in (k, v))
        out = attention(
            q.flatten(0, -3),
            k.flatten(0, -3),
            v.flatten(0, -3),
            q_segments or (q.shape[1],) * q.shape[0],
            kv_segments or (k.shape[1],) * k.shape[0],
            mask=mask,
            kernel=self.kernel,
        )
        return self.to_out[0](out.reshape(*q.shape[:-2], q.shape[-2] * q.shape[-1]))

    def _attend_once(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """`attend` of one query a row, which sees all keys: the query heads that share keys stand as queries of one head, so
        that no key is copied. A step of cached decoding is this; torch's own call picks the kernel at the least cost."""
        batch = q.shape[0]
        grouped = q.view(batch, self.num_kv_heads, -1, self.head_dim)  # [B, H_kv, shared, D]
        out = F.scaled_dot_product_attention(grouped, k.transpose(1, 2), v.transpose(1, 2))
        return self.to_out[0](out.reshape(batch, 1, -1))

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


class GELUProjection(nn.Module):
    """Linear then exact GELU; a module of its own for the key `net.0.proj`."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.proj = Linear(dim, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return gelu(self.proj(x))


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

    def forward(self, x: Tensor, embedding: Tensor, lora: Tensor) -> tuple[Tensor, Tensor | None]:
        """x `[..., n, d]`; embedding and lora `[..., d]` and `[..., 3d]`: one modulation for n tokens each."""
        shift, scale, gate = self.modulation(embedding, lora)
        out = modulated_norm(x, shift, scale)
        return out, None if gate is None else gate.unsqueeze(-2)


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
