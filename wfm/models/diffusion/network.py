"""The diffusion transformer F: Cosmos 1.0's DiT (paper section 5.1, released code `general_dit.py`).

    c_noise -> sinusoid (+ vectors) -> RMSNorm -> embedding -> AdaLN-LoRA of every norm          one a sample or a frame
    latents + masks -> patches -> blocks [ + positions, self-attention (rope), contexts, feed-forward ] -> AdaLN -> latents

Inside, tokens are one axis: `[M, d]` with the lengths of the segments, whether they came as a dense batch (`forward`)
or as a pack of any sizes (`packed`). Its conditions come as named tensors in slots: `vectors` join the time embedding,
`contexts` are attended to, `channels` join the tokens. What the released code calls by a name of its own keeps it, so that a
call of its model is one of this: `text` with `text_lengths`, `condition_mask`, `padding_mask`, `fps`. Parameter names are those
of diffusers' CosmosTransformer3DModel, those of the action hook are Cosmos's own. Preconditioning, latent statistics and what
of the past is given are the denoiser's.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from wfm.errors import ConfigError
from wfm.models.diffusion.blocks import Block, PatchEmbed, VectorMLP, normed
from wfm.models.diffusion.config import DiffusionConfig
from wfm.models.diffusion.initial import initialise
from wfm.models.diffusion.inputs import (
    Context,
    Grid,
    Vector,
    check_latents,
    context_queries,
    context_tokens,
    from_patches,
    grid_of,
    known_channels,
    noise_rows,
    rates_of,
    rows_of_tokens,
    to_patches,
    with_masks,
)
from wfm.models.diffusion.prepared import (
    Conditioning,
    ContextTokens,
    PreparedChannels,
    PreparedNoise,
    PreparedShape,
    PreparedText,
)
from wfm.models.layers import AdaLayerNormLoRA, LearnablePositions, Linear, TimestepEmbedding
from wfm.models.rotary import grid_positions, rope_3d

BASE_FPS = 24.0
"""Rotary time runs in units of 1 / 24 s [1/s]."""


class DiffusionTransformer(nn.Module):
    """See the module. `forward` takes a dense batch, `packed` a pack of any sizes; both run the same blocks."""

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.config = config
        dim, patch = config.width, config.patch_size[1] * config.patch_size[2]
        self.patch_embed = PatchEmbed(config)
        self.learnable_pos_embed = LearnablePositions(config.max_grid, dim) if config.extra_pos_embed else None
        self.time_embed = TimestepEmbedding(dim)
        for name, features in config.vectors.items():
            self.add_module(f"{name}_embedder_B_D", VectorMLP(features, 4 * dim, dim))
            self.add_module(f"{name}_embedder_B_3D", VectorMLP(features, 4 * dim, 3 * dim))
        self.transformer_blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm_out = AdaLayerNormLoRA(dim, config.adaln_lora_dim, chunks=2)
        self.proj_out = Linear(dim, config.in_channels * patch)
        initialise(self)

    @property
    def dtype(self) -> torch.dtype:
        """What the network computes in: latents and prepared parts must have it."""
        return next(self.parameters()).dtype

    @property
    def blocks(self) -> list[Block]:
        """The transformer blocks, in order."""
        return [block for block in self.transformer_blocks if isinstance(block, Block)]

    def vector_embedders(self, name: str) -> tuple[VectorMLP, VectorMLP]:
        """What makes addends of the embedding, `[G, d]`, and of the AdaLN vector, `[G, 3d]`."""
        first, second = getattr(self, f"{name}_embedder_B_D"), getattr(self, f"{name}_embedder_B_3D")
        assert isinstance(first, VectorMLP)
        assert isinstance(second, VectorMLP)
        return first, second

    # Prepared parts

    def prepare_shape(
        self, sizes: Sequence[int] | Sequence[Sequence[int]], fps: float | Sequence[float] | Tensor | None = None
    ) -> PreparedShape:
        """Of latents of one size (T, H, W) (`latents.shape[2:]`), or of one size for each segment.

        fps: frames a second of the video [1/s]: a number, or one for each sample or segment; None: plain positions, as for
        images. Raises ConfigError for sizes that the model cannot take and for an fps that is not positive.
        """
        many = [sizes] if sizes and isinstance(sizes[0], int) else sizes
        if not len(many):
            raise ConfigError("latents: sizes of no segment; give at least one (T, H, W)")
        grids = [grid_of(self.config, size) for size in many]  # type: ignore[arg-type]
        rates = rates_of(fps)
        if len(rates) > 1 and len(grids) == 1:
            grids = grids * len(rates)
        if len(rates) not in (1, len(grids)):
            raise ConfigError(f"fps: {len(rates)} values for {len(grids)} segments; give one for all or one for each")
        if len(rates) == 1 and len(set(grids)) == 1:
            grids = grids[:1]
        rates = rates * (len(grids) // len(rates))
        device = next(self.parameters()).device
        positions = [
            grid_positions(grid, time_scale=1.0 if rate is None else BASE_FPS / rate, device=device)
            for grid, rate in zip(grids, rates, strict=True)
        ]
        config = self.config
        rope = rope_3d(
            torch.cat(positions),
            config.attention_head_dim,
            theta=config.rope_theta,
            ratio=config.rope_scale,
            dtype=self.dtype,
        )
        learned = None if self.learnable_pos_embed is None else torch.cat([self.learnable_pos_embed(g) for g in grids])
        return PreparedShape(tuple(grids), rope, learned)

    def prepare_text(self, text: Tensor, text_lengths: Sequence[int] | Tensor | None = None) -> PreparedText:
        """Keys and values of every block: text `[B, L, D]` (or `[1, L, D]` for all samples) and the lengths used, or a pack
        `[sum of lengths, D]` with its lengths."""
        return self.prepare_context("text", Context(text, text_lengths))

    def prepare_context(self, name: str, context: Context) -> PreparedText:
        """Keys and values of every block of the context `name`."""
        tokens, lengths = context_tokens(self.config, name, context, self.dtype)
        heads = tuple(block.cross(name)[1].project_context(tokens) for block in self.blocks)
        return PreparedText(heads, lengths)

    def prepare_channels(self, channels: Mapping[str, Tensor]) -> PreparedChannels:
        """What conditions beside the latents add to the tokens, of `[B, width, T, H, W]` each by name."""
        return PreparedChannels(
            self._added(channels, next((x.shape[0:1] + x.shape[2:] for x in channels.values()), ()))
        )

    def prepare_noise(self, c_noise: Tensor, vectors: Mapping[str, Vector] | None = None) -> PreparedNoise:
        """Modulations of every block: c_noise a number, `[1]` (all samples alike), `[B]` or `[B, T]`; vectors: features
        `[B, width]` or `[B, T, width]` by name."""
        joined = dict(vectors or {})
        shapes = [torch.atleast_1d(c_noise).shape, *(one.features.shape[:-1] for one in joined.values())]
        segments = max(shape[0] for shape in shapes)
        frames = [next((shape[1] for shape in shapes if len(shape) == 2), 1)] * segments
        embedding, lora = self.embed_noise(c_noise, joined, segments, frames)
        return PreparedNoise(
            tuple(block.modulations(embedding, lora) for block in self.blocks),
            self.norm_out.modulation(embedding, lora),
        )

    # The network

    def forward(
        self,
        latents: Tensor,
        c_noise: Tensor | PreparedNoise,
        text: Tensor | PreparedText | None = None,
        *,
        text_lengths: Sequence[int] | Tensor | None = None,
        fps: float | Sequence[float] | Tensor | None = None,
        padding_mask: Tensor | None = None,
        condition_mask: Tensor | None = None,
        vectors: Mapping[str, Vector] | None = None,
        contexts: Mapping[str, Context | PreparedText] | None = None,
        channels: Mapping[str, Tensor] | PreparedChannels | None = None,
        shape: PreparedShape | None = None,
    ) -> Tensor:
        """F of a dense batch: latents `[B, C, T, H, W]` (the tokenizer's channels, then any extra ones) -> `[B, C, T, H, W]`.

        c_noise: `[B]`, `[B, T]` for a level of each latent frame, `[1]` for one of all samples. text `[B or 1, L, D]`;
        text_lengths: tokens used of each, None: all L. fps [1/s]: a number or `[B]`; None: plain positions. padding_mask
        `[B or 1, 1, H', W']`, 1 where padded; condition_mask `[B, 1, T, H, W]`, 1 where given. vectors, contexts, channels
        (`[B, width, T, H, W]`): of conditions, by name; one that is absent adds nothing. Raises ConfigError naming what does
        not fit.
        """
        config = self.config
        check_latents(config, latents, ndim=5, dtype=self.dtype)
        batch = latents.shape[0]
        grid = grid_of(config, latents.shape[2:])
        if shape is None and len(rates_of(fps)) not in (1, batch):
            raise ConfigError(f"fps: {len(rates_of(fps))} values for {batch} samples; give one for all or one for each")
        shape = self._shape(shape, [latents.shape[2:]] if shape is None else [], fps)
        if any(other != grid for other in shape.grids) or len(shape.grids) not in (1, batch):
            raise ConfigError(f"shape: prepared for tokens {shape.grids}, these latents are {batch} of {grid}")
        patches = to_patches(with_masks(config, latents, condition_mask, padding_mask), config.patch_size)
        added = (
            channels.added
            if isinstance(channels, PreparedChannels)
            else self._added(channels, [batch, *latents.shape[2:]])
        )
        shared = self.conditioning(
            [grid] * batch, c_noise, shape, vectors or {}, _with_text(contexts, text, text_lengths)
        )
        out = self.leave(self.run_blocks(self.enter(patches, added), shared), shared)
        return from_patches(out, grid, config.patch_size)

    def packed(
        self,
        latents: Sequence[Tensor],
        c_noise: Tensor | PreparedNoise,
        text: Tensor | PreparedText | None = None,
        *,
        text_lengths: Sequence[int] | Tensor | None = None,
        fps: float | Sequence[float] | Tensor | None = None,
        padding_mask: Sequence[Tensor | None] | None = None,
        condition_mask: Sequence[Tensor] | None = None,
        vectors: Mapping[str, Vector] | None = None,
        contexts: Mapping[str, Context | PreparedText] | None = None,
        channels: Mapping[str, Sequence[Tensor]] | None = None,
        shape: PreparedShape | None = None,
    ) -> list[Tensor]:
        """F of a pack: segments `[C, T, H, W]` of any sizes -> as many outputs; no segment sees another.

        c_noise `[S]` for a level a segment or `[sum of T]` for one a latent frame; text `[S, L, D]` or a pack
        `[sum of lengths, D]`, with text_lengths; fps a number or one a segment; masks and channels of each segment without the
        batch axis; vectors `[S, width]` or `[sum of T, width]`. Otherwise as `forward`.
        """
        if not len(latents):
            raise ConfigError("latents: an empty pack; give at least one segment [C, T, H, W]")
        config = self.config
        patches, grids = [], []
        for i, segment in enumerate(latents):
            check_latents(config, segment, ndim=4, dtype=self.dtype)
            grids.append(grid_of(config, segment.shape[1:]))
            padding = None if padding_mask is None else padding_mask[i]
            given = None if condition_mask is None else condition_mask[i][None]
            full = with_masks(config, segment[None], given, None if padding is None else padding[None])
            patches.append(to_patches(full, config.patch_size))
        beside = {
            name: torch.cat([to_patches(one[None], config.patch_size) for one in each])
            for name, each in (channels or {}).items()
        }
        out = self.packed_patches(
            torch.cat(patches), grids, c_noise, text, text_lengths=text_lengths, fps=fps, vectors=vectors, contexts=contexts,
            channels=beside, shape=shape,
        )  # fmt: skip
        pieces = out.split([t * h * w for t, h, w in grids])
        return [from_patches(o, grid, config.patch_size)[0] for o, grid in zip(pieces, grids, strict=True)]

    def packed_patches(
        self,
        patches: Tensor,
        grids: Sequence[Grid],
        c_noise: Tensor | PreparedNoise,
        text: Tensor | PreparedText | None = None,
        *,
        text_lengths: Sequence[int] | Tensor | None = None,
        fps: float | Sequence[float] | Tensor | None = None,
        vectors: Mapping[str, Vector] | None = None,
        contexts: Mapping[str, Context | PreparedText] | None = None,
        channels: Mapping[str, Tensor] | None = None,
        shape: PreparedShape | None = None,
    ) -> Tensor:
        """F of what is cut into patches already: `[M, C' * p * q]` (`inputs.to_patches`, masks included) with the grid of
        each segment -> `[M, p * q * C]` (`inputs.from_patches`). channels: cut likewise."""
        _, p, q = self.config.patch_size
        shape = self._shape(shape, [(t, h * p, w * q) for t, h, w in grids] if shape is None else [], fps)
        if shape.grids != tuple(grids) and not (len(shape.grids) == 1 and set(shape.grids) == set(grids)):
            raise ConfigError(f"shape: prepared for tokens {shape.grids}, the pack holds {tuple(grids)}")
        shared = self.conditioning(grids, c_noise, shape, vectors or {}, _with_text(contexts, text, text_lengths))
        added = self.patch_embed.added(known_channels(self.config, channels or {}))
        return self.leave(self.run_blocks(self.enter(patches, added), shared), shared)

    # From patches to patches: enter, the blocks, leave

    def conditioning(
        self,
        grids: Sequence[Grid],
        c_noise: Tensor | PreparedNoise,
        shape: PreparedShape,
        vectors: Mapping[str, Vector],
        contexts: Mapping[str, Context | PreparedText],
    ) -> Conditioning:
        """What every block, and the way out, takes besides hidden states: small, and worked out from the arguments of the
        call alone, so that each stage of a pipeline makes its own. Arguments as in `packed_patches`, the text among the
        contexts."""
        noise = c_noise if isinstance(c_noise, PreparedNoise) else None
        embedding = lora = None
        if isinstance(c_noise, PreparedNoise):
            if vectors:
                name = next(iter(vectors))
                raise ConfigError(f"{name}: already part of the prepared noise; give it to prepare_noise only")
            count = c_noise.rows
        else:
            embedding, lora = self.embed_noise(c_noise, vectors, len(grids), [grid[0] for grid in grids])
            count = embedding.shape[0]
        segments = tuple(t * h * w for t, h, w in grids)
        return Conditioning(
            segments, shape.rope, shape.positions, embedding, lora,
            rows_of_tokens(count, grids, shape.rope.cos.device),
            {name: self._context(name, one, segments) for name, one in contexts.items()}, noise,
        )  # fmt: skip

    def _context(self, name: str, context: Context | PreparedText, segments: tuple[int, ...]) -> ContextTokens:
        if isinstance(context, PreparedText):
            return ContextTokens(None, context.lengths, context_queries(name, context.lengths, segments), context)
        tokens, lengths = context_tokens(self.config, name, context, self.dtype)
        return ContextTokens(tokens, lengths, context_queries(name, lengths, segments))

    def _added(self, channels: Mapping[str, Tensor] | None, size: Sequence[int]) -> Tensor | None:
        """What channels `[B, width, T, H, W]` add to the tokens, for latents of `size` (B, T, H, W)."""
        known = known_channels(self.config, channels or {})
        for name, x in known.items():
            wanted = (size[0], self.config.channels[name], *size[1:])
            if x.shape != wanted:
                raise ConfigError(
                    f"{name}: {list(x.shape)} beside the latents, wanted {list(wanted)}: channels of their size"
                )
        return self.patch_embed.added({name: to_patches(x, self.config.patch_size) for name, x in known.items()})

    def enter(self, patches: Tensor, added: Tensor | None = None) -> Tensor:
        """Patches `[M, C' * p * q]` of all segments, and what the channels of conditions add -> hidden states `[M, d]`."""
        return self.patch_embed(patches, added)

    def run_blocks(self, x: Tensor, shared: Conditioning, first: int = 0, last: int | None = None) -> Tensor:
        """Blocks `first` to before `last` (None: all from there) of hidden states `[M, d]`."""
        for i, block in enumerate(self.blocks[first:last], first):
            x = block(x, shared, *shared.prepared(i))
        return x

    def leave(self, x: Tensor, shared: Conditioning) -> Tensor:
        """Hidden states behind the last block -> patches `[M, p * q * C]`."""
        if shared.noise is not None:
            final = shared.noise.final
        else:
            assert shared.embedding is not None
            assert shared.lora is not None
            final = self.norm_out.modulation(shared.embedding, shared.lora)
        return self.proj_out(normed(self.norm_out, x, final, shared.rows))

    # Inside

    def _shape(
        self,
        shape: PreparedShape | None,
        sizes: Sequence[Sequence[int]],
        fps: float | Sequence[float] | Tensor | None,
    ) -> PreparedShape:
        if shape is None:
            return self.prepare_shape(sizes, fps)
        if fps is not None:
            raise ConfigError("fps: already part of the prepared shape; give it to prepare_shape only")
        return shape

    def embed_noise(
        self, c_noise: Tensor, vectors: Mapping[str, Vector], segments: int, frames: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Time embedding `[G, d]` and AdaLN vector `[G, 3d]`, with the vectors in both."""
        self._require_vectors(vectors)
        if not c_noise.is_floating_point():
            raise ConfigError(f"c_noise: wanted floating point (ln(sigma) / 4 in EDM), got {c_noise.dtype}")
        rows, spread = noise_rows(c_noise, vectors, segments, frames)
        addends: tuple[Tensor, ...] = ()
        for name, one in spread.items():
            mine = tuple(_where(one.present, mlp(one.features)) for mlp in self.vector_embedders(name))
            addends = tuple(a + b for a, b in zip(addends, mine, strict=True)) if addends else mine
        return self.time_embed(rows, *addends)

    def _require_vectors(self, vectors: Mapping[str, Vector]) -> None:
        """Raise ConfigError for one of another width, and for one that the model does not know."""
        for name, one in vectors.items():
            width = self.config.vectors.get(name, 0)
            if one.features.shape[-1] != width:
                field = "config.action_dim" if name == "action" else f"config.conditions.{name}"
                raise ConfigError(
                    f"{name}: {list(one.features.shape)} given, the model was built for features of width {width} ({field})"
                )


def _with_text(
    contexts: Mapping[str, Context | PreparedText] | None,
    text: Tensor | PreparedText | None,
    lengths: Sequence[int] | Tensor | None,
) -> dict[str, Context | PreparedText]:
    found = dict(contexts or {})
    if lengths is not None and not isinstance(text, Tensor):
        said = "already part of the prepared text; give them to prepare_text only" if text else "given without a text"
        raise ConfigError(f"text_lengths: {said}")
    if text is not None:
        found["text"] = text if isinstance(text, PreparedText) else Context(text, lengths)
    return found


def _where(present: Tensor | None, x: Tensor) -> Tensor:
    """x `[G, d]`, exactly 0 in rows that are not present (bool `[G]`)."""
    return x if present is None else torch.where(present[:, None], x, torch.zeros_like(x))
