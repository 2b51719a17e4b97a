"""Optical flow that a gradient can pass through, and the loss on it.

Cosmos takes RAFT, a trained net from outside. Here it is Lucas and Kanade's least squares, coarse to fine and iterated
(Bouguet 2000), written in differentiable operations: no weights, and exact for small motion of textured surfaces; where
there is no texture the flow stays near zero in both videos alike. Values are not comparable with RAFT's.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

COARSEST = 8
"""Pictures are halved as long as the smaller side stays at least this [pixels]."""
LEVELS = 4
ITERATIONS = 2
"""Corrections at each level."""
WINDOW = 5
"""Side of the neighbourhood that is taken to move as one [pixels]."""
RIDGE = 2e-3
"""Added to the structure tensor's diagonal, for pictures in [-1, 1]: where squared slopes are below it, motion is not
claimed."""


class LucasKanade(nn.Module):
    """Dense flow between two pictures `[N, C, H, W]` in [-1, 1] -> `[N, 2, H, W]` (x, y) in px: what stands at p in the
    first stands at p + flow(p) in the second. All channels count."""

    blur: Tensor

    def __init__(self) -> None:
        super().__init__()
        row = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
        self.register_buffer("blur", torch.outer(row, row)[None, None], persistent=False)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        levels = [(first, second)]
        while len(levels) < LEVELS and min(levels[-1][0].shape[-2:]) >= 2 * COARSEST:
            levels.append((self._halved(levels[-1][0]), self._halved(levels[-1][1])))
        flow = first.new_zeros(first.shape[0], 2, *levels[-1][0].shape[-2:])
        for one, two in reversed(levels):
            if flow.shape[-2:] != one.shape[-2:]:
                flow = 2 * F.interpolate(flow, one.shape[-2:], mode="bilinear", align_corners=False)
            for _ in range(ITERATIONS):
                flow = flow + _correction(one, warp(two, flow))
        return flow

    def _halved(self, pictures: Tensor) -> Tensor:
        channels = pictures.shape[1]
        padded = F.pad(pictures, [2] * 4, mode="replicate")
        return F.conv2d(padded, self.blur.expand(channels, 1, 5, 5), stride=2, groups=channels)


def _correction(first: Tensor, second: Tensor) -> Tensor:
    """The small motion `[N, 2, H, W]` that best explains the difference of two pictures, at most one pixel an axis."""
    x, y = _slopes((first + second) / 2)
    error = first - second
    xx, xy, yy, ex, ey = _around(torch.stack([(a * b).sum(1) for a, b in
                                              ((x, x), (x, y), (y, y), (x, error), (y, error))], dim=1)).unbind(1)  # fmt: skip
    xx, yy = xx + RIDGE, yy + RIDGE
    determinant = xx * yy - xy * xy  # at least RIDGE^2, for the tensor is positive semi-definite
    moved = torch.stack([(yy * ex - xy * ey) / determinant, (xx * ey - xy * ex) / determinant], dim=1)
    return moved.clamp(-1, 1)


def _slopes(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences along x and y, with repeated edges."""
    padded = F.pad(pictures, [1] * 4, mode="replicate")
    x = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    y = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    return x, y


def _around(values: Tensor) -> Tensor:
    """The mean over the window around each place."""
    return F.avg_pool2d(values, WINDOW, stride=1, padding=WINDOW // 2, count_include_pad=False)


def warp(pictures: Tensor, flow: Tensor) -> Tensor:
    """Pictures `[N, C, H, W]` read at p + flow(p), bilinearly, edges repeated."""
    height, width = pictures.shape[-2:]
    rows = torch.arange(height, dtype=flow.dtype, device=flow.device)[:, None]
    columns = torch.arange(width, dtype=flow.dtype, device=flow.device)
    x = (2 * (columns + flow[:, 0]) + 1) / width - 1  # from pixels to the [-1, 1] of grid_sample
    y = (2 * (rows + flow[:, 1]) + 1) / height - 1
    grid = torch.stack([x, y], dim=-1)
    return F.grid_sample(pictures, grid, mode="bilinear", padding_mode="border", align_corners=False)


def both_flows(estimator: LucasKanade, video: Tensor, scale: int) -> Tensor:
    """Forward and backward flow `[2 B (T - 1), 2, h, w]` in px of the video's own size, between all neighbouring frames of
    `[B, C, T, H, W]`, taken on frames shrunk `scale` times."""
    frames = video.transpose(1, 2)  # [B, T, C, H, W]
    if scale > 1:
        frames = F.avg_pool2d(frames.flatten(0, 1), scale).unflatten(0, frames.shape[:2])
    first, second = frames[:, :-1].flatten(0, 1), frames[:, 1:].flatten(0, 1)
    return scale * estimator(torch.cat([first, second]), torch.cat([second, first]))


def flow_distance(estimator: LucasKanade, rebuilt: Tensor, video: Tensor, scale: int) -> Tensor:
    """Mean absolute difference [px] of the flows, forward and backward, of two videos `[B, C, T, H, W]`; 0 for images."""
    if video.shape[2] < 2:
        return rebuilt.new_zeros(())
    with torch.no_grad():
        wanted = both_flows(estimator, video, scale)
    return (both_flows(estimator, rebuilt, scale) - wanted).abs().mean()
