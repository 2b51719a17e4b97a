"""Samples of their own shape: what the order plans from, what the loader reads.

An image, a clip of any length, size and aspect, as pixels, latents or tokens: each is a row. What the order needs of all
stands in arrays, one number a row, so that a million samples are planned without one of them being read; the tensors of one
come from `read`, when its turn comes.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from torch import Tensor


class Samples(Protocol):
    """Samples by row. Rows are places in the arrays; whatever outlives a process says the id instead.

    Those that know it without a look at each id have `order_keys` as well: uint64 [N], `wfm.data.order.sample_keys` of the ids;
    and `keys_differ`, whether it is known that no two of them are the same.
    """

    @property
    def ids(self) -> Sequence[str]:
        """Of the samples, each once."""

    @property
    def shapes(self) -> np.ndarray:
        """int64 [N, 3]: frames, height and width of each as the model sees it (of latents where it holds latents). Tokens of a
        sample are their product, those of one frame height times width."""

    @property
    def sizes(self) -> np.ndarray:
        """int64 [N]: bytes that a sample takes in memory once read, for limits on what is read ahead."""

    @property
    def identity(self) -> str:
        """sha256 of all that decides what a row gives."""

    def read(self, row: int) -> dict[str, Tensor]:
        """The tensors of one sample, without a batch axis. May be called by several threads at once.

        Raises DataError for a sample that is damaged (another may take its place), TryAgain where the storage did not answer.
        """
