"""What training on one sample takes: the unit of tokens a second and of the share of the peak that is used (MFU)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """Of one sample. Attention is to its own segment alone, so that packs of equal tokens are of unequal work: it grows with
    the square of each segment, not of the pack."""

    tokens: int
    "What the network sees of it, after patches."
    flops: int = 0
    "FLOPs of a training step on it, forward and backward, without recomputing; 0: not known."

    def __add__(self, other: "Work") -> "Work":
        """Of both."""
        return Work(self.tokens + other.tokens, self.flops + other.flops)

    def times(self, count: int) -> "Work":
        """Of so many."""
        return Work(self.tokens * count, self.flops * count)
