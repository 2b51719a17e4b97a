"""Token ids seen as symbols: one symbol of 64,000 choices, or the six FSQ digits that the id is made of.

An FSQ token id is a mixed-radix number: ``id = sum_d digit_d * basis_d`` with ``basis = cumprod(1, levels)`` (Cosmos
quantizers.py). The digits are ordered quantities (neighbouring digits are neighbouring values), which a flat softmax
cannot know.
"""

import math

import torch
from torch import Tensor

from wfm.errors import DataError


class Vocabulary:
    """Splits token ids into symbols and logits into one block per symbol.

    ``sizes`` holds the number of choices of each symbol: ``(64000,)`` for a flat vocabulary, the FSQ levels for digits.
    """

    def __init__(self, levels: tuple[int, ...], *, digits: bool) -> None:
        self.levels = levels
        self.size = math.prod(levels)
        self.sizes: tuple[int, ...] = levels if digits else (self.size,)
        self.width = sum(self.sizes)  # logits of one token

    def symbols(self, ids: Tensor) -> Tensor:
        """ids int64 ``[...]`` -> symbols int64 ``[..., S]``, S = len(sizes). Ids outside the vocabulary raise
        DataError."""
        unchecked = torch.compiler.is_compiling()  # a look at values would break the graph: whoever compiles has looked
        if not unchecked and ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= self.size):
            raise DataError(
                f"token ids span {int(ids.min())}..{int(ids.max())}, the vocabulary is {self.size} (levels {self.levels}): "
                "the tokens come from another tokenizer"
            )
        found, rest = [], ids
        for size in self.sizes:
            found.append(rest % size)
            rest = rest // size
        return torch.stack(found, dim=-1)

    def ids(self, symbols: Tensor) -> Tensor:
        """symbols int64 ``[..., S]`` -> ids int64 ``[...]``; the inverse of ``symbols``."""
        total = torch.zeros_like(symbols[..., 0])
        for index in reversed(range(len(self.sizes))):
            total = total * self.sizes[index] + symbols[..., index]
        return total

    def split(self, logits: Tensor) -> tuple[Tensor, ...]:
        """logits ``[..., width]`` -> one block ``[..., size]`` for each symbol."""
        return logits.split(self.sizes, dim=-1)
