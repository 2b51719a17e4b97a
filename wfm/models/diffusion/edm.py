"""The EDM training objective: the weighted error of the denoised latents, on the frames that are not given.

    loss = E[ lambda(sigma) |D(x + sigma n; sigma) - x|^2 ],   lambda = (sigma^2 + sd^2) / (sigma sd)^2,   ln sigma ~
    N(mean, std^2)

A share of the samples is trained at sigma_max itself, because the one-step mean is predicted from there. All
randomness of a sample (its sigma, noise, augmentation, number of given frames, action dropout) comes from the
sample's own seed, so it is the same on any rank, in any batch, before and after a kill.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wfm.models.diffusion.config import EDMConfig
from wfm.models.diffusion.network import DiffusionTransformer, given_mask


def shown_to(model: DiffusionTransformer, batch: Mapping[str, Tensor], clean: Tensor, given: Tensor) -> Tensor:
    """What a model is conditioned on `[B, C, t, H, W]`: the clean latents, and where they are not given the batch's
    `guess` (tokenizer's units) if the model is shown one."""
    if not model.config.extrapolate:
        return clean
    return torch.where(given_mask(given, clean.shape[2]), clean, model.normalise(batch["guess"]))


class EDMObjective:
    """Loss of a `DiffusionTransformer`. Batch: latents `[B, C, t, H, W]` in the tokenizer's units, seeds int64
    `[B]`, actions `[B, T, A]` normalised (absent without actions)."""

    def __init__(self, config: EDMConfig) -> None:
        self.config = config

    def loss(
        self, model: DiffusionTransformer, batch: Mapping[str, Tensor], step: int
    ) -> tuple[Tensor, dict[str, float]]:
        clean = model.normalise(batch["latents"])
        draw = self.draw(batch["seeds"], clean.shape[1:])
        sigma, given = draw["sigma"].to(clean), draw["given"].to(clean.device)
        s = sigma[:, None, None, None, None]
        known = draw["known"].to(clean.device)
        condition = shown_to(model, batch, clean, given)
        if "has_actions" in batch:  # a data set may mix video with and without actions
            known = known & batch["has_actions"]
        denoised = model.denoise(
            clean + s * draw["noise"].to(clean),
            sigma,
            condition=condition,
            given=given,
            actions=batch.get("actions"),
            known=known,
            augment=draw["augment"].to(clean),
        )
        _, data = model.prior(condition, given)
        weight = (s.square() + data.square()) / (s * data).square() * self.emphasis(model, data)
        wanted = ~given_mask(given, clean.shape[2])  # [B, 1, t, 1, 1]
        error = (denoised - clean).square() * wanted
        share = wanted.float().mean(dim=(1, 2, 3, 4)).clamp(min=1e-6)  # all given: no loss, not 0 / 0
        each = (error * weight).mean(dim=(1, 2, 3, 4)) / share  # [B]
        plain = error.detach().mean(dim=(1, 2, 3, 4)) / share
        return each.mean(), {"mse": float(plain.mean())}

    def emphasis(self, model: DiffusionTransformer, data: Tensor) -> Tensor:
        """Weight of each element `[B, C, t, 1, 1]`, 1 on average: its deviation in the tokenizer's units to the power
        `2 * pixel_share`. At 0 all channels count alike, at 1 as much as they count in pixels (a linear tokenizer's
        latents keep squared distances)."""
        if not self.config.pixel_share:
            return torch.ones_like(data)
        column = [0] + [1] * (data.shape[2] - 1)
        deviation = data * model.latents_std[:, column][None, :, :, None, None]
        weight = deviation ** (2 * self.config.pixel_share)
        return weight / weight.mean(dim=(1, 2), keepdim=True)

    def draw(self, seeds: Tensor, shape: torch.Size) -> dict[str, Tensor]:
        """Everything random of each sample, from its seed alone: sigma, given, known `[B]`, noise, augment `[B, C,
        t, H, W]`."""
        rows = [self._draw_one(int(seed), shape) for seed in seeds]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def _draw_one(self, seed: int, shape: torch.Size) -> dict[str, Any]:
        config = self.config
        generator = torch.Generator().manual_seed(seed)
        uniform = torch.rand(3, generator=generator)
        normal = torch.randn(2, generator=generator)
        sigma = torch.exp(config.noise_mean + config.noise_std * normal[0]).clamp(max=config.sigma_max)
        if uniform[0] < config.pure_noise_probability:
            sigma = torch.tensor(config.sigma_max)
        choices = config.condition_latents
        given = choices[min(int(uniform[1] * len(choices)), len(choices) - 1)]
        spread = math.exp(config.augment_mean) * torch.exp(config.augment_std * normal[1])
        return {
            "sigma": sigma,
            "given": torch.tensor(given),
            "known": uniform[2] >= config.action_dropout,
            "noise": torch.randn(shape, generator=generator),
            "augment": spread * torch.randn(shape, generator=generator),
        }
