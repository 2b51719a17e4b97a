"""What enters the diffusion transformer, checked and cut into patches, and what leaves it, put together again.

    channels of a patch, in order: latents, what the caller adds, condition mask, padding mask     [B, C', T, H, W]
    channels of a condition: patches and a product of their own
    order inside a token on the way in: (channel, row, column); on the way out: (row, column, channel)

The two orders differ in Cosmos and published weights depend on it.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from wfm.errors import ConfigError
from wfm.models.diffusion.by_rows import Rows
from wfm.models.diffusion.config import DiffusionConfig

Grid = tuple[int, int, int]
"""Tokens of one segment along (t, h, w)."""


class Vector(NamedTuple):
    """What joins the time embedding."""

    features: Tensor
    "`[S, width]` or `[S, T, width]`; in a pack `[S, width]` or `[sum of T, width]`."
    present: Tensor | None = None
    "bool `[S]`: where False nothing joins; None: all have it."


class Context(NamedTuple):
    """What the blocks attend to."""

    tokens: Tensor
    "`[B or 1, L, width]`, or a pack `[sum of lengths, width]`."
    lengths: Sequence[int] | Tensor | None = None
    "Tokens used of each; None: all L."


def grid_of(config: DiffusionConfig, size: Sequence[int]) -> Grid:
    """The grid of tokens of latents of `size` (T, H, W). Raises ConfigError for sizes that are not whole patches or that
    exceed the model's."""
    if len(size) != 3:
        raise ConfigError(f"latents: a size is (frames, rows, columns), got {tuple(size)}")
    _, p, q = config.patch_size
    frames, rows, columns = size
    if min(size) < 1 or rows % p or columns % q:
        raise ConfigError(
            f"latents: {frames} frames of {rows}x{columns} cannot be cut into patches of {p}x{q}: pad them to multiples, and "
            "mark what was added in `padding_mask`"
        )
    grid = (frames, rows // p, columns // q)
    if any(here > most for here, most in zip(grid, config.max_grid, strict=True)):
        raise ConfigError(
            f"latents: {frames} frames of {rows}x{columns} exceed max_size {config.max_size}; build the model with a larger one"
        )
    return grid


def check_latents(config: DiffusionConfig, latents: Tensor, *, ndim: int, dtype: torch.dtype) -> None:
    """Latents `[B, C, T, H, W]` (ndim 5) or `[C, T, H, W]` (4) that fit the model. Raises ConfigError."""
    axes = "[B, C, T, H, W]" if ndim == 5 else "[C, T, H, W]"
    if latents.ndim != ndim or not latents.shape[0]:
        raise ConfigError(f"latents: wanted {axes}, got {list(latents.shape)}")
    channels = latents.shape[ndim - 4]
    if channels != config.latent_channels:
        raise ConfigError(
            f"latents: {channels} channels given, the model takes {config.in_channels} of the tokenizer's and "
            f"{config.extra_channels} more; masks are given apart, as condition_mask and padding_mask"
        )
    if latents.dtype != dtype:
        raise ConfigError(f"latents: {latents.dtype} given to a model in {dtype}; convert one of them")


def with_masks(
    config: DiffusionConfig, latents: Tensor, condition_mask: Tensor | None, padding_mask: Tensor | None
) -> Tensor:
    """Latents `[B, C, T, H, W]` and the mask channels that the model has: `[B, C', T, H, W]`.

    condition_mask `[B, 1, T, H, W]`, 1 where the latents are given (sizes of 1 are broadcast); padding_mask in pixels
    or latents `[B or 1, 1, H', W']`, 1 where padded, resized to the nearest; None: nothing is padded. Raises ConfigError.
    """
    batch, _, frames, rows, columns = latents.shape
    parts = [latents]
    if not config.condition_mask and condition_mask is not None:
        raise ConfigError("condition_mask: given to a model without that channel (config.condition_mask=False)")
    if config.condition_mask:
        if condition_mask is None:
            raise ConfigError(
                "condition_mask: this model is told which latents are given; pass [B, 1, T, H, W] of 0 and 1"
            )
        wanted = (batch, 1, frames, rows, columns)
        if condition_mask.ndim != 5 or any(n not in (1, w) for n, w in zip(condition_mask.shape, wanted, strict=True)):
            raise ConfigError(f"condition_mask: wanted {list(wanted)}, got {list(condition_mask.shape)}")
        parts.append(condition_mask.to(latents.dtype).expand(wanted))
    if not config.concat_padding_mask and padding_mask is not None:
        raise ConfigError("padding_mask: given to a model without that channel (config.concat_padding_mask=False)")
    if config.concat_padding_mask:
        parts.append(_padding(padding_mask, latents))
    return torch.cat(parts, dim=1) if len(parts) > 1 else latents


def _padding(mask: Tensor | None, latents: Tensor) -> Tensor:
    """The padding channel `[B, 1, T, H, W]`."""
    batch, _, frames, rows, columns = latents.shape
    if mask is None:
        return latents.new_zeros(()).expand(batch, 1, frames, rows, columns)
    if mask.ndim != 4 or mask.shape[0] not in (1, batch) or mask.shape[1] != 1:
        raise ConfigError(f"padding_mask: wanted [{batch} or 1, 1, H, W], got {list(mask.shape)}")
    resized = F.interpolate(mask.to(latents.dtype), size=(rows, columns), mode="nearest")
    return resized[:, :, None].expand(batch, 1, frames, rows, columns)


def known_channels(config: DiffusionConfig, channels: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those that are given. Raises ConfigError for one that the model has not."""
    for name in channels:
        if name not in config.channels:
            known = ", ".join(config.channels) or "none"
            raise ConfigError(f"{name}: given as channels to a model without them; beside its latents stand {known}")
    return dict(channels)


def to_patches(x: Tensor, patch: tuple[int, int, int]) -> Tensor:
    """`[B, C, T, H, W]` -> `[B * t * h * w, C * p * q]`, tokens in raster order, inside each (channel, row, column)."""
    _, p, q = patch
    batch, channels, frames, rows, columns = x.shape
    x = x.reshape(batch, channels, frames, rows // p, p, columns // q, q)
    return x.permute(0, 2, 3, 5, 1, 4, 6).reshape(-1, channels * p * q)


def from_patches(tokens: Tensor, grid: Grid, patch: tuple[int, int, int]) -> Tensor:
    """`[B * t * h * w, p * q * C]`, inside each token (row, column, channel) -> `[B, C, t, h * p, w * q]`."""
    frames, rows, columns = grid
    _, p, q = patch
    x = tokens.reshape(-1, frames, rows, columns, p, q, tokens.shape[-1] // (p * q))
    return x.permute(0, 6, 1, 2, 4, 3, 5).reshape(x.shape[0], -1, frames, rows * p, columns * q)


def noise_rows(
    c_noise: Tensor, vectors: Mapping[str, Vector], segments: int, frames: Sequence[int]
) -> tuple[Tensor, dict[str, Vector]]:
    """Noise levels and vectors brought to the same rows: one for all, one a segment, or one a latent frame.

    c_noise: a number, `[1]`, `[segments]`, `[segments, T]` (equal lengths) or `[sum of frames]`; vectors like it with their
    features last; frames: latent frames of each segment. Returns `[G]` and vectors of `[G, A]` and `[G]`. Raises ConfigError.
    """
    c_noise = _rows("c_noise", c_noise, segments, frames)
    found: dict[str, Vector] = {}
    for name, (x, present) in vectors.items():
        flat = x.reshape(-1, x.shape[-1]) if x.ndim < 3 else x
        known = None if present is None else _rows(f"{name}: present", present, segments, frames)
        found[name] = Vector(_rows(name, flat, segments, frames, features=True), known)
    most = max(x.shape[0] for x in (c_noise, *(part for one in found.values() for part in one if part is not None)))
    spread = {
        name: Vector(*(None if x is None else _spread(x, most, segments, frames) for x in one))  # type: ignore[arg-type]
        for name, one in found.items()
    }
    return _spread(c_noise, most, segments, frames), spread


def _rows(name: str, x: Tensor, segments: int, frames: Sequence[int], *, features: bool = False) -> Tensor:
    shape = list(x.shape[:-1] if features else x.shape)
    total = sum(frames)
    if shape == [1, frames[0]] and len(set(frames)) == 1:
        x, shape = x.expand(segments, *x.shape[1:]), [segments, frames[0]]
    if not (
        shape in ([], [1], [segments], [total]) or (shape == [segments, frames[0]] and len(set(frames)) == 1)
    ):  # fmt: skip
        rest = ", A" if features else ""
        raise ConfigError(
            f"{name}: got {list(x.shape)}, wanted one for all [1{rest}], one a sample [{segments}{rest}] or one a latent frame "
            f"([{segments}, {frames[0]}{rest}], in a pack [{total}{rest}])"
        )
    return x.reshape(-1, x.shape[-1]) if features else x.reshape(-1)


def _spread(x: Tensor, rows: int, segments: int, frames: Sequence[int]) -> Tensor:
    """From one row for all or one a segment to `rows`."""
    if x.shape[0] == rows:
        return x
    if x.shape[0] == 1:
        return x.expand(rows, *x.shape[1:])
    return x.repeat_interleave(torch.tensor(list(frames), device=x.device), dim=0, output_size=rows)


def context_tokens(
    config: DiffusionConfig, name: str, context: Context, dtype: torch.dtype
) -> tuple[Tensor, tuple[int, ...]]:
    """The used tokens of all samples' context (of all prompts) as a pack `[K, width]`, and how many each has. Raises
    ConfigError."""
    tokens, width = context.tokens, config.contexts.get(name)
    if width is None:
        known = ", ".join(config.contexts) or "none"
        raise ConfigError(f"{name}: given to a model without cross-attention to it; it attends to {known}")
    if tokens.ndim not in (2, 3) or tokens.shape[-1] != width:
        raise ConfigError(f"{name}: wanted [B, L, {width}], got {list(tokens.shape)}")
    if tokens.ndim == 2 and context.lengths is None:
        raise ConfigError(f"{name}_lengths: needed to tell the samples of a pack apart")
    tokens = tokens.to(dtype)
    if context.lengths is None:
        return tokens.flatten(0, 1), (tokens.shape[1],) * tokens.shape[0]
    listed = context.lengths.tolist() if isinstance(context.lengths, Tensor) else context.lengths
    lengths = tuple(int(n) for n in listed)
    longest = tokens.shape[1] if tokens.ndim == 3 else tokens.shape[0]
    if not lengths or min(lengths) < min(1, longest) or max(lengths) > longest:
        raise ConfigError(f"{name}_lengths: {lengths} must lie in {min(1, longest)} ... {longest}")
    if tokens.ndim == 2:
        if sum(lengths) != tokens.shape[0]:
            raise ConfigError(f"{name}_lengths: {lengths} do not cover a pack of {tokens.shape[0]} tokens")
        return tokens, lengths
    if len(lengths) != tokens.shape[0]:
        raise ConfigError(f"{name}_lengths: {len(lengths)} lengths for {tokens.shape[0]} samples")
    return torch.cat([one[:length] for one, length in zip(tokens, lengths, strict=True)]), lengths


def context_queries(name: str, lengths: tuple[int, ...], segments: tuple[int, ...]) -> tuple[int, ...]:
    """How many tokens see each sample's context: those of one segment, or all if there is one for all. Raises ConfigError."""
    if len(lengths) not in (1, len(segments)):
        raise ConfigError(f"{name}: {len(lengths)} for {len(segments)} samples; give one for each or one for all")
    return segments if len(lengths) == len(segments) else (sum(segments),)


def rates_of(fps: float | Sequence[float | None] | Tensor | None) -> list[float | None]:
    """One rate for all, or one a segment."""
    if isinstance(fps, Tensor):
        fps = fps.reshape(-1).tolist()
    rates = list(fps) if isinstance(fps, Sequence) else [fps]
    if not rates or any(rate is not None and not 0 < rate < math.inf for rate in rates):
        raise ConfigError(f"fps: {fps!r} must be positive and finite [1/s], or None for plain positions")
    return rates


def rows_of_tokens(count: int, grids: Sequence[Grid], device: torch.device) -> Rows | None:
    """Which of `count` rows (one for all, one a segment, one a latent frame) each token takes; None where all rows serve
    equally many tokens."""
    if count == 1:
        return None
    by_segment = [t * h * w for t, h, w in grids]
    by_frame = [h * w for t, h, w in grids for _ in range(t)]
    if count not in (len(by_segment), len(by_frame)):
        raise ConfigError(
            f"c_noise: prepared for {count} rows, these latents have {len(by_segment)} samples and {len(by_frame)} frames"
        )
    tokens = by_segment if count == len(by_segment) else by_frame
    return None if len(set(tokens)) == 1 else Rows.of(tokens, device)
