"""How futures are drawn from a denoiser: by a sampler from noise, or the one-step mean."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from wfm.data.seeds import mix
from wfm.families.diffusion.guidance import guided
from wfm.generation.sampler_config import TWICE, GuidanceConfig, SamplerConfig
from wfm.generation.samplers import noise_levels, sample, seeded_noise
from wfm.models.diffusion.conditioning import Conditions
from wfm.models.diffusion.denoiser import Denoiser
from wfm.models.family import Ask, Drawing
from wfm.models.fast_cpu import packed_weights


@torch.no_grad()
def draw_latents(
    model: Denoiser,
    conditions: Conditions,
    shape: tuple[int, int, int, int],
    *,
    seeds: list[int],
    mode: str,
    sampling: SamplerConfig,
    negative: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """Latents ``[B, C, T, H, W]`` (the tokenizer's units), one sequence a seed, of ``shape`` (C, T, H, W).

    Mode "sample" integrates from noise, with the configured guidance; mode "mean" is the denoiser's prediction of the
    clean latents from pure noise at sigma_max. There the input holds next to nothing of the answer, so what minimises
    the squared error is the mean over all futures that fit the conditions: blurry, and the best single guess by PSNR.
    It is drawn without guidance, which would lead away from the mean.
    """
    weight = next(model.network.parameters())
    noise = seeded_noise(shape, seeds, device=weight.device, dtype=torch.promote_types(weight.dtype, torch.float32))
    if sampling.augment_sigma and "past" in conditions.tensors:
        drawn = seeded_noise(shape, [mix(seed, "augment") for seed in seeds], device=noise.device, dtype=noise.dtype)
        conditions = replace(conditions, augment_sigma=sampling.augment_sigma, augment_noise=drawn, release_given=True)
    guidance = sampling.guidance if mode == "sample" else GuidanceConfig()
    denoise = guided(model, conditions, noise, guidance, negative=negative)
    scale = model.config.sigma_data
    sigmas = noise_levels(sampling, steps=1 if mode == "mean" else None, sigma_data=scale)
    with packed_weights(model.network) if len(sigmas) > 1 else nullcontext():
        clean = sample(sampling.sampler, denoise, noise, sigmas, sigma_data=scale)
    return model.denormalise(clean)


@torch.no_grad()
def future_latents(
    model: Denoiser,
    tensors: Mapping[str, Tensor],
    *,
    frames: int,
    seeds: list[int],
    mode: str,
    sampling: SamplerConfig,
    negative: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """Continue a past to ``frames`` latent frames ``[B, C, frames, h, w]`` (the tokenizer's units).

    tensors: of the model's conditions, by name, ``[B, ...]`` each, ``past [B, C, p, h, w]`` among them; negative: tensors of a
    negative prompt. Modes: see `draw_latents`.
    """
    past = tensors["past"]
    _, channels, given, height, width = past.shape
    latents = draw_latents(
        model,
        Conditions(tensors),
        (channels, frames, height, width),
        seeds=seeds,
        mode=mode,
        sampling=sampling,
        negative=negative,
    )
    latents[:, :, :given] = past
    return latents


class DiffusionDrawing(Drawing):
    """Of a `Denoiser`."""

    def draw(self, model: Denoiser, ask: Ask) -> Tensor:
        """Latents of the window, with guidance where the sampling asks for it."""
        return future_latents(
            model, ask.tensors, frames=ask.frames, seeds=ask.seeds, mode=ask.mode, sampling=ask.sampling,
            negative=ask.negative,
        )  # fmt: skip

    def watched(self, model: Denoiser) -> nn.Module:
        """The transformer."""
        return model.network

    def passes(self, model: Any, sampling: SamplerConfig, mode: str, grid: tuple[int, int, int]) -> int:
        """One a noise level, and one more between two for samplers that ask twice."""
        steps = 1 if mode == "mean" else sampling.steps
        return 2 * steps - 1 if sampling.sampler in TWICE else steps


DRAWING = DiffusionDrawing()
