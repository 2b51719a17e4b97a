"""Actions per video frame -> one conditioning vector per latent frame.

An action at frame t acts between frames t and t + 1. Latent frame i (i > 0) shows frames (i - 1) c + 1 ... i c at
temporal compression c, so the actions that lead to it are those at frames (i - 1) c ... i c - 1. What a latent frame
needs to know is how far the camera has come since the last frame that is given (the accumulated action) and how it
moves now; both are sums that a network would otherwise have to learn to take.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wfm.errors import ConfigError


def actions_by_latent(actions: Tensor, latent_frames: int, compression: int) -> Tensor:
    """Actions `[B, T, A]` grouped by the latent frame they lead to: `[B, t, c, A]`; the first latent frame has zeros.

    Only the (t - 1) c actions that act inside the video are used. Raises ConfigError when there are fewer.
    """
    needed = (latent_frames - 1) * compression
    if actions.shape[1] < needed:
        raise ConfigError(
            f"actions: {actions.shape[1]} frames given, {needed} needed for {latent_frames} latent frames of {compression}"
        )
    groups = actions[:, :needed].unflatten(1, (latent_frames - 1, compression))  # [B, t - 1, c, A]
    return (
        torch.cat([torch.zeros_like(groups[:, :1]), groups], dim=1)
        if latent_frames > 1
        else groups.new_zeros(actions.shape[0], 1, compression, actions.shape[2])
    )


def accumulated(groups: Tensor, given: Tensor) -> Tensor:
    """Actions summed up from the last given frame to the end of each latent frame: `[B, t, A]`, negative before it.

    groups `[B, t, c, A]`, given int64 `[B]` (latent frames given; 0 counts from the first frame).
    """
    total = groups.sum(2).cumsum(1)  # [B, t, A]
    last = (given - 1).clamp(min=0)[:, None, None].expand(-1, 1, total.shape[-1])
    return total - total.gather(1, last)


class ActionConditioning(nn.Module):
    """The vector added to the time embedding `[B, t, d]` and to the AdaLN vector `[B, t, 3d]` (Cosmos action models,
    section 6.2).

    Two MLPs with a tanh GELU over [accumulated, its sines and cosines, the actions that lead to the frame]; a
    learned null vector stands for "no action known". The output layers start at zero, so an untrained model ignores
    actions.
    """

    FREQUENCIES = (1.0, 2.0, 4.0)

    def __init__(self, width: int, dim: int, compression: int, fps: float) -> None:
        super().__init__()
        self.width, self.dim, self.compression, self.fps = width, dim, compression, fps
        self.null = nn.Parameter(torch.zeros(4 * dim))
        features = width * (1 + 2 * len(self.FREQUENCIES) + compression)
        if width:
            self.mlp = nn.ModuleDict(
                {"linear_1": nn.Linear(features, 4 * dim), "linear_2": nn.Linear(4 * dim, 4 * dim)}
            )
            for parameter in self.mlp["linear_2"].parameters():
                nn.init.zeros_(parameter)

    def features(self, actions: Tensor, latent_frames: int, given: Tensor) -> Tensor:
        """`[B, t, features]` of normalised actions `[B, T, A]`."""
        groups = actions_by_latent(actions, latent_frames, self.compression)
        total = accumulated(groups, given) / self.fps  # seconds times the typical rate
        waves = [f(total * k) for k in self.FREQUENCIES for f in (torch.sin, torch.cos)]
        return torch.cat([total, *waves, groups.flatten(2)], dim=-1)

    def forward(
        self, actions: Tensor | None, known: Tensor | None, latent_frames: int, given: Tensor
    ) -> tuple[Tensor, Tensor]:
        """actions `[B, T, A]` normalised or None; known bool `[B]`: where False the null action is used; given int64
        `[B]`."""
        null = self.null.expand(given.shape[0], latent_frames, -1)
        if actions is None or not self.width:
            return null.split([self.dim, 3 * self.dim], dim=-1)  # type: ignore[return-value]
        if actions.shape[-1] != self.width:
            raise ConfigError(f"actions: {actions.shape[-1]} components given, the model was built for {self.width}")
        hidden = F.gelu(self.mlp["linear_1"](self.features(actions, latent_frames, given)), approximate="tanh")
        out = self.mlp["linear_2"](hidden)
        if known is not None:
            out = torch.where(known[:, None, None], out, null)
        return out.split([self.dim, 3 * self.dim], dim=-1)  # type: ignore[return-value]
