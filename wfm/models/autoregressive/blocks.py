"""One block of the autoregressive transformer: attention, attention to a text, feed-forward.

`[B, n, dim]` in and out. Tokens may be a pack: one row, with the lengths of its segments.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wfm.models.autoregressive.cache import KeyValueCache
from wfm.models.autoregressive.config import AutoregressiveConfig
from wfm.models.layers import Attention, RMSNorm, SwiGLU
from wfm.models.rotary import Rope


class Segment(NamedTuple):
    """A video within a pack."""

    positions: int
    stride: int
    "Positions of a block, which see each other: 1 in raster order, a latent frame's in frame order."


class ContextKeys(NamedTuple):
    """What one layer's cross-attention sees of a context (a text): keys and values of all samples, one behind the other."""

    keys: Tensor
    "`[sum of lengths, kv_heads, head_dim]`, normed."
    values: Tensor
    lengths: tuple[int, ...]
    "Tokens of each sample."


class Block(nn.Module):
    """x + attention(norm(x)), x + cross_attention(norm(x), context) for each context that is there, x + feed_forward(norm(x)).

    The text's are `cross_attention_norm` and `cross_attention` (Cosmos), those of another context end in `_<name>`.
    """

    called_apart = ("context_keys",)
    "Methods that are called beside `forward` and read parameters: whoever spreads a block over ranks has to know them."

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
        segments: Sequence[Segment],
        cache: KeyValueCache | None = None,
        contexts: Mapping[str, ContextKeys] = MappingProxyType({}),
    ) -> Tensor:
        """x `[B, n, dim]`, the n newest positions of B videos of one segment each, or `[1, n, dim]`, a pack of several;
        queries see keys of their own block and older. contexts: by name; one that is absent adds nothing."""
        q, k, v = self.attention.project(self.attention_norm(x), rope=rope)
        if cache is not None:
            k, v = cache.extend(self.layer, k, v)  # [B, all so far, kv_heads, head_dim]
        x = x + self._attend(q, k, v, segments)
        own = [segment.positions for segment in segments] if len(segments) > 1 else None
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

    def context_keys(self, name: str, context: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a context's tokens, for all calls that attend to it."""
        return self.cross(name)[1].project_context(context)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, segments: Sequence[Segment]) -> Tensor:
        if len(segments) == 1:
            return self._attend_one(q, k, v, segments[0].stride)
        lengths = [segment.positions for segment in segments]
        if all(segment.stride == 1 for segment in segments):
            return self.attention.attend(q, k, v, "causal", q_segments=lengths, kv_segments=lengths)
        parts = zip(q.split(lengths, 1), k.split(lengths, 1), v.split(lengths, 1), segments, strict=True)
        return torch.cat([self._attend_one(a, b, c, one.stride) for a, b, c, one in parts], dim=1)

    def _attend_one(self, q: Tensor, k: Tensor, v: Tensor, stride: int) -> Tensor:
        if stride == 1 or not q.shape[1]:  # a video of a single block has nothing to predict
            return self.attention.attend(q, k, v, "causal")
        # One dense call for each block against the keys up to its end: no masked work, and the same calls with or
        # without a cache.
        before, out = k.shape[1] - q.shape[1], []
        for start in range(0, q.shape[1], stride):
            end = before + start + stride
            out.append(self.attention.attend(q[:, start : start + stride], k[:, :end], v[:, :end]))
        return torch.cat(out, dim=1)


def context_names(name: str) -> tuple[str, str]:
    """What a block calls the norm before the attention to a context, and that attention."""
    end = "" if name == "text" else f"_{name}"
    return f"cross_attention_norm{end}", f"cross_attention{end}"
