"""What tokens and conditions give the transformer: embeddings of symbols; features per latent frame -> what is added to the
tokens that predict it; tokens of a context as a pack, or beside the window's."""

from typing import NamedTuple

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


class PickedRows(nn.Embedding):
    """The sum of the rows that are picked, as a product with the (narrow) one-hot matrix: its backward is one GEMM."""

    def forward(self, picked: Tensor) -> Tensor:
        """0 or 1 `[..., rows]` -> `[..., dim]`."""
        return picked.to(self.weight.dtype) @ self.weight


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


class Hints(NamedTuple):
    """Tokens that stand beside the window's, place by place."""

    ids: Tensor
    "int64 ``[B, n, slots]``."
    present: Tensor | None = None
    "bool ``[B]``: where False there are none; None: all samples have them."

    def at(self, positions: Tensor | slice) -> "Hints":
        """Those at some positions."""
        return Hints(self.ids[:, positions], self.present)

    def kept(self, x: Tensor) -> Tensor:
        """What was made of them, ``[B, ...]``, zeros where there are none."""
        if self.present is None:
            return x
        return torch.where(self.present.view(-1, *[1] * (x.ndim - 1)), x, torch.zeros_like(x))


def vector_name(condition: str) -> str:
    """What the embedding of a vector is called among a transformer's modules."""
    return "action" if condition == "action" else f"{condition}_embedding"
