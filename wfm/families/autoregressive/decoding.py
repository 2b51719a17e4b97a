"""Autoregressive decoding: continue token videos with a key/value cache, greedily or by temperature and nucleus
(top-p) sampling.

Sampling takes the arg-max of ``probability / exponential noise`` (as Cosmos does), which draws from the distribution
exactly. Noise of sequence b comes from a generator of its own, seeded by ``seeds[b]``: it does not depend on which
other sequences share the batch.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from wfm.errors import ConfigError
from wfm.models.autoregressive.network import AutoregressiveTransformer
from wfm.models.fast_cpu import packed_weights
from wfm.models.finite import require_finite
from wfm.models.seeding import seeded_generator

Choose = Callable[[Tensor], Tensor]
"""Logits of one symbol ``[B, n, slots, size]`` -> the chosen symbols int64 ``[B, n, slots]``."""


def greedy(logits: Tensor) -> Tensor:
    """The most probable symbol; the lowest one of equals."""
    return logits.argmax(dim=-1)


def expected(logits: Tensor) -> Tensor:
    """The level nearest to the expected one: for digits, which are ordered, the guess with the least squared error."""
    level = torch.arange(logits.shape[-1], device=logits.device, dtype=logits.dtype)
    return (torch.softmax(logits, dim=-1) * level).sum(dim=-1).round().long()


class TopP:
    """Samples each symbol from the smallest set of choices that holds ``top_p`` of the probability, at
    ``temperature``."""

    def __init__(self, seeds: list[int], *, temperature: float = 1.0, top_p: float = 0.8) -> None:
        if not temperature > 0:
            raise ConfigError(f"temperature={temperature}: must be positive; use greedy decoding for the limit 0")
        if not 0 < top_p <= 1:
            raise ConfigError(f"top_p={top_p}: must lie in (0, 1]")
        if not seeds:
            raise ConfigError("no seeds: give one for each sequence, and at least one sequence")
        self.generators = [seeded_generator(seed) for seed in seeds]
        self.temperature, self.top_p = temperature, top_p

    def __call__(self, logits: Tensor) -> Tensor:
        if logits.shape[0] != len(self.generators):
            raise ConfigError(
                f"{logits.shape[0]} sequences but {len(self.generators)} seeds: give one seed for each sequence"
            )
        probabilities = torch.softmax(logits.double() / self.temperature, dim=-1)
        ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
        before = (
            ordered.cumsum(dim=-1) - ordered
        )  # probability of everything more likely: the first choice always stays
        kept = torch.zeros_like(probabilities).scatter(-1, order, ordered * (before < self.top_p))
        noise = torch.stack(
            [torch.empty(logits.shape[1:], dtype=torch.float64).exponential_(generator=g) for g in self.generators]
        )
        return (kept / noise.to(kept.device)).argmax(dim=-1)


def require_context(model: AutoregressiveTransformer, frames: int, size: tuple[int, int]) -> None:
    """Raise ConfigError where `frames` latent frames of `size` tokens need more positions than the model's context, before a
    first step is taken."""
    rows, columns = model.grid(*size)
    context, ahead = model.config.context_positions, model.stride(*size) - int(model.config.begin_token)
    positions = frames * rows * columns - ahead  # what the last is predicted from
    if positions > context:
        most = (context + ahead) // (rows * columns)
        raise ConfigError(
            f"frames: {frames} latent frames of {size[0]} x {size[1]} tokens are predicted from {positions} positions, more "
            f"than this model's context of {context}: continue to {most} at most, or go on from the last of them"
        )


@torch.no_grad()
def continue_tokens(
    model: AutoregressiveTransformer,
    tensors: Mapping[str, Tensor],
    *,
    frames: int,
    choose: Choose,
    use_cache: bool = True,
) -> Tensor:
    """Continue a past to ``frames`` latent frames: int64 ``[B, frames, h, w]``, the first p as given.

    tensors: of the model's conditions by name, ``past`` int64 ``[B, p, h, w]`` among them; see `AutoregressiveTransformer` (of
    the window are all ``frames``). Raises ConfigError, before it begins, for more frames than the model's context holds.
    ``use_cache=False`` recomputes everything at each step: the same result up to rounding, for tests.
    """
    past = tensors["past"]
    batch, given, height, width = past.shape
    if not 1 <= given < frames:
        raise ConfigError(f"{given} latent frames given, {frames} wanted: at least 1 must be given and 1 predicted")
    size = (height, width)
    require_context(model, frames, size)
    condition = model.condition(tensors, batch, frames)
    patches = model.patchify(past)  # [B, n, slots]
    hints, contexts = model.hints(tensors), model.prepare_contexts(tensors, batch=batch)
    rows, columns = model.grid(height, width)
    cache = model.new_cache(batch, frames, size) if use_cache else None
    fresh = model.vocabulary.begun(patches)
    with packed_weights(model, laid_out=False):
        while patches.shape[1] < frames * rows * columns:
            inputs = fresh if use_cache else model.vocabulary.begun(patches)
            logits = model.step(
                inputs, condition, size, cache, last=True, hints=hints, contexts=contexts
            )  # [B, stride, slots, width]
            require_finite(logits, "logits")  # the largest of NaN is a symbol like any other
            symbols = torch.stack([choose(block) for block in model.vocabulary.split(logits)], dim=-1)
            fresh = model.vocabulary.ids(symbols)
            patches = torch.cat([patches, fresh], dim=1)
    return model.unpatchify(patches, height, width)
