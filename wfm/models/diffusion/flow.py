"""Rectified flow (Liu et al. 2022) over the same network: velocity target, shifted logit-normal times.

The path is y_t = (1 - t) x0 + t sd n from data (t = 0) to noise (t = 1), sd = sigma_data; its velocity sd n - x0 is what
the network predicts (in units of sd). Samplers and the rest of the package speak of x = x0 + sigma n, which is the same
point: x = y / (1 - t), sigma = sd t / (1 - t), t = sigma / (sigma + sd). Written so, predicting the velocity is a
preconditioning like EDM's, with the sum of the deviations where EDM has the root of the sum of squares:

    D(x; sigma) = c_skip x + c_out F(c_in x; c_noise)
    c_skip = d / (sigma + d)    c_out = -sigma d / (sigma + d)    c_in = 1 / (sigma + d)    c_noise = t

and the squared error of the velocity is that of D times 1 / c_out^2. d is the deviation of what is unknown of the data
(sd where nothing is known of it).
"""

import torch
from torch import Tensor

from wfm.models.diffusion.config import FlowConfig
from wfm.models.diffusion.edm import Scaling


def scaling(sigma: Tensor, deviation: Tensor | float) -> Scaling:
    """The flow's factors at noise level `sigma` for data of this deviation."""
    deviation = torch.as_tensor(deviation, dtype=sigma.dtype, device=sigma.device)
    inside = 1 / (sigma + deviation)
    return Scaling(deviation * inside, -sigma * deviation * inside, inside)


def time_of(sigma: Tensor, sigma_data: float) -> Tensor:
    """t of a noise level; this is the flow's c_noise."""
    return sigma / (sigma + sigma_data)


def sigma_of(time: Tensor, sigma_data: float) -> Tensor:
    """The noise level of t < 1."""
    return sigma_data * time / (1 - time)


def shifted(time: Tensor, shift: float) -> Tensor:
    """Times moved towards noise by `shift` > 1 (Esser et al. 2024, eq. 23): larger pictures need more of it."""
    return shift * time / (1 + (shift - 1) * time)


def velocity(state: Tensor, clean: Tensor, time: Tensor | float) -> Tensor:
    """sd n - x0 at the point y_t = `state` when `clean` is the expected data there: (y_t - clean) / t."""
    return (state - clean) / time


def draw_sigma(config: FlowConfig, normal: Tensor, sigma_data: float) -> Tensor:
    """Noise levels from unit normal numbers, like `normal`: t = shifted(sigmoid(mean + std * normal))."""
    time = shifted(torch.sigmoid(config.time_mean + config.time_std * normal), config.shift)
    return sigma_of(time, sigma_data).clamp(max=config.sigma_max)
