"""One block of the autoregressive transformer: attention, attention to a text, feed-forward.

`[B, n, dim]` in and out. Tokens may be a pack: one row, with the lengths of its segments.
"""

from collections.abc import Sequence
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


class TextKeys(NamedTuple):
    """What one layer's cross-attention sees of a text: keys and values of all samples, one behind the other."""

    keys: Tensor
    "`[sum of lengths, kv_heads, head_dim]`, normed."
    values: Tensor
    lengths: tuple[int, ...]
    "Tokens of each sample."


class Block(nn.Module):
    """x + attention(norm(x)), x + cross_attention(norm(x), text) where there is text, x + feed_forward(norm(x))."""

    def __init__(self, config: AutoregressiveConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.attention_norm = RMSNorm(config.dim, eps=config.norm_eps)
        self.attention = Attention(
            config.dim, config.heads, num_kv_heads=config.kv_heads, head_dim=config.head_dim, eps=config.norm_eps
        )
        self.cross_attention: Attention | None = None
        if config.text_embed_dim:
            self.cross_attention_norm = RMSNorm(config.dim, eps=config.norm_eps)
            self.cross_attention = Attention(
                config.dim,
                config.heads,
                num_kv_heads=config.kv_heads,
                context_dim=config.text_embed_dim,
                head_dim=config.head_dim,
                eps=config.norm_eps,
            )
        self.ffn_norm = RMSNorm(config.dim, eps=config.norm_eps)
        self.feed_forward = SwiGLU(config.dim, config.ffn_dim)

    def forward(
        self,
        x: Tensor,
        rope: Rope,
        segments: Sequence[Segment],
        cache: KeyValueCache | None = None,
        text: TextKeys | None = None,
    ) -> Tensor:
        """x `[B, n, dim]`, the n newest positions of B videos of one segment each, or `[1, n, dim]`, a pack of several;
        queries see keys of their own block and older."""
        q, k, v = self.attention.project(self.attention_norm(x), rope=rope)
        if cache is not None:
            k, v = cache.extend(self.layer, k, v)  # [B, all so far, kv_heads, head_dim]
        x = x + self._attend(q, k, v, segments)
        if self.cross_attention is not None and text is not None:
            queries = self.cross_attention.project_queries(self.cross_attention_norm(x))
            own = [segment.positions for segment in segments] if len(segments) > 1 else None
            x = x + self.cross_attention.attend(
                queries, text.keys, text.values, q_segments=own, kv_segments=text.lengths
            )
        return x + self.feed_forward(self.ffn_norm(x))

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
