"""What is measured between two points of a curve, added up where it was made.

    meter.add(values)            after each step: nothing is waited for
    meter.point(ranks)           the means since the last point, over all steps and ranks: everything is read at once
    meter.save(ranks), meter.restore(saved)     a run that goes on in the middle of an interval draws the same point

A number of the curves is a mean over every item (sample, token) of the interval, and never one step's value. Sums are in fp64.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wfm.models.loss import Mean, shown
from wfm.parallel.ranks import Ranks

Sums = dict[str, list[float]]
"""Name -> [total, count, peak]."""


class Meter:
    """Of one rank."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor | float, Tensor | float, float]] = {}

    def add(self, values: Mapping[str, Mean]) -> None:
        """Take in what a step, or a part of it, measured on this rank."""
        for name, value in values.items():
            total, count, _ = self._sums.get(name, (0.0, 0.0, 0.0))
            self._sums[name] = (total + _exact(value.total), count + _exact(value.count), value.peak)

    def point(self, ranks: Ranks) -> dict[str, float]:
        """The mean of each number since the last point; one of which there was nothing is left out. All ranks call it."""
        sums = self._of_all(ranks)
        self._sums = {}
        return {name: shown(total / count, peak) for name, (total, count, peak) in sums.items() if count}

    def save(self, ranks: Ranks) -> Sums:
        """The sums since the last point, as JSON values. All ranks call it; from here on rank 0 holds what all had."""
        sums = self._of_all(ranks)
        self._sums = {}
        if ranks.leads:
            self.restore(sums)
        return sums

    def restore(self, sums: Mapping[str, Any]) -> None:
        """Go on from saved sums; rank 0."""
        self._sums = {name: (float(total), float(count), float(peak)) for name, (total, count, peak) in sums.items()}

    def _of_all(self, ranks: Ranks) -> Sums:
        found: list[Sums] = ranks.gather(self._read(), "what was measured")
        whole: Sums = {}
        for one in found:
            for name, (total, count, peak) in one.items():
                sums = whole.setdefault(name, [0.0, 0.0, peak])
                sums[0], sums[1] = sums[0] + total, sums[1] + count
        return whole

    def _read(self) -> Sums:
        """Every sum in host memory: one wait for the device."""
        flat = [number for total, count, _ in self._sums.values() for number in (total, count)]
        held = [number for number in flat if isinstance(number, Tensor)]
        read = iter(torch.stack(held).tolist() if held else ())
        numbers = iter([next(read) if isinstance(number, Tensor) else number for number in flat])
        return {name: [next(numbers), next(numbers), peak] for name, (_, _, peak) in self._sums.items()}


def _exact(number: Tensor | float) -> Tensor | float:
    return number.detach().double() if isinstance(number, Tensor) else number
