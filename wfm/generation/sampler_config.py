"""How a denoiser is sampled. Torch-free: keys are computed from it."""

from typing import Literal, Self

import pydantic

from wfm.config import Config
from wfm.generation.config import SamplingConfig


class GuidanceConfig(Config):
    """Classifier-free guidance (Ho and Salimans 2022): the prediction is moved away from the unconditional one."""

    scale: float = pydantic.Field(1.0, ge=0)
    "Strength, in the convention below."
    convention: Literal["standard", "cosmos"] = "standard"
    """standard: uncond + scale (cond - uncond), 1 is none; cosmos: cond + scale (cond - uncond), 0 is none. Cosmos's
    published 7 is 8 in the standard convention."""
    drop: tuple[str, ...] = pydantic.Field(("text", "action"), min_length=1)
    "Conditions that the unconditional prediction is made without, of those that the model has. It keeps the given frames."

    @property
    def standard_scale(self) -> float:
        """The strength in the standard convention."""
        return self.scale + (self.convention == "cosmos")


TWICE = ("heun", "flow_heun")
"""Samplers that ask the network twice a step."""


class SamplerConfig(SamplingConfig):
    """A sampler of `wfm.generation.samplers` and its noise levels."""

    sampler: Literal["euler", "heun", "res_2ab", "dpm_2m", "flow_euler", "flow_heun"] = "heun"
    "Integrator (see wfm.generation.samplers)."
    steps: int = pydantic.Field(8, ge=1)
    "Noise levels, from sigma_max to the smallest, where a denoising ends the way (Cosmos's 35 steps have 36)."
    sigma_min: float = pydantic.Field(0.02, gt=0)
    "Smallest noise level, in units of latents whose deviation is 0.5; flow samplers set their own."
    sigma_max: float = pydantic.Field(80.0, gt=0)
    "Noise level of the start; the one-step mean is the prediction from here."
    shift: float = pydantic.Field(1.0, gt=0)
    "Flow samplers: how far the even times between noise and data are moved towards noise; 1: not at all."
    guidance: GuidanceConfig = GuidanceConfig()
    "Guidance by text and actions; none by default."
    augment_sigma: float = pydantic.Field(0.0, ge=0)
    """Noise put on the given frames (Cosmos: 0.001); once the noise level has come down to it they are
    denoised along with the others."""

    @pydantic.model_validator(mode="after")
    def _levels_fall(self) -> Self:
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"sigma_min is {self.sigma_min:g}; it must lie below sigma_max, {self.sigma_max:g}")
        return self
