"""The tokenizer's training loss: how far the reconstruction is from the video, in every way the configuration names.

    pixel        absolute or squared difference, weight 1
    perceptual   distance of features           perceptual.py
    gram         distance of their correlations perceptual.py
    flow         distance of optical flows      optical_flow.py
    adversarial  the discriminator's verdict    discriminator.py

Only the reconstruction is supervised, as in Cosmos: the latents are free. A term whose weight is 0 at a step is not
computed at that step.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wfm.models.loss import Mean, Summed
from wfm.models.tokenizer.discriminator import (
    PatchDiscriminator,
    accuracy,
    discriminator_loss,
    generator_loss,
    r1_penalty,
)
from wfm.models.tokenizer.loss_config import ReconstructionConfig
from wfm.models.tokenizer.optical_flow import LucasKanade, flow_distance
from wfm.models.tokenizer.perceptual import feature_net, gram_distance, perceptual_distance
from wfm.parallel.ranks import ALONE, Ranks


class Term(NamedTuple):
    """One part of the loss: weight * value counts."""

    weight: float
    value: Tensor


class TokenizerObjective(Summed):
    """Loss of a tokenizer (whatever maps a video to its reconstruction), and of the discriminator that plays against it.
    Batch: video `[B, C, T, H, W]` in [-1, 1]. One term, `video`: every part of the loss is a mean over videos of one size, each
    of which counts alike.

    Nets with weights are made here: fixed ones from a file, the discriminator at random (from torch's global generator).
    `ranks`: who has the rest of each batch. Raises ConfigError or DataError for a feature net without its file.
    """

    def __init__(self, config: ReconstructionConfig, *, channels: int = 3, ranks: Ranks = ALONE) -> None:
        self.config, self.ranks = config, ranks
        path = Path(config.feature_file) if config.feature_file else None
        self.features = feature_net(config.feature_net, path) if config.needs_features else None
        self.flow = LucasKanade() if config.flow.ever else None
        playing = config.adversarial.weight.ever
        self.discriminator = PatchDiscriminator(config.adversarial, channels) if playing else None
        self._pair: tuple[Tensor, Tensor] | None = None

    def counts(self, model: nn.Module, batch: Mapping[str, Tensor], step: int) -> dict[str, float]:
        """Videos."""
        return {"video": float(len(batch["video"]))}

    def sums(
        self, model: nn.Module, batch: Mapping[str, Tensor], step: int
    ) -> tuple[dict[str, Tensor], dict[str, Mean]]:
        """The loss of all videos; measured PSNR [dB] and, where there is more than the pixel error, the value of each term."""
        video, rebuilt = (_precise(x) for x in (batch["video"], model(batch["video"])))
        self._pair = (video, rebuilt.detach())
        terms = self.terms(rebuilt, video, step)
        many = float(len(video))
        values = (
            {name: Mean(many * term.value.detach(), many) for name, term in terms.items()} if len(terms) > 1 else {}
        )
        verdict = terms.pop("adversarial", None)
        total = weighted_sum(terms)
        if verdict is not None:
            if self.config.adversarial.adaptive and rebuilt.requires_grad:
                limit = self.config.adversarial.adaptive_limit
                total, factor = balanced(total, verdict, rebuilt, limit, self.ranks)
                values["adversarial_factor"] = Mean(many * factor, many)
            else:
                total = total + verdict.weight * verdict.value
        mse = (rebuilt - video).detach().square().mean()
        return {"video": many * total}, {"psnr": Mean(many * mse, many, peak=2.0), **values}

    def terms(self, rebuilt: Tensor, video: Tensor, step: int) -> dict[str, Term]:
        """Every term that counts at `step`, by name; `pixel` always."""
        config = self.config
        terms = {"pixel": Term(1.0, self._pixel(rebuilt - video))}
        weights = {"perceptual": config.perceptual.at(step), "gram": config.gram.at(step)}
        if self.features is not None and any(weights.values()):
            layer_weights = config.layer_weights or self.features.layer_weights
            with torch.no_grad():
                theirs = self._maps(video)
            ours = self._maps(rebuilt)
            if weights["perceptual"]:
                value = perceptual_distance(ours, theirs, layer_weights)
                terms["perceptual"] = Term(weights["perceptual"], value)
            if weights["gram"]:
                value = gram_distance(ours, theirs, layer_weights, videos=len(video))
                terms["gram"] = Term(weights["gram"], value)
        weight = config.flow.at(step)
        if self.flow is not None and weight and video.shape[2] > 1:
            terms["flow"] = Term(weight, flow_distance(self.flow.to(video.device), rebuilt, video, config.flow_scale))
        weight = config.adversarial.weight.at(step)
        if self.discriminator is not None and weight:
            with frozen(self.discriminator):
                terms["adversarial"] = Term(weight, generator_loss(self.discriminator(rebuilt)))
        return terms

    def rival_loss(self, step: int, *, penalty_step: int | None = None) -> tuple[Tensor, dict[str, Tensor]] | None:
        """The discriminator's loss on the videos and reconstructions of the last call of `loss`, and its accuracy; None
        before it is its turn to learn. `penalty_step` stands in for `step` where the R1 penalty asks whose turn it is."""
        config = self.config.adversarial
        if self.discriminator is None or self._pair is None or step < config.first_step:
            return None
        video, rebuilt = self._pair
        real, false = self.discriminator(torch.cat([video, rebuilt])).chunk(2)
        total = discriminator_loss(real, false)
        values = {"discriminator_loss": total.detach(), "discriminator_accuracy": accuracy(real, false)}
        if config.r1 and (step if penalty_step is None else penalty_step) % config.r1_every == 0:
            penalty = r1_penalty(self.discriminator, video)
            values["discriminator_r1"] = penalty.detach()
            total = total + config.r1 * config.r1_every * penalty
        return total, values

    def _pixel(self, difference: Tensor) -> Tensor:
        total = self._error(difference)
        if self.config.gradient_weight:
            edges = self._error(difference.diff(dim=-1)) + self._error(difference.diff(dim=-2))
            total = total + self.config.gradient_weight * edges
        return total

    def _error(self, difference: Tensor) -> Tensor:
        return difference.square().mean() if self.config.error == "l2" else difference.abs().mean()

    def _maps(self, video: Tensor) -> list[Tensor]:
        assert self.features is not None
        frames = video.transpose(1, 2).flatten(0, 1)  # [B T, C, H, W]
        net = self.features.to(video.device)
        if self.config.checkpoint_features and frames.requires_grad:
            return checkpoint(net, frames, use_reentrant=False)
        return net(frames)


def _precise(x: Tensor) -> Tensor:
    """In fp32 or better, as the nets that judge are, and as differences should be."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def weighted_sum(terms: Mapping[str, Term]) -> Tensor:
    """Sum of weight * value; the pixel error, of weight 1, as it is."""
    total = terms["pixel"].value
    for name, term in terms.items():
        if name != "pixel":
            total = total + term.weight * term.value
    return total


def balanced(
    total: Tensor, verdict: Term, rebuilt: Tensor, limit: float, ranks: Ranks = ALONE
) -> tuple[Tensor, Tensor]:
    """`total` plus the verdict, the latter scaled until it pulls at the reconstructions of all ranks (weight apart) as hard as
    the former, and the factor. (VQGAN compares the pulls at the last layer; at its output it takes no knowledge of the
    network.)

    Each side is differentiated once: the sum's gradient at the reconstruction is put together here.
    """
    (pull,) = torch.autograd.grad(total, rebuilt)
    (push,) = torch.autograd.grad(verdict.value, rebuilt)
    factor = (ranks.norm(pull) / ranks.norm(push).clamp(min=1e-12)).clamp(max=limit)
    value = total.detach() + verdict.weight * factor * verdict.value.detach()
    return _WithGradient.apply(rebuilt, value, pull + verdict.weight * factor * push), factor


class _WithGradient(torch.autograd.Function):
    """A scalar whose gradient with respect to `rebuilt` is known already."""

    @staticmethod
    def forward(ctx: Any, rebuilt: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (gradient,) = ctx.saved_tensors
        return slope * gradient, None, None


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """A gradient passes through `module` and leaves none in it."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
