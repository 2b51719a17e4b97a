"""Layers that the diffusion and the autoregressive transformer share.

The structure is that of Cosmos 1.0 and the parameter names are those of its diffusers port (`norm1.linear_1`,
`attn1.to_q`, `attn1.norm_q`, `ff.net.0.proj`), so that published weights find their places. Shapes: B batch, N
tokens, d width. Reading order: norms and rotary positions, attention, the feed-forward, then the adaptive norm that
conditions them all.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wfm.errors import ConfigError
from wfm.parallel.attention import Mask, attention


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis with a learnable gain (Zhang and Sennrich 2019)."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.rsqrt(x.float().square().mean(-1, keepdim=True) + self.eps)
        return x * scale.to(x.dtype) * self.weight


def grid_positions(
    grid: tuple[int, int, int], *, time_scale: float = 1.0, device: torch.device | None = None
) -> Tensor:
    """(t, h, w) of every token of a grid in raster order, `[t*h*w, 3]`, fp64. `time_scale` multiplies t (24 / fps in
    Cosmos)."""
    axes = [torch.arange(size, dtype=torch.float64, device=device) for size in grid]
    axes[0] = axes[0] * time_scale
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)


def rope_3d(
    positions: Tensor,
    head_dim: int,
    *,
    theta: float = 10000.0,
    ratio: tuple[float, float, float] = (1.0, 1.0, 1.0),
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """(cos, sin) of the 3-D rotary embedding, each `[N, head_dim]`, of positions (t, h, w) `[N, 3]`.

    The head is split over height and width, `(head_dim // 6) * 2` each, the rest for time; the frequencies are laid
    out [t, h, w] and given twice, for the half-rotation of `apply_rope`. `ratio` is the NTK extension of each axis
    (t, h, w): theta_axis = theta * ratio^(d / (d - 2)). Raises ConfigError for a head that cannot be split.
    """
    dim_space = head_dim // 6 * 2
    dims = (head_dim - 2 * dim_space, dim_space, dim_space)
    if head_dim % 2 or dim_space < 2:
        raise ConfigError(f"head_dim: {head_dim} cannot be split over three axes; use an even number of at least 6")
    angles = []
    for axis, (dim, axis_ratio) in enumerate(zip(dims, ratio, strict=True)):
        base = theta * axis_ratio ** (dim / (dim - 2)) if dim > 2 else theta
        frequency = base ** -(torch.arange(0, dim, 2, dtype=torch.float64, device=positions.device) / dim)
        angles.append(positions[:, axis, None].double() * frequency)  # [N, dim / 2]
    angle = torch.cat(angles, dim=-1).repeat(1, 2)  # [N, head_dim]
    return angle.cos().to(dtype), angle.sin().to(dtype)


def apply_rope(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate `[B, N, H, head_dim]` by (cos, sin) `[N, head_dim]`, alike for all heads; pairs are (i, i + head_dim /
    2)."""
    cos, sin = rope
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1)
    return x * cos[:, None, :] + turned * sin[:, None, :]


