"""One block of the diffusion transformer, and the small modules at its two ends.

Tokens are one axis, `[M, d]`; a modulation has one row for all of them, for each segment or for each latent frame.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from wfm.models.diffusion.config import DiffusionConfig
from wfm.models.diffusion.prepared import Conditioning
from wfm.models.layers import AdaLayerNormLoRA, Attention, FeedForward, Linear, Modulation


class PatchEmbed(nn.Module):
    """Patches -> tokens; a module of its own for the key `patch_embed.proj`."""

    def __init__(self, features: int, dim: int) -> None:
        super().__init__()
        self.proj = Linear(features, dim)

    def forward(self, patches: Tensor) -> Tensor:
        """`[M, C * p * q]` -> `[M, d]`."""
        return self.proj(patches)


class ActionMLP(nn.Module):
    """Action features -> an addend of the time embedding: linear, tanh GELU, linear, with biases; starts at zero."""

    def __init__(self, action_dim: int, hidden: int, out: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(action_dim, hidden)
        self.fc2 = nn.Linear(hidden, out)

    def forward(self, action: Tensor) -> Tensor:
        """`[G, action_dim]` -> `[G, out]`."""
        return self.fc2(F.gelu(self.fc1(action), approximate="tanh"))


class Block(nn.Module):
    """Self-attention, cross-attention to the text, feed-forward; each behind an AdaLN-LoRA norm and a gate.

    Without text (`text_embed_dim` 0) `norm2` and `attn2` are absent.
    """

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        dim, rank, eps = config.width, config.adaln_lora_dim, config.qk_norm_eps
        self.norm1 = AdaLayerNormLoRA(dim, rank)
        self.attn1 = Attention(dim, config.num_attention_heads, eps=eps)
        if config.text_embed_dim:
            self.norm2 = AdaLayerNormLoRA(dim, rank)
            self.attn2 = Attention(dim, config.num_attention_heads, context_dim=config.text_embed_dim, eps=eps)
        self.norm3 = AdaLayerNormLoRA(dim, rank)
        self.ff = FeedForward(dim, config.mlp_ratio)
        self.norm_names = ("norm1", "norm2", "norm3") if config.text_embed_dim else ("norm1", "norm3")

    def modulations(self, embedding: Tensor, lora: Tensor) -> tuple[Modulation, ...]:
        """Of each norm in order; embedding `[G, d]`, lora `[G, 3d]`."""
        return tuple(getattr(self, name).modulation(embedding, lora) for name in self.norm_names)

    def forward(
        self,
        x: Tensor,
        told: Conditioning,
        modulations: tuple[Modulation, ...] | None = None,
        text: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """x `[M, d]`; modulations and text (keys, values) where they are prepared."""
        if modulations is None:
            assert told.embedding is not None
            assert told.lora is not None
            modulations = self.modulations(told.embedding, told.lora)
        if told.positions is not None:
            x = (x.view(-1, *told.positions.shape) + told.positions).view(x.shape)
        tokens = told.rope.cos.shape[0]  # that share one table

        first, *middle, last = modulations
        y = normed(self.norm1, x, first, told.rows)
        q, k, v = self.attn1.project(y.view(-1, tokens, y.shape[-1]), rope=told.rope)
        y = self.attn1.attend(q, k, v, q_segments=told.segments, kv_segments=told.segments)
        x = gated(self.norm1, x, first, y, told.rows)
        if middle:
            y = normed(self.norm2, x, middle[0], told.rows)
            q = self.attn2.project_queries(y)
            if text is None:
                assert told.text is not None
                text = self.attn2.project_context(told.text)
            k, v = text
            y = self.attn2.attend(q, k, v, q_segments=told.text_queries, kv_segments=told.text_lengths)
            x = gated(self.norm2, x, middle[0], y, told.rows)
        return gated(self.norm3, x, last, self.ff(normed(self.norm3, x, last, told.rows)), told.rows)


def normed(norm: AdaLayerNormLoRA, x: Tensor, modulation: Modulation, rows: Tensor | None) -> Tensor:
    """LN(x) (1 + scale) + shift of x `[M, d]`, each group of tokens with its own row."""
    shift, scale = (_by_token(part, rows) for part in modulation[:2])
    return norm.modulated(x.view(shift.shape[0], -1, x.shape[-1]), shift, scale).view(x.shape)


def gated(norm: AdaLayerNormLoRA, x: Tensor, modulation: Modulation, y: Tensor, rows: Tensor | None) -> Tensor:
    """x + gate * y, both `[M, d]`, y what came of the `norm`."""
    assert modulation.gate is not None
    gate = _by_token(modulation.gate, rows)
    grouped = (gate.shape[0], -1, x.shape[-1])
    return norm.gated(x.view(grouped), gate, y.view(grouped)).view(x.shape)


def _by_token(part: Tensor, rows: Tensor | None) -> Tensor:
    """`[G, d]` as it is where all rows serve equally many tokens, `[M, d]` where not."""
    return part if rows is None else part[rows]
