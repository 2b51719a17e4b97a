"""Exact rates: which of several sources has draw n, and how often it has been drawn before."""

import heapq
import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from wfm.errors import ConfigError

LONGEST = 2**16
"""Draws until a blend begins again: what is kept of it is a table so long."""


class Blend:
    """Sources at whole-number rates: of any first n draws, source i has more than n * rate_i / total - 1 and fewer than
    n * rate_i / total + 1, and after `total` draws exactly rate_i.

    Draw j of a source may not come before draw floor(j * total / rate) and must come before ceil((j + 1) * total / rate);
    whichever may come and must come first is next (earliest deadline first, which on such intervals misses none).
    """

    def __init__(self, rates: Sequence[int]) -> None:
        """Raises ConfigError for rates that are none, all 0, or whose total is too long a table."""
        wrong = [rate for rate in rates if isinstance(rate, bool) or not isinstance(rate, int) or rate < 0]
        if wrong or not any(rates):
            raise ConfigError(f"rates: {list(rates)!r}: whole numbers are wanted, 0 or more, one of them above 0")
        common = math.gcd(*rates)
        self.rates = tuple(rate // common for rate in rates)
        self.total = sum(self.rates)
        if self.total > LONGEST:
            raise ConfigError(
                f"rates: {list(rates)!r} repeat after {self.total} draws only, at most {LONGEST} are kept: round them"
            )

    def draws(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """int64, int64: of each draw its source, and how many draws that source had before it."""
        source, before = self._period
        rounds, place = np.divmod(numbers, self.total)
        return source[place], rounds * np.array(self.rates)[source[place]] + before[place]

    def draw(self, number: int) -> tuple[int, int]:
        """As `draws`, of one."""
        source, before = self._period
        rounds, place = divmod(number, self.total)
        index = int(source[place])
        return index, rounds * self.rates[index] + int(before[place])

    def count(self, number: int) -> tuple[int, ...]:
        """How often each source was drawn in the first `number` draws."""
        rounds, place = divmod(number, self.total)
        seen = np.bincount(self._period[0][:place], minlength=len(self.rates))
        return tuple(rounds * rate + int(more) for rate, more in zip(self.rates, seen, strict=True))

    @cached_property
    def _period(self) -> tuple[np.ndarray, np.ndarray]:
        source, before = np.empty(self.total, np.int64), np.empty(self.total, np.int64)
        waiting = [(0, index, 0) for index, rate in enumerate(self.rates) if rate]
        ready: list[tuple[int, int, int]] = []
        for number in range(self.total):
            while waiting and waiting[0][0] <= number:
                _, index, nth = heapq.heappop(waiting)
                heapq.heappush(ready, (-(-(nth + 1) * self.total // self.rates[index]), index, nth))
            _, index, nth = heapq.heappop(ready)
            source[number], before[number] = index, nth
            heapq.heappush(waiting, ((nth + 1) * self.total // self.rates[index], index, nth + 1))
        return source, before
