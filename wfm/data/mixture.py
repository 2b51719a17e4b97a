"""Mixture weights: how often the clips of each category are drawn in training.

A table holds ``clip_id``, ``weight`` (relative to a mean of 1) and, where a taxonomy made it, ``category``. All windows of a
clip have its weight. What is made of it in an epoch: `order`.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from wfm.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

ALL = "all"
"""The one category of a table that names none."""
_SHOWN = 4


@dataclass(frozen=True)
class Mixture:
    """Weights and categories by clip id."""

    weights: dict[str, float]
    categories: dict[str, str]

    @cached_property
    def sha256(self) -> str:
        """Of clips, weights and categories, whatever their order and file."""
        rows = (f"{clip}\x1f{self.weights[clip]!r}\x1f{self.categories[clip]}\n" for clip in sorted(self.weights))
        return hashlib.sha256("".join(rows).encode()).hexdigest()

    def of_samples(self, sample_ids: Sequence[str]) -> tuple[float, ...]:
        """A weight for each sample, scaled to a mean of 1 over them.

        A sample is a clip or one of its windows, named ``<clip id>`` followed by anything but a letter or digit. Raises
        DataError for a sample without a weight, for a category that is to be drawn and has no sample here, or when nothing
        is left: training would be of another mixture than was asked for.
        """
        clips = [self._clip(sample_id) for sample_id in sample_ids]
        total = math.fsum(self.weights[clip] for clip in clips)
        if not total > 0:
            raise DataError(f"mixture: the weights of all {len(clips)} samples are 0")
        seen = {self.categories[clip] for clip in clips}
        wanted: dict[str, int] = defaultdict(int)
        for clip, weight in self.weights.items():
            wanted[self.categories[clip]] += weight > 0
        if missing := [f"{name!r} ({count} clips)" for name, count in wanted.items() if count and name not in seen]:
            raise DataError(
                f"mixture: nothing to train on of {', '.join(missing[:_SHOWN])}: their clips are too short for a window,"
                " excluded, or beyond max_windows; take the category out of the taxonomy, or give it a share of 0"
            )
        return tuple(self.weights[clip] * len(clips) / total for clip in clips)

    def shares(self, sample_ids: Sequence[str]) -> dict[str, float]:
        """Category -> share of what is drawn of these samples, over many epochs."""
        found: dict[str, float] = defaultdict(float)
        for sample_id, weight in zip(sample_ids, self.of_samples(sample_ids), strict=True):
            found[self.categories[self._clip(sample_id)]] += weight / len(sample_ids)
        return dict(sorted(found.items()))

    def _clip(self, sample_id: str) -> str:
        if sample_id in self.weights:
            return sample_id
        end = next((place for place, letter in enumerate(sample_id) if not letter.isalnum()), len(sample_id))
        if sample_id[:end] in self.weights:
            return sample_id[:end]
        raise DataError(f"sample {sample_id!r} has no weight: make the mixture from the data set that is read")


def read_mixture(path: Path) -> Mixture:
    """A ``mixture.parquet``. Raises DataError for what `mixture_of` refuses, or a file that is no table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: not a table of clip_id and weight ({error})") from None
    return mixture_of(table, str(path))


def mixture_of(table: "pa.Table", name: str) -> Mixture:
    """From a table called ``name``. Raises DataError for one without these columns, weights that are no weights, or a clip
    twice."""
    if not {"clip_id", "weight"} <= set(table.column_names):
        raise DataError(f"{name}: wants the columns clip_id and weight, has {', '.join(table.column_names) or 'none'}")
    clips, weights = (table.column(column).to_pylist() for column in ("clip_id", "weight"))
    named = table.column("category").to_pylist() if "category" in table.column_names else [ALL] * len(clips)
    found = Mixture(dict(zip(clips, weights, strict=True)), dict(zip(clips, named, strict=True)))
    if len(found.weights) != len(table):
        raise DataError(f"{name}: a clip has two weights")
    for clip, weight in found.weights.items():
        if weight is None or not 0 <= weight < float("inf"):
            raise DataError(f"{name}: clip {clip!r} has the weight {weight!r}: a weight is 0 or more")
    return found
