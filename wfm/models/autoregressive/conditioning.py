"""What a condition gives the transformer: features per latent frame -> what is added to the tokens that predict it, and
tokens of a context as a pack."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from wfm.errors import ConfigError


class VectorEmbedding(nn.Module):
    """Two linears with a tanh GELU. Where the condition is absent nothing is added. The second linear starts at zero, so an
    untrained model ignores the condition."""

    def __init__(self, features: int, dim: int, *, hidden: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(features, hidden)
        self.linear_2 = nn.Linear(hidden, dim)
        nn.init.zeros_(self.linear_2.weight)
        nn.init.zeros_(self.linear_2.bias)

    def forward(self, features: Tensor, present: Tensor | None = None) -> Tensor:
        """features `[B, t, F]`; present bool `[B]`: false where it is absent (None: nowhere) -> `[B, t, dim]`."""
        out = self.linear_2(functional.gelu(self.linear_1(features), approximate="tanh"))
        return out if present is None else torch.where(present[:, None, None], out, torch.zeros_like(out))


def packed_context(
    name: str, tokens: Tensor, lengths: Tensor | None, batch: int, width: int
) -> tuple[Tensor, tuple[int, ...]]:
    """Tokens that are seen, ``[sum of lengths, width]``, and how many of each sample."""
    if tokens.ndim != 3 or tokens.shape[0] != batch or tokens.shape[2] != width or not tokens.shape[1]:
        raise ConfigError(f"{name} has shape {list(tokens.shape)}, wanted [{batch}, 1 or more, {width}]")
    counts = [tokens.shape[1]] * batch if lengths is None else [int(n) for n in lengths]
    if len(counts) != batch or not all(1 <= n <= tokens.shape[1] for n in counts):
        raise ConfigError(f"{name}_lengths is {counts}; give {batch} numbers from 1 to {tokens.shape[1]}")
    return torch.cat([row[:n] for row, n in zip(tokens, counts, strict=True)]), tuple(counts)


def vector_name(condition: str) -> str:
    """What the embedding of a vector is called among a transformer's modules."""
    return "action" if condition == "action" else f"{condition}_embedding"
