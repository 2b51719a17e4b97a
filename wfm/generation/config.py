"""How futures are drawn. Torch-free: keys are computed from it."""

from typing import Literal

import pydantic

from wfm.config import Config


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


class SamplingConfig(Config):
    """Sampler of the diffusion family and decoding of the autoregressive family; each family reads its own half."""

    sampler: Literal["euler", "heun", "res_2ab", "dpm_2m", "flow_euler", "flow_heun"] = "heun"
    "Diffusion: integrator (see wfm.generation.samplers)."
    steps: int = pydantic.Field(8, ge=1)
    "Diffusion: noise levels, from sigma_max to the smallest, where a denoising ends the way (Cosmos's 35 steps have 36)."
    sigma_min: float = pydantic.Field(0.02, gt=0)
    "Diffusion: smallest noise level, in units of latents whose deviation is 0.5; flow samplers set their own."
    sigma_max: float = pydantic.Field(80.0, gt=0)
    "Diffusion: noise level of the start; the one-step mean is the prediction from here."
    shift: float = pydantic.Field(1.0, gt=0)
    "Diffusion, flow samplers: how far the even times between noise and data are moved towards noise; 1: not at all."
    guidance: GuidanceConfig = GuidanceConfig()
    "Diffusion: guidance by text and actions; none by default."
    augment_sigma: float = pydantic.Field(0.0, ge=0)
    """Diffusion: noise put on the given frames (Cosmos: 0.001); once the noise level has come down to it they are
    denoised along with the others."""
    temperature: float = pydantic.Field(1.0, gt=0)
    "Autoregressive: softmax temperature of sampling."
    top_p: float = pydantic.Field(0.8, gt=0, le=1)
    "Autoregressive: sampling keeps the smallest set of choices with this probability."
    batch_size: int = pydantic.Field(16, ge=1)
    """Sequences that go through the network together. The last batch is filled up by repetition, so that every matrix
    product has the same shape and a sequence's result does not depend on how many others were asked for."""
