"""How futures are drawn. Torch-free: keys are computed from it."""

from typing import Literal

import pydantic

from wfm.config import Config


class SamplingConfig(Config):
    """Sampler of the diffusion family and decoding of the autoregressive family; each family reads its own half."""

    sampler: Literal["euler", "heun", "res_2ab"] = "heun"
    "Diffusion: integrator (see wfm.generation.samplers)."
    steps: int = pydantic.Field(8, ge=1)
    "Diffusion: noise levels from sigma_max to sigma_min; one more denoising ends the way."
    sigma_min: float = pydantic.Field(0.02, gt=0)
    "Diffusion: smallest noise level, in units of latents whose deviation is 0.5."
    sigma_max: float = pydantic.Field(80.0, gt=0)
    "Diffusion: noise level of the start; the one-step mean is the prediction from here."
    temperature: float = pydantic.Field(1.0, gt=0)
    "Autoregressive: softmax temperature of sampling."
    top_p: float = pydantic.Field(0.8, gt=0, le=1)
    "Autoregressive: sampling keeps the smallest set of choices with this probability."
    batch_size: int = pydantic.Field(16, ge=1)
    """Sequences that go through the network together. The last batch is filled up by repetition, so that every matrix
    product has the same shape and a sequence's result does not depend on how many others were asked for."""
