"""One block of the diffusion transformer, and the small modules at its two ends.

Tokens are one axis, `[M, d]`; a modulation has one row for all of them, for each segment or for each latent frame.
"""

from collections.abc import Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wfm.models.diffusion import by_rows
from wfm.models.diffusion.by_rows import Rows
from wfm.models.diffusion.config import DiffusionConfig
from wfm.models.diffusion.prepared import Conditioning
from wfm.models.layers import AdaLayerNormLoRA, Attention, FeedForward, Linear, Modulation


class PatchEmbed(nn.Module):
    """Patches -> tokens: `patch_embed.proj`, and for the channels of each condition a product of its own, `proj_<name>`, which
    is added. Where they are absent nothing is; of zeros the product is exactly zero. (In one product with the latents zeros
    would not be nothing: with more addends its sums run in another order.)"""

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        area = config.patch_size[1] * config.patch_size[2]
        self.proj = Linear(config.patch_channels * area, config.width)
        self.padding = config.concat_padding_mask * area
        self.channels = tuple(config.channels)
        for name, count in config.channels.items():
            self.add_module(f"proj_{name}", Linear(count * area, config.width))

    @torch.no_grad()
    def initialise(self) -> None:
        """Xavier, as one matrix over all channels: what the products are added up to is one product in all but rounding."""
        proj, more = self.proj, [self.beside(name) for name in self.channels]
        if not more or proj.weight.is_meta:
            nn.init.xavier_uniform_(proj.weight)
            return
        first = proj.in_features - self.padding
        whole = proj.weight.new_empty(proj.out_features, proj.in_features + sum(part.in_features for part in more))
        nn.init.xavier_uniform_(whole)
        head, *middle, last = whole.split([first, *(part.in_features for part in more), self.padding], dim=1)
        proj.weight.copy_(torch.cat([head, last], dim=1))
        for part, values in zip(more, middle, strict=True):
            part.weight.copy_(values)

    def beside(self, name: str) -> Linear:
        """The product of a condition's channels."""
        part = getattr(self, f"proj_{name}")
        assert isinstance(part, Linear)
        return part

    def added(self, channels: Mapping[str, Tensor]) -> Tensor | None:
        """Patches `[M, n * p * q]` of the conditions that are there -> what joins the tokens, `[M, d]`; None without any."""
        total: Tensor | None = None
        for name in self.channels:
            if name in channels:
                mine = self.beside(name)(channels[name])
                total = mine if total is None else total + mine
        return total

    def forward(self, patches: Tensor, added: Tensor | None = None) -> Tensor:
        """`[M, C * p * q]` and what `added` makes of the channels of conditions -> `[M, d]`."""
        x = self.proj(patches)
        return x if added is None else x + added


