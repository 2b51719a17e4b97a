"""The network over a pack: groups of videos of one size each, the positions of one group behind those of another.

    tokens and conditions of each group  ->  one axis of positions [1, M, dim]  ->  blocks  ->  scores of every position

What depends on a video alone (its conditions, what enters at its positions) is worked out group by group, as in a dense batch;
a condition that one group has and another has not is absent there, exactly. A video stands in a pack without the positions
that predict nothing, its last frame's or token's.

With limits a pack is filled up to one size, so that a compiled block sees the same shapes in every pack. What fills it up is a
segment of its own behind all others, which none of them sees and which no score is asked of.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor

from wfm.errors import ConfigError
from wfm.models.autoregressive.blocks import ContextKeys, PackSegments
from wfm.models.autoregressive.conditioning import Hints
from wfm.models.autoregressive.network import AutoregressiveTransformer
from wfm.parallel.segments import Segments


@dataclass(frozen=True)
class PackLimits:
    """The most that a pack holds; every pack is filled up to it."""

    positions: int
    segments: int
    "Videos."
    context: int = 1
    "Tokens of all videos, of each context."


@dataclass(frozen=True, eq=False)
class Group:
    """B videos of one size."""

    tokens: Tensor
    "int64 `[B, t, h, w]`."
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    present: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Scores:
    """What the network says of the M positions of a pack that predict something, group by group, video by video."""

    logits: Tensor
    "`[M, slots, vocabulary.width]`."
    drafts: Tensor | None
    "Of the Medusa heads, `[M, K, slots, vocabulary.width]`; None without any."
    left: Tensor
    "int64 `[M]`: positions of the same video behind each."
    rows: tuple[int, ...]
    "Positions of each group."


@dataclass(frozen=True, eq=False)
class _Entered:
    """A group at the way in: rows of all its positions."""

    inputs: Tensor
    "int64 `[B, n, slots]`."
    x: Tensor
    "`[B, n, dim]`."
    place: Tensor
    "int64 `[n, 3]`."
    ahead: Hints | None
    stride: int


def scores_of(model: AutoregressiveTransformer, groups: Sequence[Group], limits: PackLimits | None = None) -> Scores:
    """Teacher-forced scores of all videos as one pack; none sees another. Raises ConfigError without any group, for a video
    that does not fit the model, and for a pack above the limits."""
    if not groups:
        raise ConfigError("tokens: an empty pack; give at least one video [t, h, w]")
    entered = [_enter(model, group) for group in groups]
    lengths = list(chain.from_iterable([one.inputs.shape[1]] * len(one.inputs) for one in entered))
    strides = list(chain.from_iterable([one.stride] * len(one.inputs) for one in entered))
    x = torch.cat([one.x.flatten(0, 1) for one in entered])
    place = torch.cat([one.place.repeat(len(one.inputs), 1) for one in entered])
    segments, many = segments_of(lengths, strides, len(x), limits, x.device), len(x)
    if limits is not None:
        x, place = (F.pad(part, (0, 0, 0, limits.positions - many)) for part in (x, place))
    contexts = _contexts(model, groups, limits)
    rope = model._rope(place, x.dtype)
    features = model.leave(model.run_blocks(x[None], place, rope, segments, None, contexts))[0, :many, None]
    inputs = torch.cat([one.inputs.flatten(0, 1) for one in entered])[:, None]  # [M, 1, slots]
    drafts = model.drafts(features)
    return Scores(
        model.logits(features, inputs, _ahead(entered))[:, 0],
        None if drafts is None else drafts[:, 0],
        torch.cat([torch.arange(n - 1, -1, -1, device=x.device) for n in lengths]),
        tuple(one.inputs.shape[0] * one.inputs.shape[1] for one in entered),
    )


def dense_scores(logits: Tensor, drafts: Tensor | None) -> Scores:
    """Those of a dense batch, logits `[B, n, slots, width]`, drafts `[B, n, K, slots, width]`."""
    batch, n = logits.shape[:2]
    left = torch.arange(n - 1, -1, -1, device=logits.device).repeat(batch)
    return Scores(logits.flatten(0, 1), None if drafts is None else drafts.flatten(0, 1), left, (batch * n,))


def packed(
    model: AutoregressiveTransformer, tokens: Sequence[Tensor], tensors: Sequence[Mapping[str, Tensor]] | None = None
) -> list[Tensor]:
    """Scores of videos of any sizes as one pack: each int64 `[t, h, w]`, with its own tensors (no batch axis) -> as many
    `[n, slots, width]`."""
    told = tensors or [{}] * len(tokens)
    groups = [
        Group(video[None], {name: x[None] for name, x in mine.items()})
        for video, mine in zip(tokens, told, strict=True)
    ]
    scores = scores_of(model, groups)
    return list(scores.logits.split(scores.rows))


def segments_of(
    lengths: Sequence[int], strides: Sequence[int], positions: int, limits: PackLimits | None, device: torch.device
) -> PackSegments:
    """Of videos of so many positions, in blocks of `strides`. Raises ConfigError for more than the limits."""
    lengths, blocks, most = list(lengths), [list(lengths), list(lengths), list(strides)], 0
    if limits is not None:
        if positions > limits.positions or len(lengths) > limits.segments:
            raise ConfigError(
                f"a pack of {len(lengths)} videos and {positions} positions; the limits are {limits.segments} and "
                f"{limits.positions}: raise them"
            )
        room = limits.segments - len(lengths)
        blocks = [[*row, *[0] * room] for row in blocks]
        lengths, most = [*lengths, *[0] * room, limits.positions - positions], limits.segments + 1
    videos = Segments.of(lengths, most=most, longest=0 if limits is None else limits.positions, device=device)
    return PackSegments(videos, None if set(strides) <= {1} else torch.tensor(blocks))


def _enter(model: AutoregressiveTransformer, group: Group) -> _Entered:
    batch, frames, height, width = group.tokens.shape
    stride = model.stride(height, width)
    inputs = model.vocabulary.begun(model.patchify(group.tokens))[:, :-stride]
    hints = model.hints(group.tensors, group.present)
    condition = model.condition(group.tensors, batch, frames, group.present)
    x, place = model.enter(inputs, condition, (height, width), 0, hints)
    return _Entered(inputs, x, place, None if hints is None else hints.at(slice(stride, None)), stride)


def _ahead(entered: Sequence[_Entered]) -> Hints | None:
    """What stands beside the positions that are predicted, a row each: ids `[M, 1, slots]`, absent where a group has none."""
    if all(one.ahead is None for one in entered):
        return None
    ids, present = [], []
    for one in entered:
        batch, n, _ = one.inputs.shape
        here = one.inputs.new_full((batch,), one.ahead is not None, dtype=torch.bool)
        if one.ahead is not None and one.ahead.present is not None:
            here = one.ahead.present
        ids.append((torch.zeros_like(one.inputs) if one.ahead is None else one.ahead.ids).flatten(0, 1))
        present.append(here.repeat_interleave(n))
    return Hints(torch.cat(ids)[:, None], torch.cat(present))


def _contexts(
    model: AutoregressiveTransformer, groups: Sequence[Group], limits: PackLimits | None
) -> tuple[dict[str, ContextKeys], ...] | None:
    """Keys and values of every layer, of all groups together."""
    found: list[dict[str, ContextKeys]] = [{} for _ in model.layers]
    for name in model.config.contexts:
        given = list(_given(model, groups, name))
        if all(tokens is None for tokens, _ in given):
            continue
        packed_tokens = torch.cat([tokens for tokens, _ in given if tokens is not None])
        lengths, most = [n for _, counts in given for n in counts], 0
        if limits is not None:
            if len(packed_tokens) > limits.context:
                raise ConfigError(
                    f"a pack of {len(packed_tokens)} tokens of {name}; the limit is {limits.context}: raise it"
                )
            room = limits.context - len(packed_tokens)
            lengths = [*lengths, *[0] * (limits.segments - len(lengths)), room]
            packed_tokens, most = F.pad(packed_tokens, (0, 0, 0, room)), limits.segments + 1
        longest = 0 if limits is None else limits.context
        segments = Segments.of(lengths, most=most, longest=longest, device=packed_tokens.device)
        for mine, block in zip(found, model.blocks, strict=True):
            mine[name] = ContextKeys(*block.context_keys(name, packed_tokens), segments)
    return tuple(found) if any(found) else None


def _given(
    model: AutoregressiveTransformer, groups: Sequence[Group], name: str
) -> Iterator[tuple[Tensor | None, tuple[int, ...]]]:
    for group in groups:
        batch = len(group.tokens)
        found = model.context_tokens(name, group.tensors, batch, group.present)
        yield (None, (0,) * batch) if found is None else found
