"""How it is trained: by the likelihood of each latent frame, given the one before it."""

from collections.abc import Mapping

import torch
from torch import Tensor

from wfm.models.family import Fitting
from wfm.models.presence import kept, present_of, tensors_of
from wfm.models.video_tokenizer import TokenizerCard
from wfm.training.config import filled
from wfm.training.encoded import Encoded
from wfm.training.fit_world_model import known_of
from wfm_toy_linear.card import LinearConfig, LinearTrainingConfig
from wfm_toy_linear.network import LinearPredictor


class Likelihood:
    """The negative log-likelihood of a normal error, a number of the latents, in nats. The first latent frame shows one video
    frame, the others several each: nothing is predicted from it."""

    def loss(self, model: LinearPredictor, batch: Mapping[str, Tensor], step: int) -> tuple[Tensor, dict[str, float]]:
        """See `wfm.training.objective.Objective`."""
        latents, slots = batch["latents"], model.config.slots
        keeps = {
            name: torch.stack([kept(int(seed), name, slot.dropout) for seed in batch["seeds"]])
            for name, slot in slots.items()
        }
        told = model.vectors(tensors_of(slots, batch), present_of(slots, batch, keeps), latents)
        error = latents[:, :, 2:] - model(latents[:, :, 1:], told[:, 1:])
        spread = model.log_deviation[:, None, None, None]
        loss = (0.5 * (error * torch.exp(-spread)).square() + spread).mean()
        return loss, {"squared_error": float(error.detach().square().mean())}


class LinearFitting(Fitting):
    """Of a `LinearPredictor`."""

    def settle(self, config: LinearTrainingConfig, tokenizer: TokenizerCard, data: Encoded) -> LinearConfig:
        """The predictor with everything that follows from the data filled in."""
        of_data = known_of(tokenizer, data)
        known = {name: of_data[name] for name in ("conditions", "temporal_compression", "fps")}
        known["channels"] = tokenizer.latent_channels
        return LinearConfig.parse(filled(config.linear, known, "linear"))

    def objective(self, config: LinearTrainingConfig) -> Likelihood:
        """The likelihood."""
        return Likelihood()


FITTING = LinearFitting()
