"""The autoregressive transformer: RMSNorm, grouped-query attention with per-head QK-norm and 3-D RoPE, SwiGLU; no
biases.

Architecture of Cosmos 1.0's autoregressive models (paper section 5; released code
autoregressive/networks/transformer.py), with the two flags of ``AutoregressiveConfig`` for what one step predicts and
how a token is spelt. Where paper and code differ the code is followed: learnable QK RMSNorm AND the fixed
1/sqrt(head_dim), and grouped-query attention.

Positions. Tokens ``[B, t, h, w]`` become patches of ``patch x patch`` tokens in raster order, one position each. The
input at position ``k`` predicts position ``k + stride``: stride 1 in raster order, one whole latent frame in frame
order. With ``begin_token`` a token stands before the first: it has no place (no rotation, no sinusoid), and
predicts position 0. A query sees the keys of its own block of ``stride`` positions and all before; in raster order that is the
ordinary causal mask. The action that leads to the latent frame being PREDICTED is added to the input of the position
that predicts it.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from wfm.errors import ConfigError
from wfm.models.autoregressive.blocks import Block, ContextKeys, PackSegments, Segment
from wfm.models.autoregressive.cache import KeyValueCache
from wfm.models.autoregressive.conditioning import (
    Hints,
    PickedRows,
    VectorEmbedding,
    packed_context,
    vector_name,
)
from wfm.models.autoregressive.config import AutoregressiveConfig
from wfm.models.autoregressive.medusa import MedusaHeads
from wfm.models.autoregressive.positions import Positions
from wfm.models.autoregressive.vocabulary import Vocabulary
from wfm.models.layers import Linear, RMSNorm
from wfm.models.rotary import Rope
from wfm.models.slots import Place, of_slot, require_known


class AutoregressiveTransformer(Positions, nn.Module):
    """Predicts the next tokens of a video from all earlier ones and its conditions (see the module for positions).

    What it is conditioned on comes as named tensors: `tensors` `[B, ...]` each, and `present` bool `[B]` by condition, false
    where one is absent, which adds nothing. Of the conditions that have fields of their own these are `actions` `[B, T, A]`,
    normalised, for all T = 1 + (t - 1) * temporal_compression video frames, `extrapolated` int64 `[B, t, h, w]`, and `text`
    with `text_lengths`. encoders: `wfm.models.slots.Encoder` by condition; the tensor of one without enters as it is.
    """

    family = "autoregressive"

    def __init__(self, config: AutoregressiveConfig, encoders: Mapping[str, nn.Module] | None = None) -> None:
        super().__init__()
        self.config = config
        unknown = sorted(set(encoders or ()) - set(config.slots))
        if unknown:
            raise ConfigError(
                f"encoders: {', '.join(unknown)}; this model's conditions: {', '.join(config.slots) or 'none'}"
            )
        self.encoders = nn.ModuleDict(dict(encoders or {}))
        self.vocabulary = Vocabulary(config.levels, digits=config.vocabulary == "digits", begins=config.begin_token)
        self.slots = config.patch**2  # tokens of one position
        width = self.slots * self.vocabulary.width
        rows = PickedRows if config.vocabulary == "digits" else nn.Embedding
        self.tok_embeddings = rows(config.embedding_rows if config.begin_token else width, config.dim)
        for name in of_slot(config.slots, "vector"):
            self._add_vector(name)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = RMSNorm(config.dim, eps=config.norm_eps)
        self.output = Linear(config.dim, width)
        self.extrapolated_embeddings = rows(width, config.dim) if config.extrapolate else None
        self.medusa = MedusaHeads(config.dim, config.medusa_heads) if config.medusa_heads else None
        self.copy = self._copy_tables() if config.copy_bias else None
        self.copy_extrapolated = self._copy_tables() if config.copy_bias and config.extrapolate else None
        self.reset_parameters()

    def _add_vector(self, name: str) -> None:
        slot, config = self.config.slots[name], self.config
        made = VectorEmbedding(slot.width, config.dim, hidden=config.action_hidden)
        self.add_module(vector_name(name), made)

    def _copy_tables(self) -> nn.ParameterList:
        return nn.ParameterList(nn.Parameter(torch.zeros(n, n)) for n in self.vocabulary.sizes)

    def reset_parameters(self) -> None:
        """Truncated normal of std 0.02; what writes into the residual stream is scaled down with depth (Cosmos)."""
        vectors = (f"{vector_name(name)}." for name in of_slot(self.config.slots, "vector"))
        own = (*vectors, "encoders.", "copy.", "copy_extrapolated.")
        for name, parameter in self.named_parameters():
            if parameter.ndim >= 2 and not name.startswith(own):
                nn.init.trunc_normal_(parameter, std=0.02)
        for name, parameter in self.named_parameters():
            if name.endswith(("to_out.0.weight", "w2.weight")):
                depth = int(name.split(".")[1])
                nn.init.trunc_normal_(parameter, std=0.02 / (2 * (depth + 1)) ** 0.5)
        if self.medusa is not None:
            nn.init.zeros_(self.medusa.merged.weight)

    # The pass

    def forward(
        self,
        tokens: Tensor,
        tensors: Mapping[str, Tensor] | None = None,
        present: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Teacher-forced logits for every token that can be predicted.

        tokens int64 ``[B, t, h, w]``; tensors, present: see the class. Returns ``[B, N - stride, slots, vocabulary.width]`` (N
        rows with ``begin_token``); row k scores what ``targets(tokens)[:, k]`` holds.
        """
        return self.with_drafts(tokens, tensors, present)[0]

    def with_drafts(
        self,
        tokens: Tensor,
        tensors: Mapping[str, Tensor] | None = None,
        present: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """``forward``, and what the Medusa heads say of the same rows: ``[B, N - 1, K, slots, vocabulary.width]``, where
        [:, k, j] scores ``targets(tokens)[:, k + 1 + j]``; None without heads."""
        frames, height, width = tokens.shape[1:]
        inputs = self.vocabulary.begun(self.patchify(tokens))[:, : -self.stride(height, width)]
        tensors = tensors or {}
        condition = self.condition(tensors, tokens.shape[0], frames, present)
        contexts = self.prepare_contexts(tensors, batch=tokens.shape[0], present=present)
        hints = self.hints(tensors, present)
        features = self.features(inputs, condition, (height, width), hints=hints, contexts=contexts)
        ahead = None if hints is None else hints.at(slice(self.stride(height, width), None))
        return self.logits(features, inputs, ahead), self.drafts(features)

    def prepare_contexts(
        self, tensors: Mapping[str, Tensor], *, batch: int, present: Mapping[str, Tensor] | None = None
    ) -> tuple[dict[str, ContextKeys], ...] | None:
        """Keys and values of every layer by context, worked out once for all steps of a decoding; None without any. Tensors as
        of `context_tokens`."""
        found: list[dict[str, ContextKeys]] = [{} for _ in self.layers]
        for name in self.config.contexts:
            given = self.context_tokens(name, tensors, batch, present)
            if given is not None:
                packed, counts = given
                for mine, block in zip(found, self.blocks, strict=True):
                    mine[name] = ContextKeys(*block.context_keys(name, packed), counts)
        return tuple(found) if any(found) else None

    def context_tokens(
        self, name: str, tensors: Mapping[str, Tensor], batch: int, present: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, tuple[int, ...]] | None:
        """The tokens of a context that are seen, ``[sum of lengths, width]``, and how many of each sample.

        Of ``tensors`` the tokens ``[B, L, width]`` and, where not all are seen (Cosmos: all), their numbers int64 ``[B]``;
        where ``present`` is false they are zeros, which add nothing. None: it is absent. Raises ConfigError for what does not
        fit.
        """
        slot = self.config.slots[name]
        tokens = self._encoded(name, tensors, Place(0, torch.zeros(batch, dtype=torch.int64)))
        if tokens is None:
            return None
        if present is not None and name in present:
            tokens = tokens * present[name][:, None, None].to(tokens)
        lengths = tensors.get(slot.tensors[1]) if len(slot.tensors) > 1 else None
        return packed_context(name, tokens, lengths, batch, slot.width)

    @property
    def blocks(self) -> list[Block]:
        """The layers, in order."""
        return [block for block in self.layers if isinstance(block, Block)]

    def _encoded(self, name: str, tensors: Mapping[str, Tensor], place: Place) -> Tensor | None:
        """What a condition puts into its slot; None: it is absent."""
        names = self.config.slots[name].tensors
        if names[0] not in tensors:
            return None
        if name not in self.encoders:
            return tensors[names[0]]
        return self.encoders[name]({one: tensors[one] for one in names if one in tensors}, place)

    def targets(self, tokens: Tensor) -> Tensor:
        """tokens ``[B, t, h, w]`` -> the ids that ``forward`` scores, ``[B, N - stride, slots]`` (N with ``begin_token``)."""
        return self.vocabulary.begun(self.patchify(tokens))[:, self.stride(*tokens.shape[2:]) :]

    def condition(
        self, tensors: Mapping[str, Tensor], batch: int, frames: int, present: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """What to add to the inputs that predict each latent frame: ``[B, t, dim]``, of all vectors together. Raises
        ConfigError for what does not fit, and for tensors of a condition that this model does not have."""
        require_known(tensors, present or {}, self.config.slots)
        kept, weight = present or {}, next(self.parameters())
        total: Tensor | None = None
        place = Place(frames, torch.ones(batch, dtype=torch.int64, device=weight.device))
        for name, slot in of_slot(self.config.slots, "vector").items():
            features = self._encoded(name, tensors, place)
            if features is None:
                continue
            if features.ndim == 2:
                features = features[:, None].expand(-1, frames, -1)
            if features.shape != (batch, frames, slot.width):
                raise ConfigError(f"{name}: features {list(features.shape)}, wanted {[batch, frames, slot.width]}")
            added = getattr(self, vector_name(name))(features, kept.get(name))
            total = added if total is None else total + added
        if total is None:
            return torch.zeros(batch, frames, self.config.dim, dtype=weight.dtype, device=weight.device)
        return total

    def step(
        self,
        inputs: Tensor,
        condition: Tensor,
        size: tuple[int, int],
        cache: KeyValueCache | None = None,
        *,
        last: bool = False,
        hints: Hints | None = None,
        contexts: tuple[dict[str, ContextKeys], ...] | None = None,
    ) -> Tensor:
        """Logits ``[B, n, slots, vocabulary.width]`` of n new positions; with ``last`` only of the final ``stride``.
        Arguments as in ``features``."""
        features = self.features(inputs, condition, size, cache, hints=hints, contexts=contexts)
        end, stride = inputs.shape[1] if cache is None else cache.length, self.stride(*size)
        if last:
            features, inputs = features[:, -stride:], inputs[:, -stride:]
        predicted = slice(end + stride - inputs.shape[1], end + stride)
        return self.logits(features, inputs, None if hints is None else hints.at(predicted))

    def features(
        self,
        inputs: Tensor,
        condition: Tensor,
        size: tuple[int, int],
        cache: KeyValueCache | None = None,
        *,
        hints: Hints | None = None,
        contexts: tuple[dict[str, ContextKeys], ...] | None = None,
    ) -> Tensor:
        """The last hidden state ``[B, n, dim]``, normed, of n new positions: what ``logits`` and the Medusa heads read.

        inputs: ids ``[B, n, slots]``, the positions right after those in ``cache`` (from 0 without one; the first of all is
        the token to begin with, where there is one: ``vocabulary.begun``); condition
        ``[B, t, dim]`` for all t latent frames of the video; size: token frame (height, width). contexts: of
        ``prepare_contexts``; hints: of ``hints``, at all positions. Raises ConfigError for a part of a block, more positions
        than the model's context, and a cache of another model.
        """
        start, stride = cache.length if cache is not None else 0, self.stride(*size)
        self._require_positions(inputs, start, stride, cache, size)
        x, place = self.enter(inputs, condition, size, start, hints)
        rope = cache.next_rope(inputs.shape[1]) if cache is not None else None
        rope = self._rope(place, x.dtype) if rope is None else rope
        x = self.run_blocks(x, place, rope, Segment(inputs.shape[1], stride), cache, contexts)
        if cache is not None:
            cache.advance(inputs.shape[1])
        return self.leave(x)

    # From ids to features: enter, the blocks, leave

    def enter(
        self, inputs: Tensor, condition: Tensor, size: tuple[int, int], start: int, hints: Hints | None
    ) -> tuple[Tensor, Tensor]:
        """What goes into the first block, ``[B, n, dim]``, and the place (t, h, w) ``[n, 3]`` of each position."""
        rows, columns = self.grid(*size)
        places = rows * columns
        if not start:
            self.vocabulary.require_begun(inputs)
        positions = torch.arange(start, start + inputs.shape[1], device=inputs.device) - int(self.config.begin_token)
        predicted = positions + self.stride(*size)
        x = self.embed(inputs) + condition[:, predicted // places]
        if hints is not None and self.extrapolated_embeddings is not None:
            ahead = hints.at(predicted)
            x = x + ahead.kept(self._embed(ahead.ids, self.extrapolated_embeddings))
        return x, self._places(positions, columns, places)

    def run_blocks(
        self,
        x: Tensor,
        place: Tensor,
        rope: Rope,
        segments: Segment | PackSegments,
        cache: KeyValueCache | None = None,
        contexts: tuple[dict[str, ContextKeys], ...] | None = None,
        *,
        first: int = 0,
        last: int | None = None,
    ) -> Tensor:
        """Blocks ``first`` to before ``last`` (None: all from there) of hidden states ``[B, n, dim]``."""
        fixed = self._fixed(place, x.dtype) if self.config.absolute_embedding else None
        for index, block in enumerate(self.layers[first:last], first):
            if fixed is not None:
                x = x + fixed
            x = block(x, rope, segments, cache, {} if contexts is None else contexts[index])
        return x

    def leave(self, x: Tensor) -> Tensor:
        """Hidden states behind the last block -> features ``[B, n, dim]``, normed."""
        return self.norm(x)

    def logits(self, features: Tensor, inputs: Tensor, ahead: Hints | None = None) -> Tensor:
        """Scores ``[B, n, slots, vocabulary.width]`` of features ``[B, n, dim]``; inputs: ids ``[B, n, slots]`` of the same
        positions; ahead: what the extrapolated past has at the positions that are predicted."""
        scores = self.output(features).unflatten(-1, (self.slots, self.vocabulary.width))
        if self.copy is not None:
            scores = scores + self._copy_scores(inputs, self.copy)
        if self.copy_extrapolated is not None and ahead is not None:
            scores = scores + ahead.kept(self._copy_scores(ahead.ids, self.copy_extrapolated))
        return scores

    def drafts(self, features: Tensor) -> Tensor | None:
        """What the Medusa heads predict beyond the next token: ``[B, n, K, slots, vocabulary.width]``; None without heads.
        They share the output layer, and know of no token that is not there yet: `copy` scores nothing here."""
        if self.medusa is None:
            return None
        return self.output(self.medusa(features)).unflatten(-1, (self.slots, self.vocabulary.width))

    def hints(self, tensors: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None) -> Hints | None:
        """The tokens beside the window's, of a model that is shown such and a batch that has them."""
        for name, slot in of_slot(self.config.slots, "channels").items():
            if slot.tensors[0] in tensors:
                return Hints(self.patchify(tensors[slot.tensors[0]]), (present or {}).get(name))
        return None

    def embed(self, ids: Tensor) -> Tensor:
        """ids ``[B, n, slots]`` -> ``[B, n, dim]``: the sum over slots and symbols of one embedding row each."""
        return self._embed(ids, self.tok_embeddings)

    def _embed(self, ids: Tensor, table: nn.Embedding) -> Tensor:
        if isinstance(table, PickedRows):
            picked: Tensor = table(self.vocabulary.one_hot(ids).flatten(-2))
            return picked
        if self.vocabulary.begin is not None:
            begins = ids == self.vocabulary.begin
            self.vocabulary.symbols(ids.masked_fill(begins, 0))  # looks at the rest
            return table(ids[..., 0])
        offsets = torch.arange(self.slots, device=ids.device) * self.vocabulary.width
        return table(self.vocabulary.symbols(ids)[..., 0] + offsets).sum(dim=-2)

    def new_cache(self, batch: int, frames: int, size: tuple[int, int]) -> KeyValueCache:
        """An empty cache for ``frames`` latent frames of ``size`` tokens, with the rotary tables of all their positions."""
        rows, columns = self.grid(*size)
        config, weight = self.config, next(self.parameters())
        capacity = frames * rows * columns
        positions = torch.arange(capacity, device=weight.device) - int(config.begin_token)
        rope = self._rope(self._places(positions, columns, rows * columns), weight.dtype)
        return KeyValueCache(
            config.layers, batch, capacity, config.kv_heads, config.head_dim,
            dtype=weight.dtype, device=weight.device, size=size, rope=rope,
        )  # fmt: skip

    def _copy_scores(self, ids: Tensor, tables: nn.ParameterList) -> Tensor:
        """The learned score of each next level given this level of the same digit: ``[..., slots,
        vocabulary.width]``."""
        symbols = self.vocabulary.symbols(ids)
        return torch.cat([functional.embedding(symbols[..., s], table) for s, table in enumerate(tables)], dim=-1)
