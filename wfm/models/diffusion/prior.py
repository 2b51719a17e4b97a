"""What can be said of the future before any network: a linear guess from the last given frame, and how far off it is.

EDM preconditioning assumes data of mean 0 and one deviation. Given the past that is far from true: most of a future
latent is already in the last given one. So the formulas are used around a conditional mean m and with the deviation
d of what is left, for each channel and each distance from the past:

    D(x; sigma) = m + c_skip (x - m) + c_out F(c_in (x - m)),      c_skip, c_out, c_in with sigma_data = d

which is EDM of the residual, in the units of the latents: samplers need not know. m is the best linear function, in
squared error, of the 3 x 3 neighbourhood in the last given latent frame (and, for a model that is shown it, in the
extrapolation of this very frame by constant motion), found in closed form. Such a model has both
priors, so that without an extrapolation its guess is that of a model which knows none. Left unfitted, m = 0 and
d = sigma_data: plain EDM.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wfm.models.least_squares import LeastSquares

NEIGHBOURS = 9
KINDS = 2
"""A last given frame may be the first latent frame (an image) or a later one: they have codes of their own."""


class LinearPrior(nn.Module):
    """Buffers by kind of the last given frame and by lag 1 ... L behind it: weight `[2, L, C, F]`, bias and deviation
    `[2, L, C]`; F = 9 C features, 18 C with an extrapolation."""

    weight: Tensor
    bias: Tensor
    deviation: Tensor

    def __init__(self, channels: int, max_lag: int, sigma_data: float, *, extrapolated: bool = False) -> None:
        super().__init__()
        self.sigma_data, self.max_lag, self.extrapolated = sigma_data, max_lag, extrapolated
        features = NEIGHBOURS * channels * (2 if extrapolated else 1)
        self.register_buffer("weight", torch.zeros(KINDS, max_lag, channels, features))
        self.register_buffer("bias", torch.zeros(KINDS, max_lag, channels))
        self.register_buffer("deviation", torch.full((KINDS, max_lag, channels), sigma_data))

    def forward(self, condition: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        """Mean `[B, C, t, H, W]` and deviation `[B, C, t, 1, 1]` of latents whose first `given` int64 `[B]` frames
        are those of `condition` `[B, C, t, H, W]` (normalised units), whose others are the extrapolation. Zero and sigma_data
        where nothing is given."""
        batch, channels, frames, rows, columns = condition.shape
        place = (given - 1).clamp(min=0)[:, None, None, None, None].expand(-1, channels, 1, rows, columns)
        last = condition.gather(2, place)[:, :, 0]  # [B, C, H, W]
        kind = (given > 1).long()
        lag = (torch.arange(frames, device=given.device)[None] - given[:, None]).clamp(0, self.max_lag - 1)  # [B, t]
        condition = condition.to(torch.promote_types(condition.dtype, self.weight.dtype))  # a sampler's state is fp32
        last = last.to(condition)
        weight, bias = (
            table[kind[:, None], lag].to(condition) for table in (self.weight, self.bias)
        )  # [B, t, C, 9C], ...
        around = _neighbourhood(last)[:, None]  # [B, 1, 9C, HW]
        mean = weight[..., : NEIGHBOURS * channels] @ around + bias[..., None]  # [B, t, C, HW]
        if self.extrapolated:
            extrapolations = _neighbourhood(condition.transpose(1, 2).flatten(0, 1)).unflatten(0, (batch, frames))
            mean = mean + weight[..., NEIGHBOURS * channels :] @ extrapolations
        mean = mean.view(batch, frames, channels, rows, columns).transpose(1, 2)
        deviation = self.deviation[kind[:, None], lag].transpose(1, 2)[..., None, None]  # [B, C, t, 1, 1]
        known = (given > 0)[:, None, None, None, None]
        return mean * known, torch.where(known, deviation, torch.full_like(deviation, self.sigma_data))


class PriorFit:
    """Fits a prior in one pass over windows that keeps none of them: `add` each batch, then `finish`."""

    def __init__(self, prior: LinearPrior, *, given: int = 0, floor: float = 0.02) -> None:
        """`given`: frames that the windows' extrapolations were made from, for a prior that is shown those; `floor`: the
        smallest deviation, in units of sigma_data."""
        self._prior, self._given, self._floor = prior, given, floor
        self._sums: dict[tuple[int, int], LeastSquares] = {}

    @torch.no_grad()
    def add(self, latents: Tensor, extrapolated: Tensor | None = None, weight: float = 1.0) -> None:
        """All places of windows `[N, C, t, H, W]` (normalised units) of any shape and, for a prior that is shown it, their
        extrapolation of the same shape: over what follows the frames that it was made from. Each counts `weight` times."""
        frames, given = latents.shape[2], self._given
        for kind in range(KINDS) if extrapolated is None else [int(given > 1)]:
            for lag in range(1, min(self._prior.max_lag, frames - (1 + kind if extrapolated is None else given)) + 1):
                lasts = [given - 1] if extrapolated is not None else [0] if kind == 0 else list(range(1, frames - lag))
                wanted = [i + lag for i in lasts]
                seen = [latents[:, :, lasts], *([extrapolated[:, :, wanted]] if extrapolated is not None else [])]
                near = [
                    _neighbourhood(part.transpose(1, 2).flatten(0, 1)).transpose(1, 2).flatten(0, 1) for part in seen
                ]
                goal = latents[:, :, wanted].permute(0, 2, 3, 4, 1).flatten(0, 3)  # [n, C]
                self._sums.setdefault((kind, lag), LeastSquares()).add(torch.cat(near, dim=1), goal, weight)

    @torch.no_grad()
    def finish(self) -> None:
        """Solve. Lags beyond the longest window take the longest one fitted; what nothing was seen of stays unfitted."""
        prior = self._prior
        for (kind, lag), sums in sorted(self._sums.items()):
            weight, bias, deviation = sums.solve()
            prior.weight[kind, lag - 1 :] = weight
            prior.bias[kind, lag - 1 :] = bias
            prior.deviation[kind, lag - 1 :] = deviation.clamp(min=self._floor * prior.sigma_data)


def _neighbourhood(latents: Tensor) -> Tensor:
    """`[B, C, H, W]` -> `[B, 9 C, H W]`, edges repeated."""
    return F.unfold(F.pad(latents, (1, 1, 1, 1), mode="replicate"), 3)
