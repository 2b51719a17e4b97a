"""Classifier-free guidance: both predictions in one batch, and the two conventions of its strength.

    standard (Ho and Salimans 2022)    x0 = uncond + s (cond - uncond)      s = 1: no guidance
    cosmos                             x0 = cond + g (cond - uncond)        g = 0: no guidance;  s = 1 + g

Given frames are the past in both predictions, so guidance leaves them alone.
"""

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


def guided(
    model: Denoiser,
    conditions: Conditions,
    like: Tensor,
    guidance: GuidanceConfig,
    *,
    negative_text: Tensor | None = None,
    negative_lengths: Tensor | None = None,
) -> Denoise:
    """The denoiser of a sampler for latents of the shape, dtype and device of ``like`` `[B, C, T, H, W]`.

    With guidance each call runs the network once on 2 B samples, the second half unconditional (``guidance.drop``; a
    negative prompt takes the place of the empty text). What no noise level changes is computed here, once.

    Where nothing that is to be dropped is given, both predictions are one, which is computed once. Raises ConfigError for a
    negative prompt that would not be read.
    """
    scale = guidance.standard_scale
    _require_reader(guidance, negative_text)
    if scale == 1 or (negative_text is None and not drops(guidance, conditions)):
        ready = model.prepare(conditions, like)
        return lambda x, sigma: model.denoise(x, sigma, ready)
    twin = conditions.without(*guidance.drop, text=negative_text, text_lengths=negative_lengths)
    both = model.prepare(stacked(conditions, twin, like.shape[0]), torch.cat([like, like]))

    def denoise(x: Tensor, sigma: Tensor | float) -> Tensor:
        if isinstance(sigma, Tensor) and (
            sigma.ndim == 2 or sigma.numel() > 1
        ):  # levels of each sample, for its twin too
            sigma = torch.cat([sigma, sigma])
        cond, uncond = model.denoise(torch.cat([x, x]), sigma, both).chunk(2)
        return torch.lerp(uncond, cond, scale)

    return denoise


def drops(guidance: GuidanceConfig, conditions: Conditions) -> tuple[str, ...]:
    """What of the conditions the unconditional prediction is made without."""
    return tuple(name for name in guidance.drop if getattr(conditions, name) is not None)


def _require_reader(guidance: GuidanceConfig, negative_text: Tensor | None) -> None:
    if negative_text is not None and ("text" not in guidance.drop or guidance.standard_scale == 1):
        raise ConfigError(
            f"negative_text needs guidance that drops the text: guidance.drop is {guidance.drop}, its scale {guidance.scale} "
            f"({guidance.convention})"
        )


def stacked(first: Conditions, second: Conditions, batch: int) -> Conditions:
    """Conditions of 2 B samples from those of twice B."""
    found: dict[str, Any] = {}
    for one in fields(Conditions):
        a, b = getattr(first, one.name), getattr(second, one.name)
        if one.name in ("text", "text_lengths", "actions", "known"):
            continue
        found[one.name] = torch.cat([_rows(a, batch), _rows(b, batch)]) if isinstance(a, Tensor) and a.ndim else a
    return Conditions(**found, **_stacked_text(first, second, batch), **_stacked_actions(first, second, batch))


def _rows(x: Tensor, batch: int) -> Tensor:
    """A tensor of one row for all as one of a row each."""
    return x.expand(batch, *x.shape[1:]) if x.shape[0] == 1 else x


def _stacked_text(first: Conditions, second: Conditions, batch: int) -> dict[str, Any]:
    """Text of both, the shorter padded with zeros that no query sees; one that is absent or has no tokens is zeros of one
    token."""
    both = [None if one.text is None or not one.text.shape[1] else one.text for one in (first, second)]
    known = [text for text in both if text is not None]
    if not known:
        return {}
    texts, lengths = [], []
    for one, said in zip((first, second), both, strict=True):
        text = known[0].new_zeros(batch, 1, known[0].shape[-1]) if said is None else _rows(said, batch)
        given = None if said is None else one.text_lengths
        texts.append(text)
        lengths.append(torch.full((batch,), text.shape[1]) if given is None else _rows(given, batch).cpu())
    longest = max(text.shape[1] for text in texts)
    text = torch.cat([F.pad(text, (0, 0, 0, longest - text.shape[1])) for text in texts])
    seen = torch.cat(lengths)
    return {"text": text, "text_lengths": None if bool((seen == longest).all()) else seen}


def _stacked_actions(first: Conditions, second: Conditions, batch: int) -> dict[str, Any]:
    """Actions of both; where one has none its rows are marked unknown."""
    present = [one.actions for one in (first, second) if one.actions is not None]
    if not present:
        return {}
    actions, known = [], []
    for one in (first, second):
        some = one.actions is not None
        actions.append(_rows(one.actions, batch) if one.actions is not None else torch.zeros_like(present[0]))
        mask = torch.full((batch,), some, device=present[0].device)
        known.append(mask if one.known is None else mask & one.known)
    return {"actions": torch.cat(actions), "known": torch.cat(known)}
