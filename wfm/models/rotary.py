"""Rotary positions in three axes (time, height, width).

The head is split over height and width, `(head_dim // 6) * 2` each, the rest for time. A position turns pairs of
components: (i, i + head_dim / 2) in the order of the weights.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from wfm.errors import ConfigError


class Rope(NamedTuple):
    """The rotation of every position: cos and sin `[N, head_dim / 2]`."""

    cos: Tensor
    sin: Tensor


class Yarn(NamedTuple):
    """Stretches low frequencies for sequences longer than those of the first training (YaRN, as Cosmos's code has it)."""

    lengths: tuple[int, int, int]
    "Positions (t, h, w) of the first training."
    beta_fast: float
    "Turns over that length from which a frequency is kept as it is."
    beta_slow: float
    "Turns over it up to which a frequency is divided by `scale`; a linear blend lies between."
    scale: float

    def factor(self, frequency: Tensor, axis: int) -> Tensor:
        """What multiplies each frequency [radians a position] of an axis."""
        turn = 2 * torch.pi / self.lengths[axis]
        kept = ((frequency - self.beta_slow * turn) / ((self.beta_fast - self.beta_slow) * turn)).clamp(0, 1)
        return (1 - kept) / self.scale + kept


def grid_positions(
    grid: tuple[int, int, int], *, time_scale: float = 1.0, device: torch.device | None = None
) -> Tensor:
    """(t, h, w) of every token of a grid in raster order, `[t*h*w, 3]`, fp64. `time_scale` multiplies t (24 / fps in
    Cosmos)."""
    axes = [torch.arange(size, dtype=torch.float64, device=device) for size in grid]
    axes[0] = axes[0] * time_scale
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)


def rope_3d(
    positions: Tensor,
    head_dim: int,
    *,
    theta: float = 10000.0,
    ratio: tuple[float, float, float] = (1.0, 1.0, 1.0),
    yarn: Yarn | None = None,
    dtype: torch.dtype = torch.float32,
) -> Rope:
    """The rotary embedding of positions (t, h, w) `[N, 3]`; tables in `dtype`, at least fp32.

    The frequencies are laid out [t, h, w]. `ratio` is the NTK extension of each axis (t, h, w): theta_axis = theta *
    ratio^(d / (d - 2)); `yarn` scales what comes of it. Raises ConfigError for a head that cannot be split.
    """
    dim_space = head_dim // 6 * 2
    dims = (head_dim - 2 * dim_space, dim_space, dim_space)
    if head_dim % 2 or dim_space < 2:
        raise ConfigError(f"head_dim: {head_dim} cannot be split over three axes; use an even number of at least 6")
    angles = []
    for axis, (dim, axis_ratio) in enumerate(zip(dims, ratio, strict=True)):
        base = theta * axis_ratio ** (dim / (dim - 2)) if dim > 2 else theta
        frequency = base ** -(torch.arange(0, dim, 2, dtype=torch.float64, device=positions.device) / dim)
        if yarn is not None:
            frequency = frequency * yarn.factor(frequency, axis)
        angles.append(positions[:, axis, None].double() * frequency)  # [N, dim / 2]
    angle = torch.cat(angles, dim=-1)  # [N, head_dim / 2]
    dtype = torch.promote_types(dtype, torch.float32)
    return Rope(angle.cos().to(dtype), angle.sin().to(dtype))


def apply_rope(x: Tensor, rope: Rope) -> Tensor:
    """Rotate `[..., N, H, head_dim]`, alike for all heads; pairs are (i, i + head_dim / 2).

    Computed in the tables' precision (fp32 or better), returned in x's.
    """
    cos, sin = rope.cos[:, None], rope.sin[:, None]
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)


def sinusoids_3d(positions: Tensor, dim: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Fixed absolute embedding `[N, dim]` of positions (t, h, w) `[N, 3]`: of each axis, split as in `rope_3d`, the sines and
    then the cosines at base 10000 (Cosmos's 5B and 13B). Raises ConfigError for a width that cannot be split."""
    dim_space = dim // 6 * 2
    if dim % 2 or dim_space < 2:
        raise ConfigError(f"dim: {dim} cannot be split over three axes; use an even number of at least 6")
    parts = []
    for axis, size in enumerate((dim - 2 * dim_space, dim_space, dim_space)):
        half = torch.arange(size // 2, dtype=torch.float64, device=positions.device)
        angle = positions[:, axis, None].double() * 10000.0 ** (-2 * half / size)  # [N, size / 2]
        parts += [angle.sin(), angle.cos()]
    return torch.cat(parts, dim=-1).to(dtype)
