"""One block of the autoregressive transformer: attention, attention to a text, feed-forward.

`[B, n, dim]` in and out. Tokens may be a pack: one row, and how it divides into videos.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wfm.models.autoregressive.cache import KeyValueCache
from wfm.models.autoregressive.config import AutoregressiveConfig
from wfm.models.layers import Attention, RMSNorm, SwiGLU
from wfm.models.rotary import Rope
from wfm.parallel.segments import AnySegments, Segments


class Segment(NamedTuple):
    """What a row of a dense batch is."""

    positions: int
    stride: int
    "Positions of a block, which see each other: 1 in raster order, a latent frame's in frame order."


class PackSegments(NamedTuple):
    """How the positions of a pack divide into videos: tensors, so that one graph serves all packs of one size."""

    videos: Segments
    "Of all positions, those that fill the pack up too."
    blocks: Tensor | None
    """int64 `[3, most]` in host memory: of each video its positions, these again, and those of a block (`block_causal`).
    None: in raster order, where blocks are of 1."""


class ContextKeys(NamedTuple):
    """What one layer's cross-attention sees of a context (a text): keys and values of all samples, one behind the other."""

    keys: Tensor
    "`[sum of lengths, kv_heads, head_dim]`, normed."
    values: Tensor
    lengths: AnySegments
    "Tokens of each sample; in a pack 0 of one that lacks the context, to which it then adds nothing."


class Block(nn.Module):
    """x + attention(norm(x)), x + cross_attention(norm(x), context) for each context that is there, x + feed_forward(norm(x)).

    The text's are `cross_attention_norm` and `cross_attention` (Cosmos), those of another context end in `_<name>`.
    """

    called_apart = ("context_keys",)
    "Methods that read its weights and are called from outside its own pass."

    def __init__(self, config: AutoregressiveConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.attention_norm = RMSNorm(config.dim, eps=config.norm_eps)
        self.attention = Attention(
            config.dim, config.heads, num_kv_heads=config.kv_heads, head_dim=config.head_dim, eps=config.norm_eps
        )
        for name, width in config.contexts.items():
            norm, cross = context_names(name)
            self.add_module(norm, RMSNorm(config.dim, eps=config.norm_eps))
            attention = Attention(
                config.dim,
                config.heads,
                num_kv_heads=config.kv_heads,
                context_dim=width,
                head_dim=config.head_dim,
                eps=config.norm_eps,
            )
            self.add_module(cross, attention)
        self.ffn_norm = RMSNorm(config.dim, eps=config.norm_eps)
        self.feed_forward = SwiGLU(config.dim, config.ffn_dim)

    def forward(
        self,
        x: Tensor,
        rope: Rope,
        segments: Segment | PackSegments,
        cache: KeyValueCache | None = None,
        contexts: Mapping[str, ContextKeys] = MappingProxyType({}),
    ) -> Tensor:
        """x `[B, n, dim]`, the n newest positions of B videos, or `[1, n, dim]`, a pack of several; queries see keys of their
        own block and older. contexts: by name; one that is absent adds nothing."""
        q, k, v = self.attention.project(self.attention_norm(x), rope=rope)
        if cache is not None:
            k, v = cache.extend(self.layer, k, v)  # [B, all so far, kv_heads, head_dim]
        x = x + self._attend(q, k, v, segments)
        own = segments.videos if isinstance(segments, PackSegments) else None
        for name, context in contexts.items():
            norm, cross = self.cross(name)
            queries = cross.project_queries(norm(x))
            x = x + cross.attend(queries, context.keys, context.values, q_segments=own, kv_segments=context.lengths)
        return x + self.feed_forward(self.ffn_norm(x))

    def cross(self, name: str) -> tuple[RMSNorm, Attention]:
        """The norm before the attention to a context, and that attention."""
        norm, cross = (getattr(self, part) for part in context_names(name))
        assert isinstance(norm, RMSNorm)
        assert isinstance(cross, Attention)
        return norm, cross

    def context_keys(self, name: str, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a context's tokens `[..., width]`, each `[..., kv_heads, head_dim]`."""
        return self.cross(name)[1].project_context(tokens)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, segments: Segment | PackSegments) -> Tensor:
        if isinstance(segments, PackSegments):
            if segments.blocks is not None:
                return self.attention.attend_blocks(q, k, v, segments.blocks)
            return self.attention.attend(q, k, v, "causal", q_segments=segments.videos, kv_segments=segments.videos)
        if segments.stride == 1 or not q.shape[1]:  # a video of a single block has nothing to predict
            return self.attention.attend(q, k, v, "causal")
        if segments.stride == q.shape[1]:  # a step of decoding: the newest block sees everything
            return self.attention.attend(q, k, v)
        lengths = torch.tensor([[q.shape[1]], [k.shape[1]], [segments.stride]]).expand(-1, q.shape[0])
        return self.attention.attend_blocks(q, k, v, lengths)


def context_names(name: str) -> tuple[str, str]:
    """What a block calls the norm before the attention to a context, and that attention."""
    end = "" if name == "text" else f"_{name}"
    return f"cross_attention_norm{end}", f"cross_attention{end}"
