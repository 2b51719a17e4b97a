"""Statistics of latents over all parts, from sums that each part leaves. Torch is needed by whoever adds latents, not here."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wfm.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor


class Moments:
    """Sums of latents by channel and latent frame, in fp64: a column for each of the first, and the last column for all from
    there on."""

    def __init__(self, columns: int, values: dict[str, Any] | None = None) -> None:
        self.count = np.array(values["count"]) if values else np.zeros(columns)
        self.total = np.array(values["total"]) if values and values["total"] else None
        self.square = np.array(values["square"]) if values and values["square"] else None

    def add(self, latents: "Tensor") -> None:
        """Latents `[N, C, t, h, w]`."""
        last = len(self.count) - 1
        columns = [latents[:, :, i : i + 1 if i < last else None].double() for i in range(last + 1)]
        total = np.stack([x.sum((0, 2, 3, 4)).numpy() for x in columns], axis=1)  # [C, F]
        square = np.stack([x.square().sum((0, 2, 3, 4)).numpy() for x in columns], axis=1)
        self._merge(np.array([x[:, 0].numel() for x in columns], dtype=float), total, square)

    def merge(self, other: "Moments") -> None:
        """Take in the sums of another part."""
        if other.total is not None and other.square is not None:
            self._merge(other.count, other.total, other.square)

    def _merge(self, count: np.ndarray, total: np.ndarray, square: np.ndarray) -> None:
        self.count = self.count + count
        self.total = total if self.total is None else self.total + total
        self.square = square if self.square is None else self.square + square

    def values(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "count": self.count.tolist(),
            "total": [] if self.total is None else self.total.tolist(),
            "square": [] if self.square is None else self.square.tolist(),
        }

    def statistics(self) -> dict[str, Any]:
        """`mean` and `std` `[C][f]`, f the columns that windows of this length have. Empty without latents."""
        if self.total is None or self.square is None:
            return {"mean": [], "std": []}
        seen = self.count > 0
        mean = self.total[:, seen] / self.count[seen]
        variance = np.maximum(self.square[:, seen] / self.count[seen] - mean**2, 1e-12)
        return {"mean": mean.tolist(), "std": np.sqrt(variance).tolist()}


def write_summary(parts: Iterable[Path], out: Path) -> None:
    """`latent_statistics.json` of the whole from the parts' `moments.json`, in the order given."""
    moments = None
    for part in parts:
        values = json.loads((part / "moments.json").read_text())
        found = Moments(len(values["count"]), values)
        moments = moments or Moments(len(found.count))
        moments.merge(found)
    if moments is None:
        raise DataError("no parts to summarise: nothing was encoded")
    (out / "latent_statistics.json").write_text(json.dumps(moments.statistics(), indent=1, sort_keys=True) + "\n")
