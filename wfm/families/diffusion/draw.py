"""How futures are drawn from a denoiser: by a sampler from noise, or the one-step mean."""

from typing import Any

from torch import Tensor, nn

from wfm.generation.config import TWICE, SamplingConfig
from wfm.generation.rollout import future_latents
from wfm.models.diffusion.denoiser import Denoiser
from wfm.models.family import Ask, Drawing


class DiffusionDrawing(Drawing):
    """Of a `Denoiser`."""

    def draw(self, model: Denoiser, ask: Ask) -> Tensor:
        """Latents of the window, with guidance where the sampling asks for it."""
        return future_latents(
            model, ask.past, ask.actions, frames=ask.frames, seeds=ask.seeds, mode=ask.mode, sampling=ask.sampling,
            **ask.shown,
        )  # fmt: skip

    def reads_text(self, model: Denoiser) -> bool:
        """Whether there is cross-attention."""
        return model.config.network.text_embed_dim > 0

    def shown_motion(self, model: Denoiser) -> bool:
        """Whether extrapolated latents are concatenated."""
        return model.config.extrapolate

    def watched(self, model: Denoiser) -> nn.Module:
        """The transformer."""
        return model.network

    def passes(self, model: Any, sampling: SamplingConfig, mode: str, grid: tuple[int, int, int]) -> int:
        """One a noise level, and one more between two for samplers that ask twice."""
        steps = 1 if mode == "mean" else sampling.steps
        return 2 * steps - 1 if sampling.sampler in TWICE else steps


DRAWING = DiffusionDrawing()
