"""Greedy decoding with Medusa heads: several tokens a pass, the same tokens as without.

    pass     the token that the model has chosen, and behind it the drafts of the heads, go through the network together
    check    every draft that is what the model itself chooses there is kept, up to the first that is not
    next     the model's choice after the last one kept, and new drafts from there

A pass that keeps a drafts yields a + 1 tokens. What is kept was chosen by the model from true tokens alone, so the result is
that of `decoding.continue_tokens` with `greedy`: in fp64 token for token (of equal scores the lowest id wins in both); in
fp32 a pass over several tokens rounds otherwise than one over one, and a tie within rounding may fall the other way. The
sequences of a batch share one cache and keep as many drafts as the least lucky of them.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from wfm.errors import ConfigError
from wfm.families.autoregressive.decoding import greedy, require_context
from wfm.models.autoregressive.conditioning import Hints
from wfm.models.autoregressive.network import AutoregressiveTransformer
from wfm.models.fast_cpu import packed_weights
from wfm.models.finite import require_finite


class Decoded(NamedTuple):
    """What a decoding made, and how."""

    tokens: Tensor
    "int64 ``[B, frames, h, w]``, the given ones first."
    passes: int
    "Passes of the network."


@torch.no_grad()
def continue_with_drafts(model: AutoregressiveTransformer, tensors: Mapping[str, Tensor], *, frames: int) -> Decoded:
    """Continue a past to ``frames`` latent frames; arguments as in `continue_tokens`. Raises ConfigError for a model without
    heads."""
    if model.medusa is None:
        raise ConfigError("this model has no Medusa heads (medusa_heads=0): decode it with continue_tokens")
    past = tensors["past"]
    batch, given, height, width = past.shape
    if not 1 <= given < frames:
        raise ConfigError(f"{given} latent frames given, {frames} wanted: at least 1 must be given and 1 predicted")
    size = (height, width)
    require_context(model, frames, size)
    condition = model.condition(tensors, batch, frames)
    hints, contexts = model.hints(tensors), model.prepare_contexts(tensors, batch=batch)
    cache = model.new_cache(batch, frames, size)
    patches, total, passes = model.patchify(past), frames * height * width, 0
    # What goes through the network: the last `drafted` of it are not sure yet.
    fresh, drafted = model.vocabulary.begun(patches), 0
    with packed_weights(model, laid_out=False):
        while True:
            features = model.features(fresh, condition, size, cache, hints=hints, contexts=contexts)
            passes += 1
            tail = slice(fresh.shape[1] - 1 - drafted, None)  # the last sure position and the drafts behind it
            chosen = _best(
                model, model.logits(features[:, tail], fresh[:, tail], _ahead(hints, cache.length, drafted + 1))
            )
            kept = _agreeing(chosen[:, :-1], fresh[:, fresh.shape[1] - drafted :])
            patches = torch.cat([patches, chosen[:, : kept + 1]], dim=1)
            cache.truncate(cache.length - drafted + kept)
            if patches.shape[1] >= total:
                return Decoded(model.unpatchify(patches[:, :total], height, width), passes)
            source = features.shape[1] - 1 - drafted + kept
            scores = model.drafts(features[:, source : source + 1])
            assert scores is not None
            drafts = _best(model, scores[:, 0])  # [B, K, slots]
            drafted = min(drafts.shape[1], total - patches.shape[1] - 1)
            fresh = torch.cat([chosen[:, kept : kept + 1], drafts[:, :drafted]], dim=1)


def _best(model: AutoregressiveTransformer, logits: Tensor) -> Tensor:
    """Ids ``[B, n, slots]`` of the best scored symbols of logits ``[B, n, slots, width]``."""
    require_finite(logits, "logits")
    return model.vocabulary.ids(torch.stack([greedy(block) for block in model.vocabulary.split(logits)], dim=-1))


def _ahead(hints: Hints | None, end: int, n: int) -> Hints | None:
    """What the extrapolated past has at the positions that the last n before ``end`` predict."""
    return None if hints is None else hints.at(slice(end - n + 1, end + 1))


def _agreeing(chosen: Tensor, drafts: Tensor) -> int:
    """How many drafts ``[B, k, slots]`` from the first on are what was chosen, in every sequence of the batch."""
    same = (chosen == drafts).all(dim=2).all(dim=0)  # [k]
    return int(same.long().cumprod(0).sum())
