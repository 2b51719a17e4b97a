"""The segments of a pack as a tensor of one shape for all packs, and what follows from their lengths.

A compiled network must not see lengths as numbers: each pack has others, and each would be another graph. So segments are
where they begin, `[most + 1]`, with room for a fixed number of them: behind the last one the total is repeated, which are
segments of length 0. Kernels that run segment by segment read the lengths on the host; the same neighbours in length are one
dense call (`equal_runs`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Self

import torch
from torch import Tensor

from wfm.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Segments:
    """Where the segments of a pack lie."""

    bounds: Tensor
    "int32 `[most + 1]`: segment i is tokens bounds[i] to bounds[i + 1]; those behind the last one are empty."
    longest: int
    "No segment is longer; a fixed number, that a compiled kernel may rely on."
    lengths: tuple[int, ...] | None = None
    "All `most` of them, on the host; None: read from `bounds` where they are needed. A compiled network never looks at them."
    known: Tensor | None = None
    "`bounds` in host memory, for kernels that go segment by segment; None: they read `bounds`, and wait for its device."

    @classmethod
    def of(
        cls,
        lengths: Sequence[int],
        *,
        most: int = 0,
        longest: int = 0,
        device: torch.device | None = None,
    ) -> Self:
        """Of these lengths, padded to `most` segments (0: as many as there are); `longest`: the bound (0: what is longest
        here). Raises ConfigError for more segments, a longer one, or a length below 0."""
        lengths = tuple(int(n) for n in lengths)
        most, longest = most or len(lengths), longest or max(lengths, default=0)
        if len(lengths) > most or max(lengths, default=0) > longest or min(lengths, default=0) < 0:
            raise ConfigError(
                f"segments: {len(lengths)} of {min(lengths, default=0)} to {max(lengths, default=0)} tokens; there is room for "
                f"{most} of 0 to {longest}: raise the limits of the pack"
            )
        lengths = (*lengths, *(0 for _ in range(most - len(lengths))))
        bounds = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
        return cls(bounds if device is None else bounds.to(device, non_blocking=True), longest, lengths, bounds)

    @property
    def at_host(self) -> Tensor:
        """`bounds`, in host memory where they are known there."""
        return self.bounds if self.known is None else self.known

    def host(self) -> tuple[int, ...]:
        """The lengths. Waits for the device where they are not known."""
        return tuple(self.bounds.diff().tolist()) if self.lengths is None else self.lengths


AnySegments = Segments | Sequence[int]


def lengths_of(segments: AnySegments) -> Sequence[int]:
    """The lengths of either."""
    return segments.host() if isinstance(segments, Segments) else segments


def equal_runs(*lengths: Sequence[int]) -> list[tuple[int, ...]]:
    """(how many, length, ...) of neighbouring segments that are equally long, in each of `lengths`."""
    return [(len(list(group)), *key) for key, group in groupby(zip(*lengths, strict=True))]
