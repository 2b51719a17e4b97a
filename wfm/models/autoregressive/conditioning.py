"""Features of a condition per latent frame -> what is added to the tokens that predict each latent frame."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from wfm.models.slots import Null


class VectorEmbedding(nn.Module):
    """Two linears with a tanh GELU. Where the condition is absent a learned vector is added, or nothing. The second linear
    starts at zero, so an untrained model ignores the condition."""

    def __init__(self, features: int, dim: int, *, hidden: int, null: Null) -> None:
        super().__init__()
        self.null: Tensor
        if null == "learned":
            self.null = nn.Parameter(torch.zeros(dim))
        else:
            self.register_buffer("null", torch.zeros(dim), persistent=False)
        self.linear_1 = nn.Linear(features, hidden)
        self.linear_2 = nn.Linear(hidden, dim)
        nn.init.zeros_(self.linear_2.weight)
        nn.init.zeros_(self.linear_2.bias)

    def forward(self, features: Tensor | None, present: Tensor | None, *, batch: int, frames: int) -> Tensor:
        """features `[B, t, F]` or None (absent for all); present bool `[B]`: false where it is absent -> `[B, t, dim]`."""
        null = self.null.expand(batch, frames, -1)
        if features is None:
            return null
        out = self.linear_2(functional.gelu(self.linear_1(features), approximate="tanh"))
        return out if present is None else torch.where(present[:, None, None], out, null)
