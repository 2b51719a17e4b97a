"""How futures are drawn: frame after frame, the mean, or a draw by the shared sampler from the error's exact denoiser."""

from functools import partial

import torch
from torch import Tensor

from wfm.data.seeds import mix
from wfm.generation.samplers import noise_levels, sample, seeded_noise
from wfm.models.family import Ask, Drawing
from wfm_toy_linear.network import LinearPredictor


class LinearDrawing(Drawing):
    """Of a `LinearPredictor`."""

    @torch.no_grad()
    def draw(self, model: LinearPredictor, ask: Ask) -> Tensor:
        """Latents of the window."""
        window, given = ask.past, ask.past.shape[2]
        whole = window.new_zeros(*window.shape[:2], ask.frames, *window.shape[3:])
        told = model.vectors(ask.tensors, {}, whole)
        spread = model.log_deviation.exp().square()[:, None, None, None]
        for frame in range(given, ask.frames):
            mean = model(torch.cat([window, window[:, :, -1:]], 2), told[:, : frame + 1])[:, :, -1:]
            if ask.mode == "sample":
                seeds = [mix(seed, frame) for seed in ask.seeds]
                noise = seeded_noise(mean.shape[1:], seeds, device=mean.device, dtype=mean.dtype)
                levels = noise_levels(ask.sampling)
                mean = sample(ask.sampling.sampler, partial(_denoise, mean, spread), noise, levels)
            window = torch.cat([window, mean], 2)
        return window


def _denoise(mean: Tensor, variance: Tensor, x: Tensor, sigma: float) -> Tensor:
    """What is expected of a normal variable, of which `x` is a look with noise of deviation `sigma`."""
    return (variance * x + sigma**2 * mean) / (variance + sigma**2)


DRAWING = LinearDrawing()
