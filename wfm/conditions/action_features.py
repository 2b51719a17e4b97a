"""Actions per video frame -> one vector per latent frame.

An action at frame t acts between frames t and t + 1. Latent frame i (i > 0) shows frames (i - 1) c + 1 ... i c at
temporal compression c, so the actions that lead to it are those at frames (i - 1) c ... i c - 1. What a latent frame
needs to know is how far the camera has come since the last frame that is given (the accumulated action) and how it
moves now; both are sums that a network would otherwise have to learn to take.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from wfm.errors import ConfigError
from wfm.models.slots import Place


class ActionFeatures(nn.Module):
    """The action vector of each latent frame: what has accumulated since the last given frame, its sines and cosines at
    `frequencies`, and the actions that lead to the frame. It has nothing to learn."""

    def __init__(
        self, width: int, compression: int, fps: float, frequencies: Sequence[float], *, name: str = "actions"
    ) -> None:
        super().__init__()
        self.width, self.compression, self.fps, self.name = width, compression, fps, name
        self.frequencies = tuple(frequencies)

    def forward(self, tensors: Mapping[str, Tensor], place: Place) -> Tensor:
        """Normalised actions `[B, frames, A]` -> `[B, t, features]`. Raises ConfigError for another width, batch, or too few
        frames."""
        actions, batch = tensors[self.name], len(place.given)
        if actions.ndim != 3 or actions.shape[0] != batch or actions.shape[-1] != self.width:
            raise ConfigError(
                f"actions have shape {list(actions.shape)}, wanted [{batch}, frames, {self.width}]: the model was built "
                f"for {self.width} components"
            )
        groups = actions_by_latent(actions, place.frames, self.compression)
        total = accumulated(groups, place.given) / self.fps  # seconds times the typical rate
        waves = [f(total * k) for k in self.frequencies for f in (torch.sin, torch.cos)]
        return torch.cat([total, *waves, groups.flatten(2)], dim=-1)


def actions_by_latent(actions: Tensor, latent_frames: int, compression: int) -> Tensor:
    """Actions `[B, T, A]` grouped by the latent frame they lead to: `[B, t, c, A]`; the first latent frame has zeros.

    Only the (t - 1) c actions that act inside the video are used. Raises ConfigError when there are fewer.
    """
    needed = (latent_frames - 1) * compression
    if actions.shape[1] < needed:
        raise ConfigError(
            f"actions: {actions.shape[1]} frames given, {needed} needed for {latent_frames} latent frames of {compression}"
        )
    if latent_frames < 2:
        return actions.new_zeros(actions.shape[0], latent_frames, compression, actions.shape[2])
    groups = actions[:, :needed].unflatten(1, (latent_frames - 1, compression))  # [B, t - 1, c, A]
    return torch.cat([torch.zeros_like(groups[:, :1]), groups], dim=1)


def accumulated(groups: Tensor, given: Tensor) -> Tensor:
    """Actions summed up from the last given frame to the end of each latent frame: `[B, t, A]`, negative before it.

    groups `[B, t, c, A]`, given int64 `[B]` (latent frames given; 0 counts from the first frame).
    """
    total = groups.sum(2).cumsum(1)  # [B, t, A]
    if not total.shape[1]:
        return total
    last = (given - 1).clamp(min=0)[:, None, None].expand(-1, 1, total.shape[-1])
    return total - total.gather(1, last)
