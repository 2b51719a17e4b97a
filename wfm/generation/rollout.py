"""One window of a future, in the space of each family: latents by diffusion, tokens by autoregression."""

from typing import Literal

import torch
from torch import Tensor

from wfm.errors import ConfigError
from wfm.generation.config import SamplingConfig
from wfm.generation.decoding import Choose, TopP, continue_tokens, expected, greedy
from wfm.generation.samplers import karras_sigmas, sample, seeded_noise
from wfm.models.autoregressive.network import AutoregressiveTransformer
from wfm.models.diffusion.network import DiffusionTransformer

Mode = Literal["sample", "mean", "greedy"]

MODES: dict[str, tuple[str, ...]] = {"diffusion": ("sample", "mean"), "autoregressive": ("sample", "greedy", "mean")}
"""What each family can be asked for: first a draw from its distribution, then its best single guesses."""


def require_mode(family: str, mode: str) -> None:
    """Raise ConfigError for a mode that the family does not have."""
    if mode not in MODES[family]:
        raise ConfigError(f"mode {mode!r}: the {family} family can do {', '.join(MODES[family])}")


@torch.no_grad()
def future_latents(
    model: DiffusionTransformer,
    past: Tensor,
    actions: Tensor | None,
    *,
    frames: int,
    seeds: list[int],
    mode: str,
    sampling: SamplingConfig,
    guess: Tensor | None = None,
) -> Tensor:
    """Continue ``past [B, C, p, h, w]`` (the tokenizer's units) to ``frames`` latent frames ``[B, C, frames, h, w]``.

    actions: normalised ``[B, T, A]`` or None; guess ``[B, C, frames, h, w]``: latents of the extrapolated past, for a
    model that is shown them. Mode "sample" integrates from noise; mode "mean" is the denoiser's
    prediction of the clean latents from pure noise at sigma_max. There the input holds next to nothing of the answer,
    so what minimises the squared error is the mean over all futures that fit the past and the actions: blurry, and the
    best single guess by PSNR.
    """
    require_mode("diffusion", mode)
    batch, channels, given, height, width = past.shape
    if model.config.extrapolate and guess is None:
        raise ConfigError("this model is shown the extrapolated past (extrapolate=True): give its latents as `guess`")
    condition = past.new_zeros(batch, channels, frames, height, width) if guess is None else model.normalise(guess)
    condition[:, :, :given] = model.normalise(past)
    noise = seeded_noise((channels, frames, height, width), seeds, device=past.device, dtype=past.dtype)

    def denoise(x: Tensor, sigma: float) -> Tensor:
        return model.denoise(x, sigma, condition=condition, given=given, actions=actions)

    steps = 1 if mode == "mean" else sampling.steps
    sigmas = karras_sigmas(steps, sigma_min=sampling.sigma_min, sigma_max=sampling.sigma_max)
    latents = model.denormalise(sample(sampling.sampler, denoise, noise, sigmas))
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
) -> Tensor:
    """Continue ``past`` int64 ``[B, p, h, w]`` to ``frames`` latent frames int64 ``[B, frames, h, w]``; actions as
    above.

    Mode "greedy" takes the most probable symbol everywhere, "sample" draws with temperature and top-p, "mean" takes
    the digit nearest to the expected one, which is this family's counterpart of the one-step mean; it needs a
    vocabulary of digits.
    """
    require_mode("autoregressive", mode)
    if mode == "mean" and model.config.vocabulary != "digits":
        raise ConfigError('mode "mean" needs vocabulary="digits": ids of a flat vocabulary are names, not quantities')
    choices: dict[str, Choose] = {"greedy": greedy, "mean": expected}
    choose = choices.get(mode) or TopP(seeds, temperature=sampling.temperature, top_p=sampling.top_p)
    return continue_tokens(model, past, actions, frames=frames, choose=choose, guess=guess)
