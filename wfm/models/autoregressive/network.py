"""The autoregressive transformer: RMSNorm, grouped-query attention with per-head QK-norm and 3-D RoPE, SwiGLU; no
biases.

Architecture of Cosmos 1.0's autoregressive models (paper section 5; released code
autoregressive/networks/transformer.py), with the two flags of ``AutoregressiveConfig`` for what one step predicts and
how a token is spelt. Where paper and code differ the code is followed: learnable QK RMSNorm AND the fixed
1/sqrt(head_dim), and grouped-query attention.

Positions. Tokens ``[B, t, h, w]`` become patches of ``patch x patch`` tokens in raster order, one position each. The
input at position ``k`` predicts position ``k + stride``: stride 1 in raster order, one whole latent frame in frame
order. A query sees the keys of its own block of ``stride`` positions and all before; in raster order that is the
ordinary causal mask. The action that leads to the latent frame being PREDICTED is added to the input of the position
that predicts it.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from wfm.errors import ConfigError
from wfm.models.autoregressive.cache import KeyValueCache
from wfm.models.autoregressive.conditioning import ActionEmbedding
from wfm.models.autoregressive.config import AutoregressiveConfig
from wfm.models.autoregressive.vocabulary import Vocabulary
from wfm.models.layers import Attention, RMSNorm
from wfm.models.rotary import Rope, Yarn, rope_3d, sinusoids_3d


class SwiGLU(nn.Module):
    """SwiGLU: w2(silu(w1 x) * w3 x)."""

    def __init__(self, config: AutoregressiveConfig) -> None:
        super().__init__()
        self.w1 = nn.Linear(config.dim, config.ffn_dim, bias=False)
        self.w2 = nn.Linear(config.ffn_dim, config.dim, bias=False)
        self.w3 = nn.Linear(config.dim, config.ffn_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(functional.silu(self.w1(x)) * self.w3(x))


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
        self.feed_forward = SwiGLU(config)

    def forward(
        self, x: Tensor, rope: Rope, stride: int, cache: KeyValueCache | None, text: TextKeys | None = None
    ) -> Tensor:
        """x `[B, n, dim]`, the n newest positions; queries see keys of their own block of ``stride`` positions and
        older."""
        q, k, v = self.attention.project(self.attention_norm(x), rope=rope)
        if cache is not None:
            k, v = cache.extend(self.layer, k, v)  # [B, all so far, kv_heads, head_dim]
        x = x + self._attend(q, k, v, stride)
        if self.cross_attention is not None and text is not None:
            queries = self.cross_attention.project_queries(self.cross_attention_norm(x))
            x = x + self.cross_attention.attend(queries, text.keys, text.values, kv_segments=text.lengths)
        return x + self.feed_forward(self.ffn_norm(x))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, stride: int) -> Tensor:
        if stride == 1:
            return self.attention.attend(q, k, v, "causal")
        # One dense call for each block against the keys up to its end: no masked work, and the same calls with or
        # without a cache.
        before, out = k.shape[1] - q.shape[1], []
        for start in range(0, q.shape[1], stride):
            end = before + start + stride
            out.append(self.attention.attend(q[:, start : start + stride], k[:, :end], v[:, :end]))
        return torch.cat(out, dim=1)


class AutoregressiveTransformer(nn.Module):
    """Predicts the next tokens of a video from all earlier ones and the actions (see the module for positions)."""

    family = "autoregressive"

    def __init__(self, config: AutoregressiveConfig) -> None:
        super().__init__()
        self.config = config
        self.vocabulary = Vocabulary(config.levels, digits=config.vocabulary == "digits")
        self.slots = config.patch**2  # tokens of one position
        width = self.slots * self.vocabulary.width
        self.tok_embeddings = nn.Embedding(width, config.dim)
        self.action = ActionEmbedding(
            config.action_width,
            config.dim,
            hidden=config.action_hidden,
            compression=config.temporal_compression,
            fps=config.fps,
        )
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = RMSNorm(config.dim, eps=config.norm_eps)
        self.output = nn.Linear(config.dim, width, bias=False)
        self.guess_embeddings = nn.Embedding(width, config.dim) if config.extrapolate else None
        self.copy = self._copy_tables() if config.copy_bias else None
        self.copy_guess = self._copy_tables() if config.copy_bias and config.extrapolate else None
        self.reset_parameters()

    def _copy_tables(self) -> nn.ParameterList:
        return nn.ParameterList(nn.Parameter(torch.zeros(n, n)) for n in self.vocabulary.sizes)

    def reset_parameters(self) -> None:
        """Truncated normal of std 0.02; what writes into the residual stream is scaled down with depth (Cosmos)."""
        for name, parameter in self.named_parameters():
            if parameter.ndim >= 2 and not name.startswith(("action.", "copy.", "copy_guess.")):
                nn.init.trunc_normal_(parameter, std=0.02)
        for name, parameter in self.named_parameters():
            if name.endswith(("to_out.0.weight", "w2.weight")):
                depth = int(name.split(".")[1])
                nn.init.trunc_normal_(parameter, std=0.02 / (2 * (depth + 1)) ** 0.5)

    # Tokens <-> positions

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Positions per latent frame ``(rows, columns)`` for token frames of ``height x width``."""
        patch = self.config.patch
        if height % patch or width % patch:
            raise ConfigError(f"token frames of {height} x {width} do not divide into patches of {patch} x {patch}")
        return height // patch, width // patch

    def stride(self, height: int, width: int) -> int:
        """How many positions one step predicts: 1 in raster order, a whole frame in frame order."""
        rows, columns = self.grid(height, width)
        return rows * columns if self.config.order == "frame" else 1

    def patchify(self, tokens: Tensor) -> Tensor:
        """tokens ``[B, t, h, w]`` -> ``[B, t * rows * columns, slots]`` in raster order."""
        batch, frames, height, width = tokens.shape
        rows, columns = self.grid(height, width)
        patch = self.config.patch
        x = tokens.view(batch, frames, rows, patch, columns, patch).permute(0, 1, 2, 4, 3, 5)
        return x.reshape(batch, frames * rows * columns, self.slots)

    def unpatchify(self, patches: Tensor, height: int, width: int) -> Tensor:
        """The inverse: ``[B, t * rows * columns, slots, ...]`` -> ``[B, t, h, w, ...]``."""
        rows, columns = self.grid(height, width)
        patch, batch, rest = self.config.patch, patches.shape[0], patches.shape[3:]
        x = patches.reshape(batch, -1, rows, columns, patch, patch, *rest).transpose(3, 4)
        return x.reshape(batch, -1, height, width, *rest)

    # The pass

    def forward(
        self,
        tokens: Tensor,
        actions: Tensor | None = None,
        known: Tensor | None = None,
        guess: Tensor | None = None,
        text: Tensor | None = None,
        text_lengths: Tensor | None = None,
    ) -> Tensor:
        """Teacher-forced logits for every token that can be predicted.

        tokens int64 ``[B, t, h, w]``; actions normalised ``[B, T, A]`` for all T = 1 + (t - 1) * temporal_compression
        video frames, or None (the null action); known bool ``[B]``: false where a sample's actions are not to be
        used; guess int64 ``[B, t, h, w]``: tokens of the extrapolated past, for a model that is shown them; text and
        text_lengths: see ``prepare_text``. Returns
        ``[B, N - stride, slots, vocabulary.width]``; row k scores what ``targets(tokens)[:, k]`` holds.
        """
        frames, height, width = tokens.shape[1:]
        inputs = self.patchify(tokens)[:, : -self.stride(height, width)]
        condition = self.condition(actions, tokens.shape[0], frames, known)
        told = self.prepare_text(text, text_lengths, batch=tokens.shape[0])
        return self.step(
            inputs, condition, (height, width), guess=None if guess is None else self.patchify(guess), text=told
        )

    def prepare_text(
        self, text: Tensor | None, lengths: Tensor | None = None, *, batch: int
    ) -> tuple[TextKeys, ...] | None:
        """Keys and values of every layer, worked out once for all steps of a decoding.

        text ``[B, L, text_embed_dim]``; lengths int64 ``[B]``: embeddings from there on are not seen, None: all are, as
        in Cosmos. None without text, which is the same as a text of zeros. Raises ConfigError for what does not fit.
        """
        if text is None:
            return None
        width = self.config.text_embed_dim
        if not width:
            raise ConfigError("text was given and this model reads none (text_embed_dim=0)")
        if text.ndim != 3 or text.shape[0] != batch or text.shape[2] != width or not text.shape[1]:
            raise ConfigError(f"text has shape {list(text.shape)}, wanted [{batch}, 1 or more, {width}]")
        counts = [text.shape[1]] * batch if lengths is None else [int(n) for n in lengths]
        if len(counts) != batch or not all(1 <= n <= text.shape[1] for n in counts):
            raise ConfigError(f"text_lengths is {counts}; give {batch} numbers from 1 to {text.shape[1]}")
        packed = torch.cat([row[:n] for row, n in zip(text, counts, strict=True)])  # [sum of lengths, D]
        told = []
        for block in self.layers:
            assert isinstance(block, Block)
            assert block.cross_attention is not None  # text_embed_dim is not 0
            keys, values = block.cross_attention.project_context(packed)
            told.append(TextKeys(keys, values, tuple(counts)))
        return tuple(told)

    def targets(self, tokens: Tensor) -> Tensor:
        """tokens ``[B, t, h, w]`` -> the ids that ``forward`` scores, ``[B, N - stride, slots]``."""
        return self.patchify(tokens)[:, self.stride(*tokens.shape[2:]) :]

    def condition(self, actions: Tensor | None, batch: int, frames: int, known: Tensor | None = None) -> Tensor:
        """What to add to the inputs that predict each latent frame: ``[B, t, dim]``."""
        return self.action(actions, known, batch=batch, latent_frames=frames)

    def step(
        self,
        inputs: Tensor,
        condition: Tensor,
        size: tuple[int, int],
        cache: KeyValueCache | None = None,
        *,
        last: bool = False,
        guess: Tensor | None = None,
        text: tuple[TextKeys, ...] | None = None,
    ) -> Tensor:
        """Logits ``[B, n, slots, vocabulary.width]`` of n new positions.

        inputs: ids ``[B, n, slots]``, the positions right after those in ``cache`` (from 0 without one); condition
        ``[B, t, dim]`` for all t latent frames of the video; size: token frame (height, width). With ``last`` only the
        final ``stride`` positions are scored. text: of ``prepare_text``. guess: ids ``[B, all positions, slots]`` of the
        extrapolated past. Raises ConfigError for a part of a block, more positions than the model's context, and a
        cache of another model.
        """
        rows, columns = self.grid(*size)
        stride, places = self.stride(*size), rows * columns
        start = cache.length if cache is not None else 0
        self._require_positions(inputs, start, stride, cache)
        positions = torch.arange(start, start + inputs.shape[1], device=inputs.device)
        x = self.embed(inputs) + condition[:, (positions + stride) // places]  # [B, n, dim]
        hinted = self._hinted(guess, positions + stride)  # [B, n, slots] or None
        if hinted is not None and self.guess_embeddings is not None:
            x = x + self._embed(hinted, self.guess_embeddings.weight)
        place = self._places(positions, columns, places)
        rope = self._rope(positions, columns, places, x.dtype)
        fixed = sinusoids_3d(place, self.config.dim, dtype=x.dtype) if self.config.absolute_embedding else None
        for index, block in enumerate(self.layers):
            if fixed is not None:
                x = x + fixed
            x = block(x, rope, stride, cache, None if text is None else text[index])
        if cache is not None:
            cache.advance(inputs.shape[1])
        if last:
            x, inputs = x[:, -stride:], inputs[:, -stride:]
            hinted = None if hinted is None else hinted[:, -stride:]
        logits = self.output(self.norm(x)).unflatten(-1, (self.slots, self.vocabulary.width))
        for tables, ids in ((self.copy, inputs), (self.copy_guess, hinted)):
            if tables is not None and ids is not None:
                logits = logits + self._copy_scores(ids, tables)
        return logits

    def _require_positions(self, inputs: Tensor, start: int, stride: int, cache: KeyValueCache | None) -> None:
        config, end = self.config, start + inputs.shape[1]
        if cache is not None:
            cache.require(config.layers, inputs.shape[0], config.kv_heads, config.head_dim)
        if inputs.shape[1] % stride or not inputs.shape[1]:
            raise ConfigError(
                f"{inputs.shape[1]} new positions are no whole number of blocks of {stride}: give whole latent frames"
            )
        if end > config.context_positions:
            raise ConfigError(
                f"{end} positions are more than this model's context of {config.context_positions}: give fewer latent frames, "
                "or go on from the last of them"
            )

    def _hinted(self, guess: Tensor | None, predicted: Tensor) -> Tensor | None:
        """The guess's ids ``[B, n, slots]`` at the positions that are predicted. Raises ConfigError where a model that is
        shown a guess gets none."""
        if self.guess_embeddings is None:
            return None
        if guess is None:
            raise ConfigError(
                "this model is shown the extrapolated past (extrapolate=True): give its tokens as `guess`"
            )
        return guess[:, predicted]

    def embed(self, ids: Tensor) -> Tensor:
        """ids ``[B, n, slots]`` -> ``[B, n, dim]``: the sum over slots and symbols of one embedding row each."""
        return self._embed(ids, self.tok_embeddings.weight)

    def _embed(self, ids: Tensor, table: Tensor) -> Tensor:
        if self.config.vocabulary == "digits":  # a product with the (narrow) one-hot matrix: its backward is one GEMM
            return self._one_hot(ids).flatten(-2).to(table.dtype) @ table
        offsets = torch.arange(self.slots, device=ids.device) * self.vocabulary.width
        return functional.embedding(self.vocabulary.symbols(ids)[..., 0] + offsets, table).sum(dim=-2)

    def new_cache(self, batch: int, frames: int, size: tuple[int, int]) -> KeyValueCache:
        """An empty cache for ``frames`` latent frames of ``size`` tokens."""
        rows, columns = self.grid(*size)
        config, weight = self.config, self.output.weight
        return KeyValueCache(
            config.layers,
            batch,
            frames * rows * columns,
            config.kv_heads,
            config.head_dim,
            dtype=weight.dtype,
            device=weight.device,
        )

    def _one_hot(self, ids: Tensor) -> Tensor:
        """ids ``[..., slots]`` -> int64 ``[..., slots, vocabulary.width]`` with a one for each symbol."""
        symbols = self.vocabulary.symbols(ids)
        return torch.cat(
            [functional.one_hot(symbols[..., s], size) for s, size in enumerate(self.vocabulary.sizes)], dim=-1
        )

    def _copy_scores(self, ids: Tensor, tables: nn.ParameterList) -> Tensor:
        """The learned score of each next level given this level of the same digit: ``[..., slots,
        vocabulary.width]``."""
        symbols = self.vocabulary.symbols(ids)
        return torch.cat([functional.embedding(symbols[..., s], table) for s, table in enumerate(tables)], dim=-1)

    def _rope(self, positions: Tensor, columns: int, places: int, dtype: torch.dtype) -> Rope:
        """Rotary tables of positions ``[n]``, at the place (t, h, w) of each input patch."""
        config, yarn = self.config, None
        if config.yarn is not None:
            frames, rows, _ = config.yarn.original_shape  # Cosmos's code measures both sides by the rows
            yarn = Yarn((frames, rows, rows), config.yarn.beta_fast, config.yarn.beta_slow, config.yarn.scale)
        place = self._places(positions, columns, places)
        return rope_3d(place, config.head_dim, theta=config.rope_theta, yarn=yarn, dtype=dtype)

    @staticmethod
    def _places(positions: Tensor, columns: int, places: int) -> Tensor:
        """The place (t, h, w) ``[n, 3]`` of the input patches at positions ``[n]``."""
        inside = positions % places
        return torch.stack([positions // places, inside // columns, inside % columns], dim=-1)
