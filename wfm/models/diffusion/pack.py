"""The network over a pack: groups of samples of one shape each, the tokens of one group behind those of another.

    inputs of each group, cut into patches  ->  one axis of tokens [M, d]  ->  blocks  ->  outputs of each group

Whatever is worked out for samples of one shape comes as the arguments of the dense call (`DiffusionTransformer.forward`), group
by group; what one group has and another has not (channels, a vector, a context) is absent there, exactly.

With limits a pack is padded to one size, so that a compiled block sees the same shapes in every pack: M tokens, S segments, F
latent frames, K tokens of a context. What is added is a segment of its own behind all others, which none of them sees.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from wfm.errors import ConfigError
from wfm.models.diffusion.by_rows import Rows
from wfm.models.diffusion.inputs import (
    Context,
    Grid,
    Vector,
    check_latents,
    context_tokens,
    from_patches,
    grid_of,
    known_channels,
    rates_of,
    rows_of_tokens,
    to_patches,
    with_masks,
)
from wfm.models.diffusion.network import DiffusionTransformer
from wfm.models.diffusion.prepared import Conditioning, ContextTokens, PreparedShape
from wfm.models.rotary import Rope
from wfm.parallel.segments import Segments


@dataclass(frozen=True)
class PackLimits:
    """The most that a pack holds; every pack is padded to it."""

    tokens: int
    "Patches."
    segments: int
    "Samples."
    frames: int
    "Latent frames of all samples."
    context: int = 1
    "Tokens of all samples, of each context."


@dataclass(frozen=True, eq=False)
class Group:
    """B samples of one shape."""

    latents: Tensor
    "`[B, C, T, H, W]`: what enters the network."
    c_noise: Tensor
    "`[1]`, `[B]` or `[B, T]`."
    arguments: Mapping[str, Any] = field(default_factory=dict)
    "Of `DiffusionTransformer.forward`: padding_mask, condition_mask, fps, vectors, contexts, channels."


def forward_pack(
    network: DiffusionTransformer, groups: Sequence[Group], limits: PackLimits | None = None
) -> list[Tensor]:
    """F of a pack, `[B, C, T, H, W]` of each group. Raises ConfigError for what does not fit the model, and for a pack above
    the limits."""
    grids = _grids(network, groups)
    each = [grid for grid, group in zip(grids, groups, strict=True) for _ in range(len(group.latents))]
    patches = torch.cat([_patches(network, group) for group in groups])
    added = network.patch_embed.added(_beside(network, groups, grids))
    shared = _conditioning(network, groups, each)
    count = len(patches)
    if limits is not None:
        shared = _padded(network, shared, each, limits)
        patches, added = _fill(patches, limits.tokens), None if added is None else _fill(added, limits.tokens)
    out = network.leave(network.run_blocks(network.enter(patches, added), shared), shared)[:count]
    pieces = out.split([len(group.latents) * _size(grid) for grid, group in zip(grids, groups, strict=True)])
    patch = network.config.patch_size
    return [from_patches(piece, grid, patch) for piece, grid in zip(pieces, grids, strict=True)]


def _size(grid: Grid) -> int:
    return grid[0] * grid[1] * grid[2]


def _grids(network: DiffusionTransformer, groups: Sequence[Group]) -> list[Grid]:
    if not groups:
        raise ConfigError("latents: an empty pack; give at least one sample")
    for group in groups:
        check_latents(network.config, group.latents, ndim=5, dtype=network.dtype)
    return [grid_of(network.config, group.latents.shape[2:]) for group in groups]


def _patches(network: DiffusionTransformer, group: Group) -> Tensor:
    masks = [group.arguments.get(name) for name in ("condition_mask", "padding_mask")]
    return to_patches(with_masks(network.config, group.latents, *masks), network.config.patch_size)


def _beside(network: DiffusionTransformer, groups: Sequence[Group], grids: Sequence[Grid]) -> dict[str, Tensor]:
    """Patches of the channels of conditions, of all groups; zeros, of which the product is exactly zero, where one has none."""
    config = network.config
    given = [known_channels(config, group.arguments.get("channels") or {}) for group in groups]
    found = {}
    for name in {name: None for of_group in given for name in of_group}:
        parts = []
        for group, grid, of_group in zip(groups, grids, given, strict=True):
            wanted = (len(group.latents), config.channels[name], *group.latents.shape[2:])
            x = of_group.get(name)
            if x is None:
                area = config.patch_size[1] * config.patch_size[2]
                parts.append(group.latents.new_zeros(wanted[0] * _size(grid), wanted[1] * area))
                continue
            if x.shape != wanted:
                raise ConfigError(
                    f"{name}: {list(x.shape)} beside the latents, wanted {list(wanted)}: channels of their size"
                )
            parts.append(to_patches(x, config.patch_size))
        found[name] = torch.cat(parts)
    return found


def _conditioning(network: DiffusionTransformer, groups: Sequence[Group], each: Sequence[Grid]) -> Conditioning:
    """Of the pack as it is; `each`: the grid of every segment."""
    frames = [grid[0] for grid in each]
    c_noise = _levels(groups)
    embedding, lora = network.embed_noise(c_noise, _vectors(network, groups), len(each), frames)
    segments = Segments.of([_size(grid) for grid in each], device=c_noise.device)
    shape = _shape(network, groups, each)
    return Conditioning(
        segments, shape.rope, shape.positions, embedding, lora,
        rows_of_tokens(len(embedding), each, c_noise.device), _contexts(network, groups, segments),
    )  # fmt: skip


def _levels(groups: Sequence[Group]) -> Tensor:
    """Noise levels of the pack: one a segment, or one a latent frame where a group has them so."""
    by_frame = any(group.c_noise.ndim == 2 for group in groups)
    parts = []
    for group in groups:
        batch, frames = group.latents.shape[0], group.latents.shape[2]
        levels = group.c_noise.expand(batch) if group.c_noise.shape == (1,) else group.c_noise
        if by_frame and levels.ndim == 1:
            levels = levels[:, None].expand(batch, frames)
        if levels.shape not in ((batch,), (batch, frames)):
            raise ConfigError(f"c_noise: got {list(group.c_noise.shape)} for {batch} samples of {frames} latent frames")
        parts.append(levels.reshape(-1))
    return torch.cat(parts)


def _vectors(network: DiffusionTransformer, groups: Sequence[Group]) -> dict[str, Vector]:
    """Vectors of the pack, one a latent frame; where a group has none, none is present."""
    given: list[Mapping[str, Vector]] = [group.arguments.get("vectors") or {} for group in groups]
    found = {}
    for name in {name: None for of_group in given for name in of_group}:
        features, present = [], []
        for group, of_group in zip(groups, given, strict=True):
            batch, frames = group.latents.shape[0], group.latents.shape[2]
            one = of_group.get(name)
            if one is None:
                features.append(group.latents.new_zeros(batch * frames, network.config.vectors[name]))
            else:
                x = one.features if one.features.ndim == 3 else one.features[:, None]
                features.append(x.expand(batch, frames, -1).flatten(0, 1))
            has = None if one is None else one.present
            default = torch.full((batch,), one is not None, device=group.latents.device)
            present.append(default if has is None else has.to(default))
        all_have = all(name in one and one[name].present is None for one in given)
        found[name] = Vector(torch.cat(features), None if all_have else torch.cat(present))
    return found


def _shape(network: DiffusionTransformer, groups: Sequence[Group], each: Sequence[Grid]) -> PreparedShape:
    """Positions of the pack: those of each (grid, rate) once, repeated for neighbours that share them."""
    rates: list[float | None] = []
    for group in groups:
        told = rates_of(group.arguments.get("fps"))
        rates += told * len(group.latents) if len(told) == 1 else told
    if len(rates) != len(each):
        raise ConfigError(f"fps: {len(rates)} values for {len(each)} samples; give one for all or one for each")
    _, p, q = network.config.patch_size
    known: dict[tuple[Grid, float | None], PreparedShape] = {}
    parts = []
    for key, members in groupby(zip(each, rates, strict=True)):
        (t, h, w), rate = key
        if key not in known:
            known[key] = network.prepare_shape((t, h * p, w * q), rate)
        parts.append((known[key], len(list(members))))
    cos, sin = (torch.cat([getattr(one.rope, name).repeat(n, 1) for one, n in parts]) for name in ("cos", "sin"))
    learned = [one.positions.repeat(n, 1) for one, n in parts if one.positions is not None]
    return PreparedShape(tuple(each), Rope(cos, sin), torch.cat(learned) if learned else None)


def _contexts(network: DiffusionTransformer, groups: Sequence[Group], segments: Segments) -> dict[str, ContextTokens]:
    """What each segment attends to; nothing where its group has none."""
    given: list[Mapping[str, Context]] = [group.arguments.get("contexts") or {} for group in groups]
    found = {}
    for name in {name: None for of_group in given for name in of_group}:
        tokens: list[Tensor] = []
        lengths: list[int] = []
        for group, of_group in zip(groups, given, strict=True):
            batch = len(group.latents)
            if name not in of_group:
                lengths += [0] * batch
                continue
            packed, own = context_tokens(network.config, name, of_group[name], network.dtype)
            if len(own) not in (1, batch):
                raise ConfigError(f"{name}: {len(own)} for {batch} samples; give one for each or one for all")
            more = batch // len(own)
            tokens.append(packed.repeat(more, 1))
            lengths += list(own) * more
        found[name] = ContextTokens(torch.cat(tokens), Segments.of(lengths, device=segments.bounds.device), segments)
    return found


# One size for all packs


def _padded(
    network: DiffusionTransformer, shared: Conditioning, each: Sequence[Grid], limits: PackLimits
) -> Conditioning:
    """The same with everything at its limit, one segment more for what is added, and a row for each latent frame."""
    frames, sizes = [grid[0] for grid in each], [_size(grid) for grid in each]
    held = {"tokens": sum(sizes), "segments": len(each), "frames": sum(frames)}
    for name, count in held.items():
        if count > getattr(limits, name):
            raise ConfigError(
                f"a pack of {count} {name}, and its limit is {getattr(limits, name)}: raise limits.{name}"
            )
    device, most = shared.rope.cos.device, limits.segments + 1
    segments = Segments.of([*sizes, limits.tokens - sum(sizes)], most=most, longest=limits.tokens, device=device)
    assert shared.embedding is not None
    assert shared.lora is not None
    rows = [_fill(_by_frame(x, frames), limits.frames + 1) for x in (shared.embedding, shared.lora)]
    by_frame = [h * w for t, h, w in each for _ in range(t)]
    index = Rows.of([*by_frame, *(0 for _ in range(limits.frames - len(by_frame))), limits.tokens - sum(sizes)], device)
    rope = Rope(_fill(shared.rope.cos, limits.tokens), _fill(shared.rope.sin, limits.tokens))
    positions = None if shared.positions is None else _fill(shared.positions, limits.tokens)
    contexts = {}
    for name, width in network.config.contexts.items():
        one = shared.contexts.get(name)
        tokens = rows[0].new_zeros(0, width) if one is None or one.tokens is None else one.tokens
        lengths = [0] * len(each) if one is None or not isinstance(one.lengths, Segments) else list(one.lengths.host())
        if len(tokens) > limits.context:
            raise ConfigError(
                f"{name}: {len(tokens)} tokens in a pack, and the limit is {limits.context}: raise limits.context"
            )
        of = Segments.of([*lengths, limits.context - sum(lengths)], most=most, longest=limits.context, device=device)
        contexts[name] = ContextTokens(_fill(tokens, limits.context), of, segments)
    return Conditioning(segments, rope, positions, rows[0], rows[1], index, contexts)


def _by_frame(x: Tensor, frames: Sequence[int]) -> Tensor:
    """From one row for each segment to one for each latent frame; rows of frames as they are."""
    if len(x) == sum(frames):
        return x
    return x.repeat_interleave(torch.tensor(frames, device=x.device), dim=0, output_size=sum(frames))


def _fill(x: Tensor, rows: int) -> Tensor:
    """Zeros behind x, up to `rows`."""
    return torch.cat([x, x.new_zeros(rows - len(x), *x.shape[1:])])
