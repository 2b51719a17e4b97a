"""One window of a future, in the space of each family: latents by diffusion, tokens by autoregression."""

from contextlib import nullcontext
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from wfm.data.seeds import mix
from wfm.errors import ConfigError
from wfm.generation.config import GuidanceConfig, SamplingConfig
from wfm.generation.decoding import Choose, TopP, continue_tokens, expected, greedy
from wfm.generation.guidance import guided
from wfm.generation.medusa import continue_with_drafts
from wfm.generation.samplers import noise_levels, sample, seeded_noise
from wfm.models.autoregressive.network import AutoregressiveTransformer
from wfm.models.diffusion.conditioning import Conditions
from wfm.models.diffusion.denoiser import Denoiser
from wfm.models.fast_cpu import packed_weights

Mode = Literal["sample", "mean", "greedy"]

MODES: dict[str, tuple[str, ...]] = {"diffusion": ("sample", "mean"), "autoregressive": ("sample", "greedy", "mean")}
"""What each family can be asked for: first a draw from its distribution, then its best single guesses."""


def require_mode(family: str, mode: str) -> None:
    """Raise ConfigError for a mode that the family does not have."""
    if mode not in MODES[family]:
        raise ConfigError(f"mode {mode!r}: the {family} family can do {', '.join(MODES[family])}")


@torch.no_grad()
def draw_latents(
    model: Denoiser,
    conditions: Conditions,
    shape: tuple[int, int, int, int],
    *,
    seeds: list[int],
    mode: str,
    sampling: SamplingConfig,
    negative_text: Tensor | None = None,
    negative_lengths: Tensor | None = None,
) -> Tensor:
    """Latents ``[B, C, T, H, W]`` (the tokenizer's units), one sequence a seed, of ``shape`` (C, T, H, W).

    Mode "sample" integrates from noise, with the configured guidance; mode "mean" is the denoiser's prediction of the
    clean latents from pure noise at sigma_max. There the input holds next to nothing of the answer, so what minimises
    the squared error is the mean over all futures that fit the conditions: blurry, and the best single guess by PSNR.
    It is drawn without guidance, which would lead away from the mean.
    """
    require_mode("diffusion", mode)
    weight = next(model.network.parameters())
    noise = seeded_noise(shape, seeds, device=weight.device, dtype=torch.promote_types(weight.dtype, torch.float32))
    if sampling.augment_sigma and conditions.past is not None:
        drawn = seeded_noise(shape, [mix(seed, "augment") for seed in seeds], device=noise.device, dtype=noise.dtype)
        conditions = replace(conditions, augment_sigma=sampling.augment_sigma, augment_noise=drawn, release_given=True)
    guidance = sampling.guidance if mode == "sample" else GuidanceConfig()
    denoise = guided(model, conditions, noise, guidance, negative_text=negative_text, negative_lengths=negative_lengths)
    scale = model.config.sigma_data
    sigmas = noise_levels(sampling, steps=1 if mode == "mean" else None, sigma_data=scale)
    with packed_weights(model.network) if len(sigmas) > 1 else nullcontext():
        clean = sample(sampling.sampler, denoise, noise, sigmas, sigma_data=scale)
    return model.denormalise(clean)


@torch.no_grad()
def future_latents(
    model: Denoiser,
    past: Tensor,
    actions: Tensor | None,
    *,
    frames: int,
    seeds: list[int],
    mode: str,
    sampling: SamplingConfig,
    guess: Tensor | None = None,
    text: Tensor | None = None,
    text_lengths: Tensor | None = None,
    negative_text: Tensor | None = None,
    negative_lengths: Tensor | None = None,
) -> Tensor:
    """Continue ``past [B, C, p, h, w]`` (the tokenizer's units) to ``frames`` latent frames ``[B, C, frames, h, w]``.

    actions: normalised ``[B, T, A]`` or None; guess ``[B, C, frames, h, w]``: latents of the extrapolated past, for a
    model that is shown them; text embeddings ``[B, L, D]`` with their lengths, or None; a negative prompt likewise,
    ``[1, L, D]``. Modes: see `draw_latents`.
    """
    batch, channels, given, height, width = past.shape
    if model.config.extrapolate and guess is None:
        raise ConfigError("this model is shown the extrapolated past (extrapolate=True): give its latents as `guess`")
    shown = past.new_zeros(batch, channels, frames, height, width) if guess is None else model.normalise(guess)
    shown[:, :, :given] = model.normalise(past, video=frames > 1)
    conditions = Conditions(past=shown, given=given, actions=actions, text=text, text_lengths=text_lengths)
    shape = (channels, frames, height, width)
    latents = draw_latents(
        model,
        conditions,
        shape,
        seeds=seeds,
        mode=mode,
        sampling=sampling,
        negative_text=negative_text,
        negative_lengths=negative_lengths,
    )
    latents[:, :, :given] = past
    return latents


@torch.no_grad()
def future_tokens(
    model: AutoregressiveTransformer,
    past: Tensor,
    actions: Tensor | None,
    *,
    frames: int,
    seeds: list[int],
    mode: str,
    sampling: SamplingConfig,
    guess: Tensor | None = None,
    text: Tensor | None = None,
    text_lengths: Tensor | None = None,
) -> Tensor:
    """Continue ``past`` int64 ``[B, p, h, w]`` to ``frames`` latent frames int64 ``[B, frames, h, w]``; actions as
    above.

    Mode "greedy" takes the most probable symbol everywhere (with the model's Medusa heads, where it has any), "sample"
    draws with temperature and top-p, "mean" takes
    the digit nearest to the expected one, which is this family's counterpart of the one-step mean; it needs a
    vocabulary of digits.
    """
    require_mode("autoregressive", mode)
    if mode == "mean" and model.config.vocabulary != "digits":
        raise ConfigError('mode "mean" needs vocabulary="digits": ids of a flat vocabulary are names, not quantities')
    how = {"frames": frames, "guess": guess, "text": text, "text_lengths": text_lengths}
    if mode == "greedy" and model.medusa is not None:
        return continue_with_drafts(model, past, actions, **how).tokens  # type: ignore[arg-type]
    choices: dict[str, Choose] = {"greedy": greedy, "mean": expected}
    choose = choices.get(mode) or TopP(seeds, temperature=sampling.temperature, top_p=sampling.top_p)
    return continue_tokens(model, past, actions, choose=choose, **how)  # type: ignore[arg-type]