class VectorMLP(nn.Module):
    """Features of a condition -> an addend of the time embedding: linear, tanh GELU, linear, with biases; starts at zero."""

    def __init__(self, features: int, hidden: int, out: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(features, hidden)
        self.fc2 = nn.Linear(hidden, out)

    def forward(self, features: Tensor) -> Tensor:
        """`[G, features]` -> `[G, out]`."""
        return self.fc2(F.gelu(self.fc1(features), approximate="tanh"))


class Block(nn.Module):
    """Self-attention, cross-attention to each context, feed-forward; each behind an AdaLN-LoRA norm and a gate.

    The text's are `norm2` and `attn2` (diffusers'), those of another context `norm_<name>` and `attn_<name>`.
    """

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        dim, rank, eps = config.width, config.adaln_lora_dim, config.qk_norm_eps
        self.norm1 = AdaLayerNormLoRA(dim, rank)
        self.attn1 = Attention(dim, config.num_attention_heads, eps=eps)
        for name, width in config.contexts.items():
            norm, cross = context_names(name)
            self.add_module(norm, AdaLayerNormLoRA(dim, rank))
            self.add_module(cross, Attention(dim, config.num_attention_heads, context_dim=width, eps=eps))
        self.norm3 = AdaLayerNormLoRA(dim, rank)
        self.ff = FeedForward(dim, config.mlp_ratio)
        self.contexts = tuple(config.contexts)
        self.norm_names = ("norm1", *(context_names(name)[0] for name in self.contexts), "norm3")

    def modulations(self, embedding: Tensor, lora: Tensor) -> tuple[Modulation, ...]:
        """Of each norm in order; embedding `[G, d]`, lora `[G, 3d]`."""
        return tuple(getattr(self, name).modulation(embedding, lora) for name in self.norm_names)

    def forward(
        self,
        x: Tensor,
        shared: Conditioning,
        modulations: tuple[Modulation, ...] | None = None,
        prepared: Mapping[str, tuple[Tensor, Tensor]] = MappingProxyType({}),
    ) -> Tensor:
        """x `[M, d]`; modulations, and keys and values of contexts by name, where they are prepared."""
        if modulations is None:
            assert shared.embedding is not None
            assert shared.lora is not None
            modulations = self.modulations(shared.embedding, shared.lora)
        if shared.positions is not None:
            x = (x.view(-1, *shared.positions.shape) + shared.positions).view(x.shape)
        tokens = shared.rope.cos.shape[0]  # that share one table

        first, *middle, last = modulations
        y = normed(self.norm1, x, first, shared.rows)
        q, k, v = self.attn1.project(y.view(-1, tokens, y.shape[-1]), rope=shared.rope)
        y = self.attn1.attend(q, k, v, q_segments=shared.segments, kv_segments=shared.segments)
        x = gated(self.norm1, x, first, y, shared.rows)
        for name, modulation in zip(self.contexts, middle, strict=True):
            context = shared.contexts.get(name)
            if context is not None:  # one that is absent adds nothing
                norm, attention = self.cross(name)
                q = attention.project_queries(normed(norm, x, modulation, shared.rows))
                if name in prepared:
                    k, v = prepared[name]
                else:
                    assert context.tokens is not None
                    k, v = attention.project_context(context.tokens)
                y = attention.attend(q, k, v, q_segments=context.queries, kv_segments=context.lengths)
                x = gated(norm, x, modulation, y, shared.rows)
        return gated(self.norm3, x, last, self.ff(normed(self.norm3, x, last, shared.rows)), shared.rows)

    def cross(self, name: str) -> tuple[AdaLayerNormLoRA, Attention]:
        """The norm before the attention to a context, and that attention."""
        norm, attention = (getattr(self, part) for part in context_names(name))
        assert isinstance(norm, AdaLayerNormLoRA)
        assert isinstance(attention, Attention)
        return norm, attention


def context_names(name: str) -> tuple[str, str]:
    """What a block calls the norm before the attention to a context, and that attention."""
    return ("norm2", "attn2") if name == "text" else (f"norm_{name}", f"attn_{name}")


def normed(norm: AdaLayerNormLoRA, x: Tensor, modulation: Modulation, rows: Rows | None) -> Tensor:
    """LN(x) (1 + scale) + shift of x `[M, d]`, each group of tokens with its own row."""
    shift, scale = modulation[:2]
    if rows is not None:
        return by_rows.modulated(x, shift, scale, rows)
    return norm.modulated(x.view(shift.shape[0], -1, x.shape[-1]), shift, scale).view(x.shape)


def gated(norm: AdaLayerNormLoRA, x: Tensor, modulation: Modulation, y: Tensor, rows: Rows | None) -> Tensor:
    """x + gate * y, both `[M, d]`, y what came of the `norm`."""
    gate = modulation.gate
    assert gate is not None
    if rows is not None:
        return by_rows.gated(x, gate, y.view(x.shape), rows)
    grouped = (gate.shape[0], -1, x.shape[-1])
    return norm.gated(x.view(grouped), gate, y.view(grouped)).view(x.shape)
