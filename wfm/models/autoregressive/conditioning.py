"""Actions per video frame -> what is added to the tokens that predict each latent frame."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from wfm.errors import ConfigError
from wfm.models.diffusion.conditioning import accumulated, actions_by_latent


class ActionEmbedding(nn.Module):
    """Two linears with a tanh GELU over the same features as the diffusion family's: for each latent frame, the
    actions that lead to it, their sum since the first frame (how far the camera has come), and sines and cosines of
    that sum. A learned vector stands for "no action known". The second linear starts at zero, so an untrained model
    ignores actions.
    """

    FREQUENCIES = (1.0, 2.0, 4.0)

    def __init__(self, width: int, dim: int, *, hidden: int, compression: int, fps: float) -> None:
        super().__init__()
        self.width, self.compression, self.fps = width, compression, fps
        self.null: Tensor
        if not width:  # nothing to say, and so nothing to learn
            self.register_buffer("null", torch.zeros(dim), persistent=False)
        else:
            self.null = nn.Parameter(torch.zeros(dim))
            self.linear_1 = nn.Linear(width * (1 + 2 * len(self.FREQUENCIES) + compression), hidden)
            self.linear_2 = nn.Linear(hidden, dim)
            nn.init.zeros_(self.linear_2.weight)
            nn.init.zeros_(self.linear_2.bias)

    def features(self, actions: Tensor, latent_frames: int) -> Tensor:
        """actions normalised ``[B, T, A]`` -> ``[B, t, features]``."""
        groups = actions_by_latent(actions, latent_frames, self.compression)  # [B, t, c, A]
        first = torch.ones(actions.shape[0], dtype=torch.int64, device=actions.device)
        total = accumulated(groups, first) / self.fps  # seconds times the typical rate
        waves = [f(total * k) for k in self.FREQUENCIES for f in (torch.sin, torch.cos)]
        return torch.cat([total, *waves, groups.flatten(2)], dim=-1)

    def forward(self, actions: Tensor | None, known: Tensor | None, *, batch: int, latent_frames: int) -> Tensor:
        """``[B, t, dim]``; actions None: the null action for all; known bool ``[B]``: false where the null action is
        meant.

        Raises ConfigError for actions of another width, or given to a model that was built without.
        """
        null = self.null.expand(batch, latent_frames, -1)
        if actions is None or (not self.width and actions.shape[-1] == 0):
            return null
        if actions.shape[-1] != self.width:
            raise ConfigError(f"actions have {actions.shape[-1]} components, the model was built for {self.width}")
        hidden = functional.gelu(self.linear_1(self.features(actions, latent_frames)), approximate="tanh")
        out = self.linear_2(hidden)
        return out if known is None else torch.where(known[:, None, None], out, null)
