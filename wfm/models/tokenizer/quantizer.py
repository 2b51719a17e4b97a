"""Finite scalar quantisation (Mentzer et al. 2023), in the form of Cosmos's released code.

Each channel is bounded by a shifted tanh and rounded to one of L values; a token is the mixed-radix number of the
channels' digits, lowest first. Rounding passes gradients straight through. There is no codebook to learn and no
commitment loss.

Rounding is done in fp32 (fp64 for fp64), whatever the type of the latents: half precision moves the bounds of the levels,
and gives infinite ones for 2 levels. Codes come in the latents' type. Where that type cannot tell all levels apart (bf16
beyond some 500), codes no longer know their token: `latent_tokens` gives it from the latents.
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
        """Squash each channel to its range of levels: fp32 or better."""
        z = _precise(z)
        levels = self._shaped(self._levels, z)
        half = (levels - 1) * (1 + EPSILON) / 2
        offset = torch.where(levels % 2 == 0, 0.5, 0.0)
        shift = torch.atanh(offset / half)
        return torch.tanh(z + shift) * half - offset

    def _rounded(self, bounded: Tensor) -> Tensor:
        """The level of each channel, from -(L // 2) on."""
        levels = self._shaped(self._levels, bounded)
        low = -(levels // 2)
        # EPSILON reaches past the outermost level from 1,003 levels on
        return bounded.round().maximum(low).minimum(low + levels - 1)

    def forward(self, z: Tensor) -> Tensor:
        """Quantised codes of unbounded z, both `[B, D, ...]` in one type."""
        bounded = self.bound(z)
        rounded = bounded + (self._rounded(bounded) - bounded).detach()
        return (rounded / self._shaped(self._levels // 2, rounded)).to(z.dtype)

    def latent_tokens(self, z: Tensor) -> Tensor:
        """The tokens int64 `[B, ...]` of unbounded z `[B, D, ...]`: exact in every type."""
        digits = self._rounded(self.bound(z)).to(torch.int64)
        return self._mixed(digits + self._shaped(self._levels // 2, digits))

    def tokens(self, codes: Tensor) -> Tensor:
        """Codes `[B, D, ...]` -> int64 `[B, ...]`; the nearest token where the codes' type cannot tell all levels apart."""
        codes = _precise(codes)
        half = self._shaped(self._levels // 2, codes)
        return self._mixed((codes * half + half).round().to(torch.int64))

    def _mixed(self, digits: Tensor) -> Tensor:
        return (digits * self._shaped(self._basis, digits)).sum(1)

    def codes(self, tokens: Tensor) -> Tensor:
        """int64 `[B, ...]` -> codes fp32 `[B, D, ...]`; the inverse of `tokens`."""
        digits = (tokens[:, None] // self._shaped(self._basis, tokens[:, None])) % self._shaped(
            self._levels, tokens[:, None]
        )
        half = self._shaped(self._levels // 2, digits.float())
        return (digits.float() - half) / half


def _precise(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
