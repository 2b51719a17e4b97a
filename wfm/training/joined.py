"""Samples with what goes with them: of each its window of the signals, what conditions read of it, and its text."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from json import dumps
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from wfm.conditions.condition import Condition, View
from wfm.data.captions import CaptionTable
from wfm.data.lengths import Lengths
from wfm.data.order.sources import keys_of
from wfm.data.passes import close_all, counters_of, read_many
from wfm.data.samples import Samples
from wfm.data.signals import SignalTable


@dataclass(frozen=True)
class Signals:
    """The signals of samples' clips."""

    table: SignalTable | None
    "None: no sample has any."
    described: Mapping[str, Mapping[str, Any]]
    "Name -> shape and meaning, of all that any source has: a sample of another has zeros that nobody believes."
    identity: str = ""
    "Key of the artifact that holds them."
    mirror_signs: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @cached_property
    def meanings(self) -> dict[str, Any]:
        """What the numbers of each are."""
        return {name: one["meaning"] for name, one in self.described.items()}


_NONE = Signals(None, {})


@dataclass(frozen=True)
class Text:
    """The text of samples, row by row."""

    captions: CaptionTable
    identity: str
    "Key of the artifact that holds it."


class JoinedSamples:
    """`samples` (whose rows are those of `table`: clip_id, start_frame, num_frames, mirrored, fps) with what conditions read of
    their signals, and text. Of the signals themselves a sample holds nothing: models read conditions.

    Raises DataError for a sample that signals do not cover, ConfigError for mirror images of signals without signs.
    """

    def __init__(
        self,
        samples: Samples,
        table: pa.Table | Lengths,
        fps: float,
        *,
        signals: Signals = _NONE,
        text: Text | None = None,
        conditions: Iterable[Condition] = (),
    ) -> None:
        """fps: what stands for the rate of an image, which has none [1/s]."""
        self._samples, self._signals, self._text = samples, signals, text
        self._conditions = tuple(conditions)
        rates = table.column("fps").to_numpy().astype(np.float32)
        self._rates = np.where(rates > 0, rates, np.float32(fps))
        self._starts, self._frames = (table.column(name).to_numpy() for name in ("start_frame", "num_frames"))
        self._mirrored = table.column("mirrored").to_numpy()
        self._places = np.zeros(0, np.int64)
        if signals.table is not None:
            self._places = signals.table.places(table.column("clip_id"), self._starts, self._frames)
            if self._mirrored.any():
                signals.table.require_signs(signals.mirror_signs)

    @property
    def ids(self) -> Sequence[str]:
        """Of the samples."""
        return self._samples.ids

    @property
    def order_keys(self) -> np.ndarray:
        """uint64 [N]: see `Samples`."""
        return keys_of(self._samples)

    def __len__(self) -> int:
        return len(self._samples.ids)

    @property
    def shapes(self) -> np.ndarray:
        """int64 [N, 3]: see `Samples`."""
        return self._samples.shapes

    @property
    def text_width(self) -> int:
        """Of one token's embedding; 0 without text."""
        return 0 if self._text is None else self._text.captions.width

    @property
    def text_length(self) -> int:
        """Of the longest caption, in tokens; 0 without text."""
        return 0 if self._text is None else int(self._text.captions.lengths.max())

    @cached_property
    def sizes(self) -> np.ndarray:
        """int64 [N]: bytes of all that a sample holds."""
        sizes = self._samples.sizes
        width = sum(int(np.prod(one["shape"])) for one in self._signals.described.values())
        sizes = sizes + 4 * width * self._frames  # conditions read about as much as there is
        if self._text is not None:
            captions = self._text.captions
            sizes = sizes + 4 * captions.width * captions.lengths[captions.of_sample].numpy()
        return sizes

    @cached_property
    def identity(self) -> str:
        """sha256 of the samples, of what is joined to them, and of what the conditions are."""
        facts = [
            self._samples.identity,
            self._signals.identity,
            "" if self._text is None else self._text.identity,
            [[one.name, one.resolved()] for one in self._conditions],
        ]
        return sha256(dumps(facts, sort_keys=True).encode()).hexdigest()

    def read(self, row: int) -> dict[str, Tensor]:
        """Tensors of the sample, of each condition as its `read` says without a batch axis, `fps` fp32 `[]`, `text` `[L, D]`
        and `text_lengths` `[]`."""
        return self._joined(row, self._samples.read(row))

    def read_many(self, rows: Sequence[int]) -> list[dict[str, Tensor]]:
        """The same of several."""
        return [self._joined(row, one) for row, one in zip(rows, read_many(self._samples, rows), strict=True)]

    @property
    def counters(self) -> Counter[str]:
        """What reading them did so far."""
        return counters_of(self._samples)

    def close(self) -> None:
        """Nothing is read any more."""
        close_all(self._samples)

    def _joined(self, row: int, sample: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = dict(sample)
        found["fps"] = torch.tensor(self._rates[row])
        view = self._view(row)
        for condition in self._conditions:
            found |= {name: torch.from_numpy(np.array(one[0])) for name, one in condition.read(view).items()}
        return found if self._text is None else found | self._text.captions.row(row)

    def _view(self, row: int) -> View:
        """What conditions may look at: the one sample's signals, as a batch of one."""
        of, frames = self._signals, int(self._frames[row])
        window: dict[str, np.ndarray] = {}
        if of.table is not None:
            place, start, turned = int(self._places[row]), int(self._starts[row]), bool(self._mirrored[row])
            window = of.table.window(place, start, frames, turned, mirror_signs=of.mirror_signs)
        for name, described in of.described.items():
            if name not in window:
                zeros = np.zeros((frames, *described["shape"]), np.float32)
                window |= {name: zeros, f"has_{name}": np.array(False)}
        arrays = {name: array[None] for name, array in window.items()}
        return View(arrays, frames, float(self._rates[row]), of.meanings)

    def signal_range(self, name: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Least and greatest value `[...]` of each component of a signal in the samples that have it, without reading them;
        None where none has it."""
        table = self._signals.table
        if table is None or name not in table.meanings:
            return None
        return table.range_of(
            name, self._places, self._starts, self._frames, self._mirrored, mirror_signs=self._signals.mirror_signs
        )