class Attention(nn.Module):
    """Multi-head attention with per-head RMSNorm on queries and keys, rotary positions, no biases (Cosmos section
    2.1).

    `num_kv_heads` below `num_heads` shares keys and values between groups of heads. Cross-attention is the same
    module called with `context`; rotary positions then apply to neither side.
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
        self.kernel = kernel
        inner, inner_kv = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_k = nn.Linear(context_dim or dim, inner_kv, bias=False)
        self.to_v = nn.Linear(context_dim or dim, inner_kv, bias=False)
        self.norm_q = RMSNorm(self.head_dim, eps)
        self.norm_k = RMSNorm(self.head_dim, eps)
        self.to_out = nn.ModuleList([nn.Linear(inner, dim, bias=False)])

    def project(
        self, x: Tensor, context: Tensor | None = None, rope: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries `[B, N, H, D]` and keys, values `[B, M, H_kv, D]` of x `[B, N, d]`, normed and rotated."""
        source = x if context is None else context
        q = self.norm_q(self.to_q(x).unflatten(-1, (self.num_heads, self.head_dim)))
        k = self.norm_k(self.to_k(source).unflatten(-1, (self.num_kv_heads, self.head_dim)))
        v = self.to_v(source).unflatten(-1, (self.num_kv_heads, self.head_dim))
        if rope is not None:
            q, k = apply_rope(q, rope), apply_rope(k, rope)
        return q, k, v

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask = "full") -> Tensor:
        """Attention of projected heads, and the output projection: `[B, N, d]`."""
        batch, num_queries, num_keys = q.shape[0], q.shape[1], k.shape[1]
        if self.num_kv_heads != self.num_heads:
            k, v = (y.repeat_interleave(self.num_heads // self.num_kv_heads, dim=2) for y in (k, v))
        out = attention(
            q.flatten(0, 1),
            k.flatten(0, 1),
            v.flatten(0, 1),
            (num_queries,) * batch,
            (num_keys,) * batch,
            mask=mask,
            kernel=self.kernel,
        )
        out = self.to_out[0](out.reshape(batch, num_queries, -1))
        return out

    def forward(
        self,
        x: Tensor,
        *,
        context: Tensor | None = None,
        rope: tuple[Tensor, Tensor] | None = None,
        mask: Mask = "full",
    ) -> Tensor:
        """x `[B, N, d]`, context `[B, M, context_dim]` or None, rope (cos, sin) `[N, head_dim]` -> `[B, N, d]`."""
        q, k, v = self.project(x, context, rope)
        return self.attend(q, k, v, mask)


class GELUProjection(nn.Module):
    """Linear then exact GELU; a module of its own for the key `net.0.proj`."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.proj(x))


class FeedForward(nn.Module):
    """dim -> ratio * dim -> dim with an exact GELU, no biases. `net.1` is where other implementations keep
    dropout."""

    def __init__(self, dim: int, ratio: float = 4.0) -> None:
        super().__init__()
        hidden = int(dim * ratio)
        self.net = nn.ModuleList([GELUProjection(dim, hidden), nn.Identity(), nn.Linear(hidden, dim, bias=False)])

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
        self.t_embedder = nn.ModuleDict(
            {"linear_1": nn.Linear(dim, dim, bias=False), "linear_2": nn.Linear(dim, 3 * dim, bias=False)}
        )
        self.norm = RMSNorm(dim)

    def sinusoid(self, timestep: Tensor) -> Tensor:
        """[cos, sin] of `timestep` at frequencies 10000^(-i / (d / 2))."""
        half = self.dim // 2
        frequency = torch.exp(-math.log(10000.0) * torch.arange(half, device=timestep.device) / half)
        angle = timestep.float()[..., None] * frequency
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


class AdaLayerNormLoRA(nn.Module):
    """(LN(x) (1 + scale) + shift, gate) with the three from W2 W1 SiLU(e) + the shared AdaLN vector (Cosmos
    AdaLN-LoRA).

    `chunks` is 3 in a block, 2 in the final layer (no gate). W2 starts at zero.
    """

    def __init__(self, dim: int, rank: int, chunks: int = 3) -> None:
        super().__init__()
        self.dim, self.chunks = dim, chunks
        self.linear_1 = nn.Linear(dim, rank, bias=False)
        self.linear_2 = nn.Linear(rank, chunks * dim, bias=False)

    def modulation(self, embedding: Tensor, lora: Tensor) -> Sequence[Tensor]:
        """(shift, scale[, gate]), each like `embedding` `[..., d]`; lora `[..., 3d]`."""
        mixed = self.linear_2(self.linear_1(F.silu(embedding))) + lora[..., : self.chunks * self.dim]
        return mixed.chunk(self.chunks, dim=-1)

    def forward(self, x: Tensor, embedding: Tensor, lora: Tensor) -> tuple[Tensor, Tensor | None]:
        """x `[B, t, hw, d]`; embedding and lora `[B, t, d]` and `[B, t, 3d]`: one modulation per latent frame."""
        parts = [part.unsqueeze(-2) for part in self.modulation(embedding, lora)]  # [B, t, 1, d]
        out = F.layer_norm(x, (self.dim,), eps=1e-6) * (1 + parts[1]) + parts[0]
        return out, parts[2] if self.chunks == 3 else None


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
