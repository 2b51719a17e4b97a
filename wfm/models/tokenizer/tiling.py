"""Large videos in spatial tiles: what one pass costs is then set by the tile, not by the video.

    latents = encode_tiled(tokenizer, video, tile=(512, 512), overlap=64)
    frames = decode_tiled(tokenizer, latents, tile=(512, 512), overlap=64)
    plan = TilePlan.of(tokenizer.config, size=(720, 1280), tile=(512, 512), overlap=64)
    error = seam_error(frames, tokenizer.decode(tokenizer.encode(video)), plan, source=video)

Each tile runs through the network alone, and neighbours are blended over their overlap by raised cosines that add up
to one. **Tiles cannot be exact**: the norm takes its statistics over a whole frame and the spatial attention looks at
a whole frame, so a tile sees other statistics and fewer keys than the frame it was cut from; besides, convolutions
meet zeros at a tile's sides. `seam_error` measures what that costs; `SEAM_LIMIT_DB` is the limit that the tests hold
a trained tokenizer to. With `group` the frames of a tile go through the streaming coder (`streaming.py`), so that
memory is bounded in time as well as in space.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from wfm.data.psnr import psnr_value
from wfm.errors import ConfigError, DataError
from wfm.models.tokenizer.config import TokenizerConfig
from wfm.models.tokenizer.convolution import Stream
from wfm.models.tokenizer.network import Tokenizer

SEAM_LIMIT_DB = 0.1
"""Most that tiles sharing at least two latent positions may cost a trained tokenizer [dB], see `SeamError.within`.

