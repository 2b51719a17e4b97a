"""The training objective of both formulations: the weighted error of the denoised latents, on frames that are not given.

    loss = E[ exp(-u(sigma)) lambda(sigma) |D(x0 + sigma n; sigma) - x0|^2 + u(sigma) ],   lambda = 1 / c_out^2

With EDM that is Cosmos's loss (section 5.1.1); with rectified flow it is the squared error of the velocity. u is learned
beside the network where the model has it (`uncertainty`): the loss may then fall below zero, which is no fault. Each
sample counts alike however many of its frames are given (Cosmos averages over given frames too, which counts a sample
less the more of it is given).

All randomness of a sample (its noise level, noise, augmentation, number of given frames, dropout) comes from the
sample's own seed, so it is the same on any rank, in any batch, before and after a kill.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from wfm.data.loader.grouped import GroupedBatch, batches_of
from wfm.errors import ConfigError
from wfm.models.binned import by_kind, by_level
from wfm.models.diffusion import edm, flow
from wfm.models.diffusion.conditioning import Conditions, given_mask
from wfm.models.diffusion.config import EDMConfig, FlowConfig
from wfm.models.diffusion.denoiser import Denoiser, Prepared, spread
from wfm.models.diffusion.pack import PackLimits
from wfm.models.loss import Mean, Summed, joined
from wfm.models.presence import kept, present_of, tensors_of
from wfm.models.seeding import seeded_generator

AnyBatch = Mapping[str, Tensor] | GroupedBatch
TERM = "denoising"
"""The one term of the loss."""
OWN_DRAWS = ("action", "text")
"""Conditions whose dropout is drawn with everything else of a sample, as it was before there were others, each of which has a
generator of its own: so one more changes no draw."""


def drop_names(model: Denoiser) -> list[str]:
    """The conditions that training drops in a share of the samples."""
    return [name for name, slot in model.config.slots.items() if name in OWN_DRAWS or slot.dropout]


class _Begun(NamedTuple):
    """Samples of one shape before the network."""

    clean: Tensor
    sigma: Tensor
    draw: Mapping[str, Tensor]
    ready: Prepared


class _Errors(NamedTuple):
    """Of samples of one shape."""

    sums: dict[str, Tensor]
    "Of the loss, and of what is measured, over samples."
    apart: dict[str, Mean]
    "The loss by noise level (without u: it is the error that levels are compared by), and by kind of sample."


class DenoisingObjective(Summed):
    """Loss of a `Denoiser`, over samples of one shape or packs of any. Batch: latents `[B, C, T, H, W]` in the tokenizer's
    units, seeds int64 `[B]`, the tensors of the model's conditions that there are, and `has_<tensor>` bool `[B]` of those that
    not all samples have; fps `[B]` for a model that reads it (`fps_positions`), padding_mask `[B, 1, h, w]`. Of packs: such a
    batch for each shape (`wfm.data.loader.grouped`)."""

    def __init__(self, config: EDMConfig | FlowConfig, limits: PackLimits | None = None) -> None:
        """limits: what each pack is padded to, for a compiled network, packs one by one; None: all that there are go through
        the network at once, as long as they are."""
        self.config, self.limits = config, limits

    def counts(self, model: Denoiser, batch: AnyBatch, step: int) -> dict[str, float]:
        """Samples: each counts alike."""
        return {TERM: float(sum(len(one["seeds"]) for one in batches_of(batch)))}

    def sums(self, model: Denoiser, batch: AnyBatch, step: int) -> tuple[dict[str, Tensor], dict[str, Mean]]:
        """The loss of every sample, summed up, and `mse`: the plain squared error in normalised units; `weighted` without u
        where there is u."""
        self._require(model)
        limited = isinstance(batch, GroupedBatch) and self.limits is not None
        packs = batch.split() if limited and isinstance(batch, GroupedBatch) else (batch,)
        parts = [part for pack in packs for part in self._parts(model, pack, self.limits if limited else None)]
        sums = {name: _total([part.sums[name] for part in parts]) for name in parts[0].sums}
        count = self.counts(model, batch, step)[TERM]
        values = {name: Mean(total.detach(), count) for name, total in sums.items() if name != TERM}
        for part in parts:
            values = joined(values, part.apart)
        return {TERM: sums[TERM]}, values

    def _parts(self, model: Denoiser, batch: AnyBatch, limits: PackLimits | None) -> "list[_Errors]":
        """`_errors` of what goes through the network at once, by shape."""
        groups = [self._begun(model, one) for one in batches_of(batch)]
        noisy = [one.clean + spread(one.sigma) * one.draw["noise"].to(one.clean) for one in groups]
        found = model.denoise_pack(noisy, [one.sigma for one in groups], [one.ready for one in groups], limits)
        return [self._errors(model, one, denoised) for one, denoised in zip(groups, found, strict=True)]

    def _begun(self, model: Denoiser, batch: Mapping[str, Tensor]) -> "_Begun":
        clean = self.clean(model, batch)
        draw = {name: value.to(clean.device) for name, value in self.draw(model, batch["seeds"], clean.shape).items()}
        return _Begun(clean, draw["sigma"].to(clean), draw, self.prepared(model, batch, clean, draw))

    def _errors(self, model: Denoiser, begun: "_Begun", denoised: Tensor) -> "_Errors":
        """Of samples of one shape: the loss and what is measured."""
        clean, sigma, draw, ready = begun
        wanted = ~given_mask(draw["given"], clean.shape[2])[:, 0, :, 0, 0]  # [B, T]
        count = wanted.sum(1)  # [B], at least 1
        error = (denoised - clean).square()
        plain = error.detach().mean(dim=(1, 3, 4))  # [B, T]
        weight = model.scaling(spread(sigma), ready.deviation).out.square().reciprocal()
        each = (error * (weight * self.emphasis(model, ready, clean))).mean(dim=(1, 3, 4))  # [B, T]
        values = {"mse": ((plain * wanted).sum(1) / count).sum()}
        level = sigma if sigma.ndim == 1 else torch.where(wanted, sigma, math.nan)
        told = ((each.detach() * wanted).sum(1) / count) if sigma.ndim == 1 else each.detach()
        apart = by_level("loss", self.config.loss_scale * told, level / model.config.sigma_data)
        u = model.uncertainty(sigma)
        if u is not None:
            values["weighted"] = ((each.detach() * wanted).sum(1) / count).sum()
            u = u if u.ndim == 2 else u[:, None]
            each = each * torch.exp(-u) + u
        of_samples = self.config.loss_scale * ((each * wanted).sum(1) / count)
        apart |= by_kind("loss", of_samples, clean.shape[2])
        return _Errors({TERM: of_samples.sum(), **values}, apart)

    def clean(self, model: Denoiser, batch: Mapping[str, Tensor]) -> Tensor:
        """What is to be found, `[B, C, T, H, W]` in normalised units."""
        return model.normalise(batch["latents"])

    def prepared(
        self, model: Denoiser, batch: Mapping[str, Tensor], clean: Tensor, draw: Mapping[str, Tensor]
    ) -> Prepared:
        """What the model is told of a batch, worked out."""
        return model.prepare(self.conditions(model, batch, clean, draw), clean, packed=True)

    def deviations(self, model: Denoiser, frames: int) -> Tensor:
        """Deviation `[C, T]` of the latents in the tokenizer's units."""
        return model.statistics.of(frames)[1]

    def conditions(
        self, model: Denoiser, batch: Mapping[str, Tensor], clean: Tensor, draw: Mapping[str, Tensor]
    ) -> Conditions:
        """The conditions of a batch, with everything dropped that the draw says."""
        slots = model.config.slots
        takes_past = "past" in slots
        given = {"past": batch["latents"], "given": draw["given"]} if takes_past else {}
        return Conditions(
            tensors=tensors_of(slots, batch) | given,
            present=present_of(slots, batch, {name: draw[f"keep_{name}"] for name in drop_names(model)}),
            fps=batch.get("fps") if model.config.fps_positions else None,
            padding_mask=batch.get("padding_mask"),
            augment_sigma=draw["augment"].to(clean) if takes_past else 0.0,
            augment_noise=draw["augment_noise"].to(clean) if takes_past else None,
        )

    def emphasis(self, model: Denoiser, ready: Prepared, clean: Tensor) -> Tensor:
        """Weight of each element, `[B, C, T, 1, 1]` and 1 on average: its deviation in the tokenizer's units to the
        power `2 * pixel_share`. At 0 all channels count alike, at 1 as much as they count in pixels (a linear
        tokenizer's latents keep squared distances)."""
        if not self.config.pixel_share:
            return clean.new_ones(())
        deviation = ready.deviation * self.deviations(model, clean.shape[2])[None, :, :, None, None]
        weight = deviation ** (2 * self.config.pixel_share)
        return weight / weight.mean(dim=(1, 2), keepdim=True)

    def draw(self, model: Denoiser, seeds: Tensor, shape: torch.Size) -> dict[str, Tensor]:
        """Everything random of each sample, from its seed alone. sigma `[B]` or `[B, T]`; given, augment, and
        keep_<condition> (false: dropped) `[B]`; noise, augment_noise `[B, C, T, H, W]`; shape is that of the batch or of one
        sample."""
        if not len(seeds):
            raise ConfigError("a batch of no samples: there is nothing to learn from")
        rows = [self._draw_one(model, int(seed), shape[-4:]) for seed in seeds]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def _draw_one(self, model: Denoiser, seed: int, shape: torch.Size) -> dict[str, Any]:
        config, frames = self.config, shape[1]
        generator = seeded_generator(seed)
        uniform = torch.rand(4, generator=generator)
        normal = torch.randn(1 + (frames if config.per_frame else 1), generator=generator)
        levels = normal[1:] if config.per_frame else normal[1]
        if isinstance(config, EDMConfig):
            sigma = edm.draw_sigma(config, levels, frames)
        else:
            sigma = flow.draw_sigma(config, levels, model.config.sigma_data)
        if uniform[0] < config.pure_noise_probability:
            sigma = torch.full_like(sigma, config.sigma_max)
        choices = config.condition_latents
        count = choices[min(int(uniform[1] * len(choices)), len(choices) - 1)]
        return {
            "sigma": sigma,
            "given": torch.tensor(
                min(count, frames - 1)
            ),  # of an image nothing is given: one frame is left to learn from
            "keep_action": uniform[2] >= config.action_dropout,
            "keep_text": uniform[3] >= config.text_dropout,
            **{
                f"keep_{name}": kept(seed, name, slot.dropout)
                for name, slot in model.config.conditions.items()
                if slot.dropout
            },
            "augment": math.exp(config.augment_mean) * torch.exp(config.augment_std * normal[0]),
            "noise": torch.randn(shape, generator=generator),
            "augment_noise": torch.randn(shape, generator=generator),
        }

    def _require(self, model: Denoiser) -> None:
        wanted = "edm" if isinstance(self.config, EDMConfig) else "flow"
        if model.config.objective != wanted:
            raise ConfigError(
                f"the model's objective is {model.config.objective!r} and {type(self.config).__name__} trains {wanted!r}: "
                "use the other configuration"
            )
        if max(self.config.condition_latents) and not model.config.network.condition_mask:
            raise ConfigError(
                f"condition_latents is {self.config.condition_latents} and the model takes no past: set "
                "network.condition_mask, or condition_latents to (0,)"
            )


def _total(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.stack(list(parts)).sum()
