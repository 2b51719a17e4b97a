"""The feature net of the perceptual and kernel distances: a colour Gabor pyramid, fixed and weight-free.

LPIPS and FVD need trained weights from outside; these scores do not, and are therefore NOT comparable with them. What
they see: local energy at three scales, four orientations and three opponent colours, plus the blurred colour of each
place. Energy forgives a small shift (the phase is dropped), which pixels do not, and a blurred picture lacks energy,
which PSNR likes and an eye does not.
"""

import functools
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

FEATURE_NET = "gabor-pyramid-v2"
"""Changes whenever a number below or in `descriptor_scale` does: scores of different nets must not be compared. v2: the kernel
distance is scaled by constants, no longer by the true clips it compares."""

DESCRIPTION = (
    "fixed colour Gabor pyramid (local energy at 3 scales x 4 orientations x 3 opponent colours, brightness alone at the "
    "finest scale, plus blurred colour); "
    "no trained weights, not LPIPS and not FVD"
)
SCALES = 3
ORIENTATIONS = 4
KERNEL = 9
WAVELENGTH = 5.0
GRID = 4

# Rows: brightness, red against green, blue against yellow; each of unit gain.
_OPPONENT = ((1 / 3, 1 / 3, 1 / 3), (0.5, -0.5, 0.0), (-0.25, -0.25, 0.5))


def _gabor_bank() -> torch.Tensor:
    """Even and odd filters [2 * ORIENTATIONS, 1, KERNEL, KERNEL], zero mean, unit L2 norm."""
    half = KERNEL // 2
    y, x = torch.meshgrid(torch.arange(-half, half + 1.0), torch.arange(-half, half + 1.0), indexing="ij")
    envelope = torch.exp(-(x**2 + y**2) / (2 * (KERNEL / 4.5) ** 2))
    filters = []
    for index in range(ORIENTATIONS):
        angle = math.pi * index / ORIENTATIONS
        phase = 2 * math.pi * (x * math.cos(angle) + y * math.sin(angle)) / WAVELENGTH
        for wave in (torch.cos(phase), torch.sin(phase)):
            kernel = envelope * wave
            kernel = kernel - envelope * (kernel.sum() / envelope.sum())  # no answer to a flat field
            filters.append(kernel / kernel.norm())
    return torch.stack(filters)[:, None]


class GaborPyramid(nn.Module):
    """Frames [B, 3, H, W] in 0..1 -> one map [B, C_s, H / 2^s, W / 2^s] for each scale, and the blurred colour [B, 3,
    h, w] last."""

    opponent: torch.Tensor
    bank: torch.Tensor
    blur: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("opponent", torch.tensor(_OPPONENT)[:, :, None, None])
        self.register_buffer("bank", _gabor_bank())
        row = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
        self.register_buffer("blur", torch.outer(row, row)[None, None])

    @torch.no_grad()
    def forward(self, frames: torch.Tensor) -> list[torch.Tensor]:
        colours = F.conv2d(frames, self.opponent)  # [B, 3, H, W]
        maps = []
        for scale in range(SCALES):
            batch, channels, height, width = colours.shape
            flat = colours.reshape(batch * channels, 1, height, width)
            seen = colours[:, : 1 if scale == 0 else 3]  # the eye, too, sees fine detail in brightness alone
            padded = F.pad(seen.flatten(0, 1)[:, None], [KERNEL // 2] * 4, mode="replicate")
            answers = F.conv2d(padded, self.bank).square_()  # [B * c, 2 * ORIENTATIONS, h, w]
            energy = answers[:, 0::2].add_(answers[:, 1::2]).add_(1e-6).sqrt_()
            maps.append(energy.reshape(batch, -1, height, width))  # [B, c * ORIENTATIONS, h, w]
            blurred = F.conv2d(F.pad(flat, [2] * 4, mode="replicate"), self.blur)
            colours = blurred[:, :, ::2, ::2].reshape(batch, channels, (height + 1) // 2, (width + 1) // 2)
        maps.append(colours)
        return maps


@functools.cache
def gabor_pyramid() -> GaborPyramid:
    """The one net: it has no weights and no state."""
    return GaborPyramid()


def frames_to_tensor(video: np.ndarray) -> torch.Tensor:
    """uint8 [..., H, W, 3] -> float32 [B, 3, H, W] in 0..1, all leading axes joined."""
    if video.dtype != np.uint8:
        raise ValueError(f"video ({video.dtype}) must be uint8, from 0 to 255")
    flat = np.ascontiguousarray(video).reshape(-1, *video.shape[-3:])
    return torch.from_numpy(flat).permute(0, 3, 1, 2).float().div_(255)


def clip_descriptor(maps: list[torch.Tensor], clips: int) -> torch.Tensor:
    """One vector a clip [clips, D] from the maps of its frames [clips * T, C, h, w].

    Each map is averaged over a GRID x GRID raster; a clip is the mean over time of that, and the mean change from
    frame to frame (so that a still video of the right picture is not taken for a moving one).
    """
    pooled = torch.cat([F.adaptive_avg_pool2d(level, GRID).flatten(1) for level in maps], dim=1)  # [clips * T, D / 2]
    pooled = pooled.reshape(clips, -1, pooled.shape[1])
    change = (pooled[:, 1:] - pooled[:, :-1]).abs().mean(1) if pooled.shape[1] > 1 else torch.zeros_like(pooled[:, 0])
    return torch.cat([pooled.mean(1), change], dim=1)
