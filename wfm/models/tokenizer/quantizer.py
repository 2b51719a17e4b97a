"""Finite scalar quantisation (Mentzer et al. 2023), in the form of Cosmos's released code.

Each channel is bounded by a shifted tanh and rounded to one of L values; a token is the mixed-radix number of the
channels' digits, lowest first. Rounding passes gradients straight through. There is no codebook to learn and no
commitment loss.
"""

import torch
from torch import Tensor, nn

EPSILON = 1e-3


class FiniteScalarQuantizer(nn.Module):
    """Codes are `[B, D, ...]` with D = len(levels), values in [-1, 1]; tokens int64 `[B, ...]` in [0,
    prod(levels))."""

    _levels: Tensor
    _basis: Tensor

    def __init__(self, levels: tuple[int, ...]) -> None:
        super().__init__()
        sizes = torch.tensor(levels, dtype=torch.int64)
        self.register_buffer("_levels", sizes, persistent=False)
        self.register_buffer("_basis", torch.cumprod(torch.cat([sizes.new_ones(1), sizes[:-1]]), 0), persistent=False)

    def _shaped(self, values: Tensor, like: Tensor) -> Tensor:
        return values.view(-1, *[1] * (like.ndim - 2)).to(like)

    def bound(self, z: Tensor) -> Tensor:
        """Squash each channel to its range of levels."""
        levels = self._shaped(self._levels, z)
        half = (levels - 1) * (1 + EPSILON) / 2
        offset = torch.where(levels % 2 == 0, 0.5, 0.0)
        shift = torch.atanh(offset / half)
        return torch.tanh(z + shift) * half - offset

    def forward(self, z: Tensor) -> Tensor:
        """Quantised codes of unbounded z, both `[B, D, ...]`."""
        bounded = self.bound(z)
        rounded = bounded + (bounded.round() - bounded).detach()
        return rounded / self._shaped(self._levels // 2, z)

    def tokens(self, codes: Tensor) -> Tensor:
        """Codes `[B, D, ...]` -> int64 `[B, ...]`."""
        half = self._shaped(self._levels // 2, codes)
        digits = (codes * half + half).round().to(torch.int64)
        return (digits * self._shaped(self._basis, digits)).sum(1)

    def codes(self, tokens: Tensor) -> Tensor:
        """int64 `[B, ...]` -> codes fp32 `[B, D, ...]`; the inverse of `tokens`."""
        digits = (tokens[:, None] // self._shaped(self._basis, tokens[:, None])) % self._shaped(
            self._levels, tokens[:, None]
        )
        half = self._shaped(self._levels // 2, digits.float())
        return (digits.float() - half) / half
