"""The EDM formulation (Karras et al. 2022, as in Cosmos section 5.1.1): preconditioning and the law of the noise.

State and noise level: x = x0 + sigma n. With d the deviation of what is unknown of the data (sigma_data where nothing
is known of it):

    D(x; sigma) = c_skip x + c_out F(c_in x; c_noise)
    c_skip = d^2 / (sigma^2 + d^2)    c_out = sigma d / sqrt(sigma^2 + d^2)    c_in = 1 / sqrt(sigma^2 + d^2)
    c_noise = ln(sigma) / 4           lambda = 1 / c_out^2                     ln sigma ~ N(mean, std^2)
"""

from typing import NamedTuple

import torch
from torch import Tensor

from wfm.models.diffusion.config import EDMConfig


class Scaling(NamedTuple):
    """The factors of a preconditioning, each like the noise level and the deviation broadcast together."""

    skip: Tensor
    out: Tensor
    inside: Tensor
    "c_in."


def scaling(sigma: Tensor, deviation: Tensor | float) -> Scaling:
    """EDM's factors at noise level `sigma` for data of this deviation."""
    square = torch.as_tensor(deviation, dtype=sigma.dtype, device=sigma.device).square()
    total = sigma.square() + square
    inside = total.rsqrt()
    return Scaling(square / total, sigma * square.sqrt() * inside, inside)


def noise_feature(sigma: Tensor) -> Tensor:
    """c_noise: what the network is told of the noise level, like `sigma`."""
    return sigma.log() / 4


def draw_sigma(config: EDMConfig, normal: Tensor, frames: int) -> Tensor:
    """Noise levels from unit normal numbers, like `normal`. `frames`: latent frames of the sample, for
    `adjust_video_noise`."""
    sigma = torch.exp(config.noise_mean + config.noise_std * normal)
    if config.adjust_video_noise and frames > 1:
        sigma = sigma * frames**0.5
    return sigma.clamp(max=config.sigma_max)
