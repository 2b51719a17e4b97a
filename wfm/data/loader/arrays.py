"""Samples in memory: rows of arrays, and text beside them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import numpy as np
import torch
from torch import Tensor

from wfm.data.captions import CaptionTable
from wfm.errors import DataError

_SHAPED = {"latents": slice(-3, None), "tokens": slice(-3, None), "frames": slice(1, 4)}
"""Arrays that say how large a sample is, and which of their axes do."""


@dataclass(frozen=True)
class ArrayDataset:
    """Samples as rows of arrays, all `[N, ...]`, with one id each, and text embeddings where captions were encoded.

    A `wfm.data.samples.Samples`, and one that gives many rows at once.
    """

    sample_ids: tuple[str, ...]
    arrays: dict[str, Tensor]
    captions: CaptionTable | None = None
    "Batches then hold `text` `[B, L, D]` and `text_lengths` `[B]` too."

    def __post_init__(self) -> None:
        for name, array in self.arrays.items():
            if array.shape[0] != len(self.sample_ids):
                raise DataError(f"array {name!r} has {array.shape[0]} rows for {len(self.sample_ids)} samples")
        if self.captions is not None and len(self.captions.of_sample) != len(self.sample_ids):
            raise DataError(f"{len(self.captions.of_sample)} captions for {len(self.sample_ids)} samples")
        if len(set(self.sample_ids)) != len(self.sample_ids):
            raise DataError("sample ids are not unique")

    def __len__(self) -> int:
        return len(self.sample_ids)

    @property
    def ids(self) -> tuple[str, ...]:
        """Of the samples."""
        return self.sample_ids

    @cached_property
    def shapes(self) -> np.ndarray:
        """int64 [N, 3]: frames, height and width of `latents`, `tokens` or `frames`; 1, 1, 1 where there are none of these."""
        found = [array.shape[_SHAPED[name]] for name, array in self.arrays.items() if name in _SHAPED]
        return np.tile(np.array(found[0] if found else (1, 1, 1), np.int64), (len(self), 1))

    @cached_property
    def sizes(self) -> np.ndarray:
        """int64 [N]: bytes of all that a row holds."""
        each = sum(array[:1].nbytes for array in self.arrays.values())
        sizes = np.full(len(self), each, np.int64)
        if self.captions is not None:
            tokens = self.captions.lengths[self.captions.of_sample].numpy()
            sizes += tokens * self.captions.width * self.captions.embeddings.element_size() + 8
        return sizes

    @cached_property
    def identity(self) -> str:
        """sha256 of ids and values."""
        tensors = dict(self.arrays)
        if self.captions is not None:
            tensors |= {
                f"captions.{name}": getattr(self.captions, name) for name in ("embeddings", "lengths", "of_sample")
            }
        digest = sha256("\x1f".join(self.sample_ids).encode())
        for name, tensor in sorted(tensors.items()):
            digest.update(f"\x1e{name}\x1f{tensor.dtype}\x1f{tuple(tensor.shape)}\x1f".encode())
            digest.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def read(self, row: int) -> dict[str, Tensor]:
        """The given row of every array, `text` as long as it is."""
        sample = {name: array[row] for name, array in self.arrays.items()}
        if self.captions is not None:
            sample |= {name: value[0] for name, value in self.captions.rows(torch.tensor([row])).items()}
        return sample

    def rows(self, indices: Sequence[int] | np.ndarray) -> dict[str, Tensor]:
        """The given rows of every array, and their text padded to the longest."""
        index = torch.as_tensor(np.asarray(indices))
        batch = {name: array[index] for name, array in self.arrays.items()}
        return batch if self.captions is None else {**batch, **self.captions.rows(index)}
