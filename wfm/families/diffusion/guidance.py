"""Classifier-free guidance: both predictions in one batch, and the two conventions of its strength.

    standard (Ho and Salimans 2022)    x0 = uncond + s (cond - uncond)      s = 1: no guidance
    cosmos                             x0 = cond + g (cond - uncond)        g = 0: no guidance;  s = 1 + g

Given frames are the past in both predictions, so guidance leaves them alone.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wfm.errors import ConfigError
from wfm.generation.sampler_config import GuidanceConfig
from wfm.generation.samplers import Denoise
from wfm.models.diffusion.conditioning import Conditions
from wfm.models.diffusion.denoiser import Denoiser
from wfm.models.slots import SlotConfig


def guided(
    model: Denoiser,
    conditions: Conditions,
    like: Tensor,
    guidance: GuidanceConfig,
    *,
    negative: Mapping[str, Tensor] | None = None,
) -> Denoise:
    """The denoiser of a sampler for latents of the shape, dtype and device of ``like`` `[B, C, T, H, W]`.

    With guidance each call runs the network once on 2 B samples, the second half unconditional (``guidance.drop``; a
    ``negative`` prompt's tensors take the place of the empty text). What no noise level changes is computed here, once.

    Where nothing that is to be dropped is given, both predictions are one, which is computed once. Raises ConfigError for a
    negative prompt that would not be read.
    """
    scale = guidance.standard_scale
    slots = model.config.slots
    _require_reader(guidance, negative)
    _require_known(guidance, slots)
    if scale == 1 or (not negative and not drops(guidance, slots, conditions)):
        ready = model.prepare(conditions, like)
        return lambda x, sigma: model.denoise(x, sigma, ready)
    twin = conditions.without(slots, *guidance.drop, instead=negative)
    both = model.prepare(stacked(slots, conditions, twin, like.shape[0]), torch.cat([like, like]))

    def denoise(x: Tensor, sigma: Tensor | float) -> Tensor:
        if isinstance(sigma, Tensor) and (
            sigma.ndim == 2 or sigma.numel() > 1
        ):  # levels of each sample, for its twin too
            sigma = torch.cat([sigma, sigma])
        cond, uncond = model.denoise(torch.cat([x, x]), sigma, both).chunk(2)
        return torch.lerp(uncond, cond, scale)

    return denoise


def drops(guidance: GuidanceConfig, slots: Mapping[str, SlotConfig], conditions: Conditions) -> tuple[str, ...]:
    """What of the conditions the unconditional prediction is made without."""
    return tuple(name for name in guidance.drop if name in slots and slots[name].tensors[0] in conditions.tensors)


def _require_known(guidance: GuidanceConfig, slots: Mapping[str, SlotConfig]) -> None:
    unknown = [name for name in guidance.drop if name not in slots and name not in GuidanceConfig().drop]
    if unknown:
        raise ConfigError(f"guidance.drop: {unknown[0]!r}; this model's conditions: {', '.join(slots) or 'none'}")


def _require_reader(guidance: GuidanceConfig, negative: Mapping[str, Tensor] | None) -> None:
    if negative and ("text" not in guidance.drop or guidance.standard_scale == 1):
        raise ConfigError(
            f"negative_text needs guidance that drops the text: guidance.drop is {guidance.drop}, its scale {guidance.scale} "
            f"({guidance.convention})"
        )


def stacked(slots: Mapping[str, SlotConfig], first: Conditions, second: Conditions, batch: int) -> Conditions:
    """Conditions of 2 B samples from those of twice B."""
    found: dict[str, Any] = {}
    for one in fields(Conditions):
        a, b = getattr(first, one.name), getattr(second, one.name)
        if one.name not in ("tensors", "present"):
            found[one.name] = torch.cat([_rows(a, batch), _rows(b, batch)]) if isinstance(a, Tensor) and a.ndim else a
    tensors: dict[str, Tensor] = {}
    present: dict[str, Tensor] = {}
    for name, slot in slots.items():
        if slot.slot == "context":
            tensors |= _stacked_context(slot.tensors, first, second, batch)
        else:
            more, mask = _stacked(name, slot.tensors, first, second, batch)
            tensors |= more
            present |= mask
    return Conditions(**found, tensors=tensors, present=present)


def _rows(x: Tensor, batch: int) -> Tensor:
    """A tensor of one row for all as one of a row each."""
    return x.expand(batch, *x.shape[1:]) if x.shape[0] == 1 else x


def _stacked_context(names: tuple[str, ...], first: Conditions, second: Conditions, batch: int) -> dict[str, Tensor]:
    """A context of both, the shorter padded with zeros that no query sees; one that is absent or has no tokens is zeros of one
    token."""
    name, *more = names
    both = [one.tensors.get(name) for one in (first, second)]
    both = [None if tokens is None or not tokens.shape[1] else tokens for tokens in both]
    known = [tokens for tokens in both if tokens is not None]
    if not known:
        return {}
    texts, lengths = [], []
    for one, said in zip((first, second), both, strict=True):
        tokens = known[0].new_zeros(batch, 1, known[0].shape[-1]) if said is None else _rows(said, batch)
        given = one.tensors.get(more[0]) if more and said is not None else None
        texts.append(tokens)
        lengths.append(torch.full((batch,), tokens.shape[1]) if given is None else _rows(given, batch).cpu())
    longest = max(tokens.shape[1] for tokens in texts)
    found = {name: torch.cat([F.pad(tokens, (0, 0, 0, longest - tokens.shape[1])) for tokens in texts])}
    seen = torch.cat(lengths)
    return found if not more or bool((seen == longest).all()) else {**found, more[0]: seen}


def _stacked(
    name: str, names: tuple[str, ...], first: Conditions, second: Conditions, batch: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Tensors of both; where one has none its rows are marked absent."""
    some = next((one for one in (first, second) if names[0] in one.tensors), None)
    if some is None:
        return {}, {}
    like = {tensor: _rows(some.tensors[tensor], batch) for tensor in names if tensor in some.tensors}
    masks = []
    parts: dict[str, list[Tensor]] = {tensor: [] for tensor in like}
    for one in (first, second):
        for tensor, value in like.items():
            parts[tensor].append(
                _rows(one.tensors[tensor], batch) if tensor in one.tensors else torch.zeros_like(value)
            )
        mask = torch.full((batch,), names[0] in one.tensors, device=like[names[0]].device)
        masks.append(mask & one.present[name] if name in one.present else mask)
    return {tensor: torch.cat(both) for tensor, both in parts.items()}, {name: torch.cat(masks)}
