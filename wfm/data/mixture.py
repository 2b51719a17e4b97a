"""Mixture weights: how often each sample stands in an epoch, as a pure function of (seed, sample, epoch).

A table ``mixture.parquet`` holds ``clip_id`` and ``weight`` (mean 1). In an epoch a sample of weight w stands floor(w) times,
and once more with the probability of what is left, drawn from a hash of its own: neither the order of the samples, nor the
number of ranks, nor a restart changes it, and over epochs the mean is w. A sample of weight 0 is never drawn.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from wfm.data.plan import mix
from wfm.errors import DataError


def read_mixture(path: Path) -> dict[str, float]:
    """clip id -> weight. Raises DataError for a table without these columns, weights that are no weights, or a clip twice."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=["clip_id", "weight"])
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: not a table of clip_id and weight ({error})") from None
    if table.column_names != ["clip_id", "weight"]:
        raise DataError(f"{path}: wants the columns clip_id and weight, has {', '.join(table.column_names) or 'none'}")
    weights = dict(zip(table.column("clip_id").to_pylist(), table.column("weight").to_pylist(), strict=True))
    if len(weights) != len(table):
        raise DataError(f"{path}: a clip has two weights")
    for clip_id, weight in weights.items():
        if weight is None or not 0 <= weight < float("inf"):
            raise DataError(f"{path}: clip {clip_id!r} has the weight {weight!r}: a weight is 0 or more")
    return weights


def epoch_rows(sample_ids: Sequence[str], weights: Mapping[str, float], epoch: int, seed: int) -> np.ndarray:
    """int64: rows of ``sample_ids``, each as often as it stands in the epoch, in their order (a plan shuffles them).

    weights: by sample id; a sample may also be a window, named ``<clip id>`` followed by anything but a letter or digit. Raises
    DataError for a sample without a weight, or when nothing is left.
    """
    counts = np.zeros(len(sample_ids), np.int64)
    for row, sample_id in enumerate(sample_ids):
        weight = _weight(sample_id, weights)
        chance = mix(seed, "mixture", sample_id, epoch) / 2**63
        counts[row] = int(weight) + (chance < weight - int(weight))
    if not counts.any():
        raise DataError(f"no sample stands in epoch {epoch}: the weights of all {len(sample_ids)} are 0 or next to it")
    return np.repeat(np.arange(len(sample_ids)), counts)


def _weight(sample_id: str, weights: Mapping[str, float]) -> float:
    if sample_id in weights:
        return weights[sample_id]
    end = next((place for place, letter in enumerate(sample_id) if not letter.isalnum()), len(sample_id))
    if sample_id[:end] in weights:
        return weights[sample_id[:end]]
    raise DataError(f"sample {sample_id!r} has no weight: make the mixture from the data set that is read")
