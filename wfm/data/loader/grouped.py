"""Packs on their way into a model: the samples of all packs as dense batches, one for each shape.

What depends on a sample alone (its noise, what is given of it, its conditions, its prior) is worked out for samples of one
shape at once, as in a batch of one shape; only where samples share an axis, in the transformer, are they a pack: the tokens of
the groups, one group behind the other. So equal segments are neighbours there, which kernels take in one call, and a batch of
one shape is a pack of one group.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from wfm.data.loader.batches import Batch, PackedBatch, Sample, stack
from wfm.errors import DataError

SHAPED = ("latents", "tokens")
"""Tensors whose last three axes are the shape of a sample."""


@dataclass(frozen=True, eq=False)
class GroupedBatch:
    """The packs that a rank has of a step, by shape of their samples."""

    batches: tuple[Batch, ...]
    """Samples of one shape that hold the same, each: tensors `[B, ...]` by name, with `seeds` int64 `[B]` and `packs` int64
    `[B]`, which pack each sample stands in. In the order of their shapes (frames, height, width); within one, of the lengths of
    what is ragged, so that equal ones are neighbours there too; else as they came."""

    def __len__(self) -> int:
        """Samples."""
        return sum(len(batch["seeds"]) for batch in self.batches)

    @property
    def tokens(self) -> int:
        """Frames times height times width, of all samples."""
        return sum(len(batch["seeds"]) * _tokens(batch) for batch in self.batches)

    def split(self) -> Iterator["GroupedBatch"]:
        """Pack by pack."""
        return self.parts(len(self._packs()))

    def parts(self, most: int) -> Iterator["GroupedBatch"]:
        """Its packs in at most so many nearly equal runs: fewer where there are fewer packs, none of them empty."""
        packs = self._packs()
        ends = [len(packs) * part // most for part in range(most + 1)] if most < len(packs) else range(len(packs) + 1)
        for first, past in pairwise(ends):
            yield self._of(torch.tensor(packs[first:past]))

    def _packs(self) -> list[int]:
        return sorted({number for batch in self.batches for number in batch["packs"].tolist()})

    def _of(self, packs: Tensor) -> "GroupedBatch":
        chosen = [(batch, torch.nonzero(torch.isin(batch["packs"], packs))[:, 0]) for batch in self.batches]
        return GroupedBatch(
            tuple({name: x[rows.to(x.device)] for name, x in batch.items()} for batch, rows in chosen if len(rows))
        )


def grouped(packed: PackedBatch) -> GroupedBatch:
    """Stack the samples of packs by shape. What has its lengths beside it (`text` with `text_lengths`) is padded with zeros.

    Raises DataError for a sample without latents and tokens, and where samples of one shape and the same names differ in the
    shape of another tensor.
    """
    packs = torch.bucketize(torch.arange(len(packed.samples)), packed.bounds[1:], right=True)
    places: dict[tuple[tuple[int, ...], tuple[str, ...]], list[int]] = {}
    for place, sample in enumerate(packed.samples):
        places.setdefault((_shape(sample, packed.sources[place]), tuple(sorted(sample))), []).append(place)
    batches = []
    for (_, names), members in sorted(places.items()):
        ragged = [name for name in names if name.endswith("_lengths")]
        members.sort(key=lambda place, ragged=ragged: [int(packed.samples[place][name]) for name in ragged])  # type: ignore[misc]
        index = torch.tensor(members)
        batch = stack(
            [packed.samples[place] for place in members],
            packed.seeds[index],
            lambda nth, members=members: f"sample {members[nth]} of the step, from {packed.sources[members[nth]]!r}",  # type: ignore[misc]
        )
        batches.append({**batch, "packs": packs[index]})
    return GroupedBatch(tuple(batches))


def batches_of(batch: "Mapping[str, Tensor] | GroupedBatch") -> tuple[Mapping[str, Tensor], ...]:
    """The dense batches of either: a batch of one shape is a pack of one group."""
    return batch.batches if isinstance(batch, GroupedBatch) else (batch,)


def _shape(sample: Sample, source: str) -> tuple[int, ...]:
    for name in SHAPED:
        if name in sample:
            return tuple(sample[name].shape[-3:])
    raise DataError(
        f"a sample of {source!r} holds {', '.join(sorted(sample))}, none of {', '.join(SHAPED)}: packs are of encoded samples"
    )


def _tokens(batch: Batch) -> int:
    name = next(name for name in SHAPED if name in batch)
    frames, height, width = batch[name].shape[-3:]
    return int(frames * height * width)
