"""Medusa heads: from the last hidden state, guesses at the tokens after the next one (Cai et al. 2024; Cosmos section 5.2.3).

As in Cosmos: one SiLU layer a head with a residual, all heads merged into one matrix, the model's own unembedding shared,
no tree. The heads only draft: `wfm.families.autoregressive.medusa` checks what they say, so that greedy decoding gives the
same tokens.
"""

from torch import Tensor, nn
from torch.nn import functional


class MedusaHeads(nn.Module):
    """K heads, head j for the token j + 1 places after the one that the model itself predicts. Started at zero: each then
    says what the model says."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.merged = nn.Linear(dim, heads * dim, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """`[..., dim]` -> `[..., K, dim]`: h + SiLU(W_j h)."""
        return features.unsqueeze(-2) + functional.silu(self.merged(features)).unflatten(-1, (self.heads, -1))
