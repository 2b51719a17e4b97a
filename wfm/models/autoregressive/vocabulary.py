"""Token ids seen as symbols: one symbol of 64,000 choices, or the six FSQ digits that the id is made of.

An FSQ token id is a mixed-radix number: ``id = sum_d digit_d * basis_d`` with ``basis = cumprod(1, levels)`` (Cosmos
quantizers.py). The digits are ordered quantities (neighbouring digits are neighbouring values), which a flat softmax
cannot know.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from wfm.errors import DataError
from wfm.models.at_hand import at_hand


class Vocabulary:
    """Splits token ids into symbols and logits into one block per symbol.

    ``sizes`` holds the number of choices of each symbol: ``(64000,)`` for a flat vocabulary, the FSQ levels for digits.
    ``begin`` is the id of the token that sequences begin with, None without one.
    """

    def __init__(self, levels: tuple[int, ...], *, digits: bool, begins: bool = False) -> None:
        self.levels = levels
        self.size = math.prod(levels)
        self.sizes: tuple[int, ...] = levels if digits else (self.size,)
        self.width = sum(self.sizes)  # logits of one token
        self.begin = self.size if begins else None

    def symbols(self, ids: Tensor) -> Tensor:
        """ids int64 ``[...]`` -> symbols int64 ``[..., S]``, S = len(sizes). Ids outside the vocabulary raise
        DataError."""
        if at_hand(ids) and ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= self.size):
            raise DataError(
                f"token ids span {int(ids.min())}..{int(ids.max())}, the vocabulary is {self.size} (levels {self.levels}): "
                "the tokens come from another tokenizer"
            )
        found, rest = [], ids
        for size in self.sizes:
            found.append(rest % size)
            rest = rest // size
        return torch.stack(found, dim=-1)

    def begun(self, patches: Tensor) -> Tensor:
        """ids ``[B, n, slots]`` of a video from its first on -> the sequence that enters the network: behind the token to
        begin with, ``[B, 1 + n, slots]``; as it is without one. Ids outside the vocabulary raise DataError."""
        if self.begin is None:
            return patches
        self.symbols(patches)  # the token to begin with is none that a video may hold
        return functional.pad(patches, (0, 0, 1, 0), value=self.begin)

    def require_begun(self, sequence: Tensor) -> None:
        """Raise DataError unless ids ``[B, n, slots]`` begin as `begun` has them."""
        if self.begin is not None and not torch.compiler.is_compiling() and bool((sequence[:, :1] != self.begin).any()):
            raise DataError(f"this model's sequences begin with token {self.begin}: put it in front (vocabulary.begun)")

    def ids(self, symbols: Tensor) -> Tensor:
        """symbols int64 ``[..., S]`` -> ids int64 ``[...]``; the inverse of ``symbols``."""
        total = torch.zeros_like(symbols[..., 0])
        for index in reversed(range(len(self.sizes))):
            total = total * self.sizes[index] + symbols[..., index]
        return total

    def one_hot(self, ids: Tensor) -> Tensor:
        """ids ``[...]`` -> int64 ``[..., width]`` with a one for each symbol."""
        symbols = self.symbols(ids)
        return torch.cat([functional.one_hot(symbols[..., s], size) for s, size in enumerate(self.sizes)], dim=-1)

    def split(self, logits: Tensor) -> tuple[Tensor, ...]:
        """logits ``[..., width]`` -> one block ``[..., size]`` for each symbol."""
        return logits.split(self.sizes, dim=-1)
