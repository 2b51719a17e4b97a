"""Samplers for the EDM formulation: from pure noise to a clean latent along a falling list of noise levels.

A sampler sees the network only as ``denoise(x, sigma) -> x0``: ``x`` and ``x0`` are ``[B, ...]`` tensors in latent
units, ``sigma`` is a plain float shared by the batch. All of them are deterministic: the only randomness is the noise
that the caller puts in at the first sigma. The state is kept in float64 between steps (as Cosmos does), the network
sees the dtype it was given.

``euler`` and ``heun`` are the samplers of Karras et al. 2022 (EDM, algorithm 1 without churn); ``res_2ab`` is the
second-order multistep exponential integrator that Cosmos 1.0 ships (its ``res_sampler.py``), one network call a step.
"""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from wfm.errors import ConfigError

Denoise = Callable[[Tensor, float], Tensor]
SAMPLERS = ("euler", "heun", "res_2ab")


def karras_sigmas(steps: int, *, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> list[float]:
    """``steps`` noise levels from sigma_max down to sigma_min, evenly spaced in ``sigma ** (1 / rho)`` (EDM eq. 5)."""
    if steps < 1:
        raise ConfigError(f"steps is {steps}; a sampler needs at least 1")
    if not 0.0 < sigma_min < sigma_max:
        raise ConfigError(f"sigma_min={sigma_min}, sigma_max={sigma_max}: 0 < sigma_min < sigma_max must hold")
    if steps == 1:
        return [sigma_max]
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return [(high + i / (steps - 1) * (low - high)) ** rho for i in range(steps)]


def sample(name: str, denoise: Denoise, noise: Tensor, sigmas: list[float]) -> Tensor:
    """Run the sampler called ``name``: ``noise`` is unit Gaussian ``[B, ...]``; returns the clean latent in its dtype.

    After the last sigma one final denoising to zero is done, as Cosmos does (its 35 steps are 36 network calls; one
    step alone is the one-step mean). Raises ConfigError for a name that is not in SAMPLERS.
    """
    if name not in SAMPLERS:
        raise ConfigError(f"sampler {name!r} is unknown; choose one of {', '.join(SAMPLERS)}")
    x = noise.double() * sigmas[0]
    dtype = noise.dtype

    def clean(state: Tensor, sigma: float) -> Tensor:
        return denoise(state.to(dtype), sigma).double()

    if name == "res_2ab":
        return _res_2ab(clean, x, sigmas).to(dtype)
    for sigma, lower in itertools.pairwise(sigmas):
        slope = (x - clean(x, sigma)) / sigma
        ahead = x + (lower - sigma) * slope
        if name == "heun":
            slope_ahead = (ahead - clean(ahead, lower)) / lower
            ahead = x + (lower - sigma) * 0.5 * (slope + slope_ahead)
        x = ahead
    return clean(x, sigmas[-1]).to(dtype)


def _res_2ab(clean: Denoise, x: Tensor, sigmas: list[float]) -> Tensor:
    """RES, two-step Adams-Bashforth form, in lambda = -ln sigma. The first step has no history and is Euler's."""
    x0_before: Tensor | None = None
    sigma_before = 0.0
    for sigma, lower in itertools.pairwise(sigmas):
        x0 = clean(x, sigma)
        h = math.log(sigma / lower)
        if x0_before is None:
            x = (lower / sigma) * x + (1 - lower / sigma) * x0
        else:
            c2 = math.log(sigma / sigma_before) / h  # negative: the earlier point lies at a larger sigma
            phi1 = (math.exp(-h) - 1) / -h
            phi2 = (phi1 - 1) / -h
            b2 = phi2 / c2
            x = math.exp(-h) * x + h * ((phi1 - b2) * x0 + b2 * x0_before)
        x0_before, sigma_before = x0, sigma
    return clean(x, sigmas[-1])


def seeded_noise(shape: tuple[int, ...], seeds: list[int], *, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Unit Gaussian noise ``[len(seeds), *shape]``: row b depends on ``seeds[b]`` alone, never on the batch around it.

    Drawn on the CPU in float32, so that the same seed means the same noise on every device.
    """
    rows = [torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32) for seed in seeds]
    return torch.stack(rows).to(device=device, dtype=dtype)
