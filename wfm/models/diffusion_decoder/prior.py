"""What can be said of the latents from the tokens before any network: a linear guess, and how far off it is.

The decoder then denoises what is left of the latents, with the deviation that this has (as `wfm.models.diffusion.prior`
does from the past): of a token's information most is linear in its FSQ code.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wfm.models.least_squares import LeastSquares

KINDS = 2
"""A video's first latent frame (one frame) and later ones have codes of their own."""


class TokenPrior(nn.Module):
    """Buffers by kind: weight `[2, C, 27 K]` over the 3 x 3 x 3 neighbourhood of K codes, bias and deviation `[2, C]`.
    Unfitted: mean 0 and deviation sigma_data, which is no prior."""

    weight: Tensor
    bias: Tensor
    deviation: Tensor

    def __init__(self, codes: int, channels: int, sigma_data: float) -> None:
        super().__init__()
        self.sigma_data = sigma_data
        self.register_buffer("weight", torch.zeros(KINDS, channels, 27 * codes))
        self.register_buffer("bias", torch.zeros(KINDS, channels))
        self.register_buffer("deviation", torch.full((KINDS, channels), sigma_data))

    def forward(self, codes: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        """Mean `[B, C, T, h, w]` and deviation `[B, C, T, 1, 1]` of latents whose codes are `[B, K, T, h, w]`; first bool
        `[T]`: which latent frame is a video's first."""
        kind = (~first).long()  # [T]
        codes = codes.to(torch.promote_types(codes.dtype, self.weight.dtype))  # a sampler's state is fp32
        near = neighbourhood(codes)  # [B, T, 27K, hw]
        weight, bias = self.weight[kind].to(near), self.bias[kind].to(near)
        mean = weight @ near + bias[..., None]  # [B, T, C, hw]
        mean = mean.transpose(1, 2).unflatten(-1, codes.shape[-2:])
        deviation = self.deviation[kind].T[None, :, :, None, None]
        return mean, deviation.expand(len(codes), -1, -1, -1, -1)

    @torch.no_grad()
    def fit(self, windows: Iterable[tuple[Tensor, Tensor]], *, floor: float = 0.02) -> None:
        """Least squares over windows that start at a video's first frame, in one pass that keeps none: batches of codes
        `[N, K, T, h, w]` and latents `[N, C, T, h, w]` of deviation sigma_data. `floor`: the smallest deviation, in units of
        sigma_data."""
        sums = [LeastSquares() for _ in range(KINDS)]
        for codes, latents in windows:
            near = neighbourhood(codes)  # [N, T, 27K, hw]
            for one, frames in zip(sums, (slice(0, 1), slice(1, None)), strict=True):
                if latents[:, :, frames].numel():
                    goal = latents[:, :, frames].permute(0, 2, 3, 4, 1).flatten(0, 3)  # [n, C]
                    one.add(near[:, frames].transpose(2, 3).flatten(0, 2), goal)
        for kind, one in enumerate(sums):
            if one.count:
                self.weight[kind], self.bias[kind], deviation = one.solve()
                self.deviation[kind] = deviation.clamp(min=floor * self.sigma_data)


def neighbourhood(codes: Tensor) -> Tensor:
    """`[B, K, T, h, w]` -> `[B, T, 27 K, h w]`: each position with those around it, edges repeated in space and time."""
    batch, _, frames = codes.shape[:3]
    padded = F.pad(codes, (1, 1, 1, 1, 1, 1), mode="replicate")  # [B, K, T + 2, h + 2, w + 2]
    planes = [F.unfold(padded[:, :, i : i + frames].transpose(1, 2).flatten(0, 1), 3) for i in range(3)]
    return torch.cat(planes, dim=1).unflatten(0, (batch, frames))
