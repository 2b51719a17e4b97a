"""Samplers: from pure noise to a clean latent along a falling list of noise levels.

A sampler sees the network only as ``denoise(x, sigma) -> x0``: ``x = x0 + sigma n`` and ``x0`` are ``[B, ...]`` tensors
in latent units, ``sigma`` is a plain float shared by the batch. All of them are deterministic: the only randomness is
the noise that the caller puts in at the first sigma. The state is kept in float64 between steps (as Cosmos does), the
network sees the dtype it was given. Any sampler runs with either objective; ``flow_*`` are those whose variable is the
flow's time.

    euler        order 1, one network call a step       Karras et al. 2022 (EDM), algorithm 1 without churn
    heun         order 2, two calls                     the same, algorithm 1 whole
    res_2ab      order 2, one call (multistep)          the exponential integrator that Cosmos 1.0 ships, in -ln sigma
    dpm_2m       order 2, one call (multistep)          DPM-Solver++(2M), Lu et al. 2022
    flow_euler   order 1, one call                      rectified flow, straight steps of t
    flow_heun    order 2, two calls                     the same, trapezoidal

Euler's step is the same point in both variables; what sets ``flow_euler`` apart is where its levels lie.
"""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from wfm.errors import ConfigError
from wfm.generation.sampler_config import SamplerConfig
from wfm.models.finite import require_finite
from wfm.models.seeding import seeded_generator

Denoise = Callable[[Tensor, float], Tensor]
Sampler = Callable[[Denoise, Tensor, list[float], float], Tensor]


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


def flow_sigmas(steps: int, *, shift: float = 1.0, sigma_max: float = 80.0, sigma_data: float = 0.5) -> list[float]:
    """Noise levels of ``steps`` even times from noise towards data, moved by ``shift``; the final denoising is the step to
    t = 0. Times are shrunk by the little that the first one, t = 1 or infinite sigma, takes to come down to sigma_max."""
    if steps < 1:
        raise ConfigError(f"steps is {steps}; a sampler needs at least 1")
    if shift <= 0 or sigma_max <= 0:
        raise ConfigError(f"shift={shift}, sigma_max={sigma_max}: both must be positive")
    top = sigma_max / (sigma_max + sigma_data)
    times = [top * shift * even / (1 + (shift - 1) * even) for even in (1 - i / steps for i in range(steps))]
    return [sigma_data * time / (1 - time) for time in times]


def noise_levels(sampling: SamplerConfig, *, steps: int | None = None, sigma_data: float = 0.5) -> list[float]:
    """The levels of a sampling configuration, or of the same with another number of ``steps``."""
    steps = sampling.steps if steps is None else steps
    if sampling.sampler.startswith("flow_"):
        return flow_sigmas(steps, shift=sampling.shift, sigma_max=sampling.sigma_max, sigma_data=sigma_data)
    return karras_sigmas(steps, sigma_min=sampling.sigma_min, sigma_max=sampling.sigma_max)


def sample(name: str, denoise: Denoise, noise: Tensor, sigmas: list[float], *, sigma_data: float = 0.5) -> Tensor:
    """Run the sampler called ``name``: ``noise`` is unit Gaussian ``[B, ...]``; returns the clean latent in its dtype.

    After the last sigma one final denoising to zero is done, as Cosmos does (its 35 steps are 36 network calls; one
    step alone is the one-step mean). ``sigma_data`` fixes the flow's time, t = sigma / (sigma + sigma_data). Raises
    ConfigError for a name that is not in SAMPLERS, DataError for a result that is not finite.
    """
    if name not in SAMPLERS:
        raise ConfigError(f"sampler {name!r} is unknown; choose one of {', '.join(SAMPLERS)}")
    dtype = noise.dtype

    def clean(state: Tensor, sigma: float) -> Tensor:
        return denoise(state.to(dtype), sigma).double()

    x = SAMPLERS[name](clean, noise.double() * sigmas[0], sigmas, sigma_data)
    return require_finite(clean(x, sigmas[-1]).to(dtype), f"latents of the sampler {name!r}")


def _euler(clean: Denoise, x: Tensor, sigmas: list[float], sigma_data: float) -> Tensor:
    for sigma, lower in itertools.pairwise(sigmas):
        x = x + (lower - sigma) * (x - clean(x, sigma)) / sigma
    return x


def _heun(clean: Denoise, x: Tensor, sigmas: list[float], sigma_data: float) -> Tensor:
    for sigma, lower in itertools.pairwise(sigmas):
        slope = (x - clean(x, sigma)) / sigma
        ahead = x + (lower - sigma) * slope
        slope_ahead = (ahead - clean(ahead, lower)) / lower
        x = x + (lower - sigma) * 0.5 * (slope + slope_ahead)
    return x


def _res_2ab(clean: Denoise, x: Tensor, sigmas: list[float], sigma_data: float) -> Tensor:
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
    return x


def _dpm_2m(clean: Denoise, x: Tensor, sigmas: list[float], sigma_data: float) -> Tensor:
    """DPM-Solver++(2M): x0 carried on linearly in -ln sigma to the middle of the step, then held."""
    x0_before: Tensor | None = None
    h_before = 0.0
    for sigma, lower in itertools.pairwise(sigmas):
        x0 = clean(x, sigma)
        h = math.log(sigma / lower)
        middle = x0 if x0_before is None else x0 + (h / (2 * h_before)) * (x0 - x0_before)
        x = (lower / sigma) * x + (1 - lower / sigma) * middle
        x0_before, h_before = x0, h
    return x


def _flow(clean: Denoise, x: Tensor, sigmas: list[float], sigma_data: float, *, trapezoidal: bool) -> Tensor:
    """Steps of t along dy/dt = (y - x0) / t with y = (1 - t) x, the path from data to noise of deviation sigma_data."""
    times = [sigma / (sigma + sigma_data) for sigma in sigmas]
    y = (1 - times[0]) * x
    for (time, earlier), (sigma, lower) in zip(itertools.pairwise(times), itertools.pairwise(sigmas), strict=True):
        slope = (y - clean(y / (1 - time), sigma)) / time
        ahead = y + (earlier - time) * slope
        if trapezoidal:
            slope_ahead = (ahead - clean(ahead / (1 - earlier), lower)) / earlier
            ahead = y + (earlier - time) * 0.5 * (slope + slope_ahead)
        y = ahead
    return y / (1 - times[-1])


def _flow_euler(clean: Denoise, x: Tensor, sigmas: list[float], sigma_data: float) -> Tensor:
    return _flow(clean, x, sigmas, sigma_data, trapezoidal=False)


def _flow_heun(clean: Denoise, x: Tensor, sigmas: list[float], sigma_data: float) -> Tensor:
    return _flow(clean, x, sigmas, sigma_data, trapezoidal=True)


SAMPLERS: dict[str, Sampler] = {
    "euler": _euler,
    "heun": _heun,
    "res_2ab": _res_2ab,
    "dpm_2m": _dpm_2m,
    "flow_euler": _flow_euler,
    "flow_heun": _flow_heun,
}


def seeded_noise(shape: tuple[int, ...], seeds: list[int], *, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Unit Gaussian noise ``[len(seeds), *shape]``: row b depends on ``seeds[b]`` alone, never on the batch around it.

    Drawn on the CPU in float32, so that the same seed means the same noise on every device. Raises ConfigError for no seeds.
    """
    if not seeds:
        raise ConfigError("no seeds: give one for each sequence, and at least one sequence")
    rows = [torch.randn(shape, generator=seeded_generator(seed), dtype=torch.float32) for seed in seeds]
    return torch.stack(rows).to(device=device, dtype=dtype)