Measured on small tokenizers of Cosmos's structure (widths 16 to 32, 200 steps on moving waves, 32.4 dB; frames of 128
and 160 pixels, tiles of 64 and 96): jumps of at most 0.022 dB and a loss of at most 0.005; tiles laid side by side
without overlap give 1.07 and 0.10. Published weights were not at hand."""

Chunks = Callable[[slice, slice], Iterator[Tensor]]
"""Rows and columns of a tile, in latent positions -> its result, in pieces along time `[B, C, t, tile rows, tile
columns]`."""


@dataclass(frozen=True)
class TileAxis:
    """The tiles along one side of a frame, in latent positions: equal, spread evenly, the last flush with the end."""

    size: int
    tile: int
    overlap: int
    starts: tuple[int, ...]

    @classmethod
    def of(cls, size: int, tile: int, overlap: int) -> Self:
        """The fewest tiles of which neighbours share at least `overlap` positions; a tile above `size` is cut to it."""
        tile = min(tile, size)
        count = 1 if tile == size else math.ceil((size - overlap) / (tile - overlap))
        starts = tuple(index * (size - tile) // max(1, count - 1) for index in range(count))
        return cls(size, tile, overlap if count > 1 else 0, starts)

    def weights(self, scale: int) -> Tensor:
        """fp64 `[tiles, tile * scale]`: what each position of each tile counts, `scale` samples to a latent position.

        A raised cosine rises over the overlap at each side that has a neighbour. Even spreading can make neighbours
        share more than `overlap`, and three tiles meet; so the ramps are divided by their sum at each position.
        """
        tile, overlap = self.tile * scale, self.overlap * scale
        ramp = torch.sin((torch.arange(overlap, dtype=torch.float64) + 0.5) / max(1, overlap) * math.pi / 2) ** 2
        windows = torch.ones(len(self.starts), tile, dtype=torch.float64)
        if overlap:
            windows[1:, :overlap] *= ramp
            windows[:-1, -overlap:] *= ramp.flip(0)
        total = torch.zeros(self.size * scale, dtype=torch.float64)
        for start, window in zip(self.starts, windows, strict=True):
            total[start * scale : start * scale + tile] += window
        return torch.stack([w / total[s * scale : s * scale + tile] for s, w in zip(self.starts, windows, strict=True)])

    def shared(self, scale: int) -> Tensor:
        """Bool `[size * scale]`: where two or more tiles are blended."""
        covers = torch.zeros(self.size, dtype=torch.int64)
        for start in self.starts:
            covers[start : start + self.tile] += 1
        return (covers > 1).repeat_interleave(scale)

    def edges(self, scale: int) -> list[int]:
        """The inner positions, in samples, at which a tile begins or ends: sample i lies just past edge i."""
        ends = set(self.starts) | {start + self.tile for start in self.starts}
        return sorted(edge * scale for edge in ends - {0, self.size})


@dataclass(frozen=True)
class TilePlan:
    """Where the tiles of a frame lie. `unit` is the number of pixels to a latent position along each side."""

    rows: TileAxis
    columns: TileAxis
    unit: int

    @classmethod
    def of(cls, config: TokenizerConfig, *, size: tuple[int, int], tile: tuple[int, int], overlap: int) -> Self:
        """Plan tiles of `tile` pixels (height, width) that share `overlap` pixels, for frames of `size` pixels.

        Raises ConfigError for sizes that are no multiples of the spatial compression, and for an overlap above half a
        tile.
        """
        unit = config.spatial_compression
        axes = []
        for side, pixels, tile_pixels in zip(("height", "width"), size, tile, strict=True):
            for what, value in ((f"the video's {side}", pixels), (f"tile {side}", tile_pixels)):
                if value < unit or value % unit:
                    raise ConfigError(
                        f"{what} is {value} pixels; it must be a multiple of {unit}, such as {_near(value, unit)}"
                    )
            if overlap < 0 or overlap % unit or (tile_pixels < pixels and 2 * overlap > tile_pixels):
                most = tile_pixels // 2 // unit * unit
                raise ConfigError(
                    f"overlap is {overlap} pixels; with a tile {side} of {tile_pixels} it must be a multiple of {unit}"
                    f" from 0 to {most}"
                )
            axes.append(TileAxis.of(pixels // unit, tile_pixels // unit, overlap // unit))
        return cls(axes[0], axes[1], unit)

    def blend(self, run: Chunks, out: Tensor, scale: int) -> Tensor:
        """Fill `out` `[B, C, T, rows * scale, columns * scale]`, zeros at first, tile by tile."""
        tall, wide = self.rows.tile * scale, self.columns.tile * scale
        for top, row_weights in zip(self.rows.starts, self.rows.weights(scale), strict=True):
            for left, column_weights in zip(self.columns.starts, self.columns.weights(scale), strict=True):
                weights = (row_weights[:, None] * column_weights).to(out)
                y, x, done = top * scale, left * scale, 0
                for piece in run(slice(top, top + self.rows.tile), slice(left, left + self.columns.tile)):
                    frames = piece.shape[2]
                    out[:, :, done : done + frames, y : y + tall, x : x + wide] += piece * weights
                    done += frames
        return out


@torch.no_grad()
def encode_tiled(
    tokenizer: Tokenizer,
    video: Tensor,
    *,
    tile: tuple[int, int],
    overlap: int,
    group_latents: int = 0,
    attention_latents: int = 0,
    quantise: bool = True,
) -> Tensor:
    """As `tokenizer.encode`, tile by tile. Pixels `[B, C, T, H, W]` -> latents `[B, K, t, h, w]`.

    `tile`: height and width, `overlap`: what neighbours share at least, all in pixels and multiples of the spatial
    compression. `group_latents` > 0: that many latent frames of a tile at a time, with the attention's window
    `attention_latents` (as in `streaming`). Latents of a discrete tokenizer are blended before they are quantised, so
    codes stay codes, or, not `quantise`, latents for `quantizer.latent_tokens`. Raises ConfigError for sizes that do not fit.
    """
    config = tokenizer.config
    _require_groups(group_latents, attention_latents)
    plan = TilePlan.of(config, size=_sides(video), tile=tile, overlap=overlap)

    def run(rows: slice, columns: slice) -> Iterator[Tensor]:
        part = video[..., _pixels(rows, plan.unit), _pixels(columns, plan.unit)]
        stream = Stream(attention_latents) if group_latents else None
        for group in _groups(part, group_latents * config.temporal_compression):
            yield tokenizer.encode(group, stream=stream, quantise=False)

    frames = 1 + (video.shape[2] - 1) // config.temporal_compression
    out = video.new_zeros(video.shape[0], config.latent_channels, frames, plan.rows.size, plan.columns.size)
    latents = plan.blend(run, out, 1)
    return latents if tokenizer.quantizer is None or not quantise else tokenizer.quantizer(latents)


@torch.no_grad()
def decode_tiled(
    tokenizer: Tokenizer,
    latents: Tensor,
    *,
    tile: tuple[int, int],
    overlap: int,
    group_latents: int = 0,
    attention_latents: int = 0,
) -> Tensor:
    """As `tokenizer.decode`, tile by tile; arguments as of `encode_tiled` (`tile` and `overlap` in pixels here too)."""
    config, s = tokenizer.config, tokenizer.config.spatial_compression
    height, width = _sides(latents)
    _require_groups(group_latents, attention_latents)
    plan = TilePlan.of(config, size=(height * s, width * s), tile=tile, overlap=overlap)

    def run(rows: slice, columns: slice) -> Iterator[Tensor]:
        stream = Stream(attention_latents) if group_latents else None
        for group in _groups(latents[..., rows, columns], group_latents):
            yield tokenizer.decode(group, stream=stream)

    frames = 1 + (latents.shape[2] - 1) * config.temporal_compression
    return plan.blend(run, latents.new_zeros(latents.shape[0], config.in_channels, frames, height * s, width * s), s)


def _require_groups(group_latents: int, attention_latents: int) -> None:
    if attention_latents < 0:
        raise ConfigError(
            f"attention_latents is {attention_latents}; give the latent frames that attention sees, or 0 for all"
        )
    if attention_latents and not group_latents:
        raise ConfigError(
            f"attention_latents is {attention_latents} and group_latents 0: a window needs frames that go through in groups"
        )


def _sides(video: Tensor) -> tuple[int, int]:
    if video.ndim != 5 or not video.shape[2]:
        raise ConfigError(f"tensor of shape {list(video.shape)}: give at least one frame, as [B, C, T, height, width]")
    return video.shape[3], video.shape[4]


def _pixels(positions: slice, unit: int) -> slice:
    return slice(positions.start * unit, positions.stop * unit)


def _groups(video: Tensor, frames: int) -> Iterator[Tensor]:
    """All of it for `frames` 0, else its first frame and then groups of `frames`."""
    if frames < 0:
        raise ConfigError("group_latents is negative; give the latent frames that go through at a time, or 0 for all")
    if not frames:
        yield video
        return
    yield video[:, :, :1]
    if video.shape[2] > 1:
        yield from video[:, :, 1:].split(frames, dim=2)


@dataclass(frozen=True)
class SeamError:
    """What tiles changed in a reconstruction, all in dB. Pixels are in [-1, 1], so the peak of every PSNR is 2."""

    overall_db: float
    "PSNR between the tiled and the whole reconstruction, over all pixels; infinite when they are equal."
    band_db: float
    "The same over the pixels where tiles are blended; infinite when there are none."
    jump_db: float
    """Root mean square step between the pixels on either side of the tiles' edges, tiled against whole: 0 when the
    edges cannot be told from what is there anyway, 6 when steps across them are twice as large."""
    loss_db: float | None = None
    "PSNR against the source within the bands that tiling lost (negative: gained); None without a source."

    def within(self, limit_db: float = SEAM_LIMIT_DB) -> bool:
        """Whether tiling cost at most `limit_db` in the bands, and left no larger jumps than that across its edges."""
        return self.jump_db <= limit_db and (self.loss_db is None or self.loss_db <= limit_db)


def seam_error(tiled: Tensor, whole: Tensor, plan: TilePlan, source: Tensor | None = None) -> SeamError:
    """Compare the reconstructions with and without tiles of one video `[B, C, T, H, W]`, and both with its source."""
    size = (plan.rows.size * plan.unit, plan.columns.size * plan.unit)
    for name, video in (("tiled", tiled), ("whole", whole), ("source", source)):
        if video is not None and (video.shape != whole.shape or tuple(video.shape[-2:]) != size):
            raise DataError(
                f"{name} is {tuple(video.shape)}; expected {(*whole.shape[:-2], *size)}, as the plan and `whole` say"
            )
    tiled, whole = tiled.double(), whole.double()
    band = plan.rows.shared(plan.unit)[:, None] | plan.columns.shared(plan.unit)  # [H, W]
    band = band.to(whole.device)
    loss = None
    if source is not None:
        source = source.double()
        loss = _decibels(_power((tiled - source)[..., band]), _power((whole - source)[..., band]))
    return SeamError(
        overall_db=_psnr(tiled - whole),
        band_db=_psnr((tiled - whole)[..., band]),
        jump_db=_decibels(_edge_steps(tiled, plan), _edge_steps(whole, plan)),
        loss_db=loss,
    )


def _psnr(error: Tensor) -> float:
    return psnr_value(error.square().mean(), peak=2.0, ceiling_db=math.inf) if error.numel() else math.inf


def _power(values: Tensor) -> float:
    return float(values.square().mean()) if values.numel() else 0.0


def _decibels(power: float, reference: float) -> float:
    if power == reference:
        return 0.0
    return math.inf if reference == 0 else -math.inf if power == 0 else 10 * math.log10(power / reference)


def _edge_steps(video: Tensor, plan: TilePlan) -> float:
    """Mean squared step across the tiles' edges."""
    steps = [video[..., edge, :] - video[..., edge - 1, :] for edge in plan.rows.edges(plan.unit)]
    steps += [video[..., edge] - video[..., edge - 1] for edge in plan.columns.edges(plan.unit)]
    return _power(torch.cat([step.flatten() for step in steps])) if steps else 0.0


def _near(value: int, unit: int) -> int:
    return max(unit, round(value / unit) * unit)
