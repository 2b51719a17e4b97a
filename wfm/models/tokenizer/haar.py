"""Haar patches: blocks of p x p x p pixels as p^3 wavelet coefficients (Cosmos section 1.1).

A level of the transform halves time, height and width and gives eight bands, low or high along each; the next level
transforms all of them again. Scaled as Cosmos does, the coefficients of a block are H v / p^3 with a matrix H of +1
and -1, its own inverse up to that factor, so a constant keeps its value and powers of two lose nothing to rounding.

Pixels are cut into blocks (`cut_blocks`, `join_blocks`), and H takes each block to its coefficients and back (`analyse`,
`synthesise`). H is linear, and so is the convolution that follows it: `fold_analysis` and `fold_synthesis` put H into the
weights of the first and the last convolution instead (`fast_cpu`).
Time is causal: the first frame is a block of its own, repeated p times; of its reconstruction the last frame counts.
"""

import math

import torch
from torch import Tensor

from wfm.parallel.attention import without_autocast

_SIGNS = ((1.0, 1.0), (1.0, -1.0))  # low band: sum of a pair; high band: difference


def cut_blocks(video: Tensor, size: int, *, opening: bool = True) -> Tensor:
    """Video `[B, C, T, H, W]` -> blocks `[B, t, h, w, C * size^3]`, in each C, time, height, width.

    `opening`: the video's first frame comes first (T = 1 + size * n, t = 1 + n), else T = size * n and t = n.
    """
    height, width = video.shape[-2:]
    tiles = video.unflatten(-1, (width // size, size)).unflatten(-3, (height // size, size))  # B C T h p w p
    later = tiles[:, :, int(opening) :].unflatten(2, (-1, size)).permute(0, 2, 4, 6, 1, 3, 5, 7)  # B t h w C p p p
    if opening:
        first = tiles[:, :, :1, None].expand(-1, -1, -1, size, -1, -1, -1, -1).permute(0, 2, 4, 6, 1, 3, 5, 7)
        later = torch.cat([first, later], dim=1)
    return later.flatten(4)


def join_blocks(blocks: Tensor, size: int, *, opening: bool = True) -> Tensor:
    """The inverse of `cut_blocks`; of an opening block the last frame."""
    tiles = blocks.unflatten(4, (-1, size, size, size)).permute(0, 4, 1, 5, 2, 6, 3, 7)  # B C t p h p w p
    video = tiles.flatten(6, 7).flatten(4, 5).flatten(2, 3)
    return video[:, :, size - 1 :] if opening else video


def cut_tiles(video: Tensor, size: int) -> Tensor:
    """For images: frames `[B, C, T, H, W]` -> `[B, T, h, w, C * size^2]`, in each C, height, width."""
    height, width = video.shape[-2:]
    tiles = video.unflatten(-1, (width // size, size)).unflatten(-3, (height // size, size))  # B C T h p w p
    return tiles.permute(0, 2, 3, 5, 1, 4, 6).flatten(4)


def join_tiles(tiles: Tensor, size: int) -> Tensor:
    """The inverse of `cut_tiles`."""
    frames = tiles.unflatten(4, (-1, size, size)).permute(0, 4, 1, 2, 5, 3, 6)  # B C T h p w p
    return frames.flatten(5, 6).flatten(3, 4)


def analyse(blocks: Tensor, size: int, dimensions: int = 3) -> Tensor:
    """Pixels of `cut_blocks` `[..., C * size^d]` -> wavelet coefficients, band-major: (band of the last level, ..., band of the
    first level, C), as in Cosmos."""
    count = size**dimensions
    with without_autocast(blocks):
        bands = blocks.unflatten(-1, (-1, count)) @ _matrix(size, dimensions, blocks).T  # [..., C, bands]
        return bands.div(count).transpose(-1, -2).flatten(-2)


def synthesise(coefficients: Tensor, size: int, dimensions: int = 3) -> Tensor:
    """The inverse of `analyse`: pixels for `join_blocks`."""
    with without_autocast(coefficients):
        bands = coefficients.unflatten(-1, (size**dimensions, -1)).transpose(-1, -2)  # [..., C, bands]
        return (bands @ _matrix(size, dimensions, coefficients)).flatten(-2)


def _matrix(size: int, dimensions: int, like: Tensor) -> Tensor:
    """H `[bands, pixels]` of +1 and -1."""
    count = size**dimensions
    identity = torch.eye(count, dtype=like.dtype, device=like.device)
    return _transformed(identity[:, None], int(math.log2(size)), dimensions)[:, 0]


def fold_analysis(weight: Tensor, size: int, dimensions: int = 3) -> Tensor:
    """Weights `[O, C * size^d, ...]` over wavelet coefficients -> the same over pixels of `cut_blocks`."""
    levels, size_d = int(math.log2(size)), size**dimensions
    bands = weight.unflatten(1, (size_d, -1)).movedim(2, 1)  # [O, C, bands, ...]
    return _transformed(bands, levels, dimensions).div(size_d).flatten(1, 2)


def fold_synthesis(weight: Tensor, size: int, dimensions: int = 3) -> Tensor:
    """Weights (or a bias) `[C * size^d, ...]` that give wavelet coefficients -> the same giving pixels for
    `join_blocks`."""
    levels, size_d = int(math.log2(size)), size**dimensions
    bands = weight.unflatten(0, (size_d, -1)).transpose(0, 1)[None]  # [1, C, bands, ...]
    return _transformed(bands, levels, dimensions)[0].flatten(0, 1)


def _transformed(bands: Tensor, levels: int, dimensions: int) -> Tensor:
    """H along axis 2 of `[O, C, bands, ...]`, which leaves it in raster order of the pixels.

    Bits of a band: for each level, last first, one bit an axis. In 3-D the order of axes is (time, height, width); the
    2-D transform of Cosmos takes (width, height).
    """
    if not levels:
        return bands
    signs = bands.new_tensor(_SIGNS)
    pair = signs
    for _ in range(dimensions - 1):
        pair = torch.kron(pair, signs)  # H of one level, [2^d, 2^d], symmetric
    x = bands.unflatten(2, (2**dimensions,) * levels)
    with without_autocast(x):  # weights are put together in their own type; the convolution they go to is autocast's
        for level in range(levels):
            x = torch.tensordot(x, pair, dims=([2 + level], [0])).movedim(-1, 2 + level)
    x = x.unflatten(2, (2,) * dimensions)
    for level in range(1, levels):
        x = x.unflatten(2 + level * dimensions, (2,) * dimensions)
    axes = range(dimensions) if dimensions == 3 else (1, 0)
    # pixel coordinate along an axis: the bit of the last level is the highest
    order = [2 + level * dimensions + axis for axis in axes for level in range(levels)]
    rest = range(2 + levels * dimensions, x.ndim)
    return x.permute(0, 1, *order, *rest).flatten(2, 1 + levels * dimensions)
