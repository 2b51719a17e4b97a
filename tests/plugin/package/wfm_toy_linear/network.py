"""The network: one linear map at every place of the latents."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from wfm.conditions.condition import encoders
from wfm.models.slots import Geometry, Place
from wfm_toy_linear.card import LinearConfig


class LinearPredictor(nn.Module):
    """The next latent frame, of the one before it and of the vectors that condition it. New, it repeats the last."""

    def __init__(self, config: LinearConfig, encoders: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.config = config
        self.encoders = nn.ModuleDict(encoders)
        width = config.channels + sum(slot.width for slot in config.slots.values())
        self.blocks = nn.ModuleList([nn.Linear(width, config.channels)])
        nn.init.zeros_(self.blocks[0].weight)
        nn.init.zeros_(self.blocks[0].bias)
        self.log_deviation = nn.Parameter(torch.zeros(config.channels))

    def forward(self, latents: Tensor, vectors: Tensor) -> Tensor:
        """Latents `[B, C, t, h, w]`, vectors `[B, t, features]` -> the means of frames 1 ... t - 1, `[B, C, t - 1, h, w]`."""
        before = latents[:, :, :-1]
        b, _, t, h, w = before.shape
        told = vectors[:, 1:, None, None].expand(b, t, h, w, vectors.shape[-1])
        return before + self.blocks[0](torch.cat([before.movedim(1, -1), told], -1)).movedim(-1, 1)

    def vectors(self, tensors: Mapping[str, Tensor], present: Mapping[str, Tensor], like: Tensor) -> Tensor:
        """What conditions each latent frame of `like` `[B, C, t, h, w]`: `[B, t, features]`, zeros where there is none. Of all
        frames alike, so that what accumulates counts from the first."""
        shape = (like.shape[0], like.shape[2])
        place = Place(shape[1], torch.ones(shape[0], dtype=torch.int64, device=like.device))
        found = [like.new_zeros(*shape, 0)]
        for name, slot in self.config.slots.items():
            if slot.tensors[0] not in tensors:
                found.append(like.new_zeros(*shape, slot.width))
                continue
            made = self.encoders[name](tensors, place) if name in self.encoders else tensors[slot.tensors[0]]
            made = made.reshape(shape[0], -1, slot.width).expand(*shape, slot.width)
            found.append(made * present[name][:, None, None] if name in present else made)
        return torch.cat(found, -1)


def linear(config: LinearConfig) -> LinearPredictor:
    """A new predictor of this configuration."""
    return LinearPredictor(config, encoders(config.slots, Geometry(config.temporal_compression, config.fps)))
