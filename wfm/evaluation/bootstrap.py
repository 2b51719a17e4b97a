"""Intervals at clip level, paired, clustered by session.

Windows of one recording share a world, a camera and often an action: they are not independent witnesses, so a session
counts once, with all its windows. Gains are differences of the same window under two methods, so they are paired by
construction.

An interval is a studentised one. Its spread is the jackknife's over sessions; its critical value is Student's, corrected
by a parametric bootstrap for what Student's t does not know: sessions of unequal weight, and the widening below. (Drawing
sessions with replacement and taking percentiles misses: with 8 sessions 85 to 89 % of the intervals called 95 % cover.)
Where the sessions' values are skewed, the end to which they trail off lies further out, by the skewness of the mean; the
end on the other side stays, so that a skewness which is only chance costs no coverage.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from wfm.evaluation.metric import WorldMetric
from wfm.evaluation.schema import Estimate

LEVEL = 0.95
SKEW = 2.0
"""An end lies further out by so many times the skewness of the mean. Of exponential effects 91 % are covered at 5 sessions and
93 % at 8; 0 covers 88 and 90 %. Normal ones are covered alike with any value, which `_critical` sees to."""


class Bootstrap:
    """Intervals of statistics of the same windows [N], `sessions` [N] naming the recording of each.

    Args: `resamples` of the parametric bootstrap, drawn by `seed`.
    """

    def __init__(self, sessions: Sequence[str], *, resamples: int = 2000, seed: int = 0) -> None:
        names, self.codes = np.unique(np.asarray(sessions, dtype=object).astype(str), return_inverse=True)
        self.sessions = len(names)
        self.resamples, self.seed = resamples, seed
        self._known: dict[bytes, float] = {}

    def mean(self, values: np.ndarray, *, share: bool = False) -> Estimate | None:
        """Mean of `values` [N] over the windows where it is finite; None when there is none. `share`: see `ratio`."""
        return self.ratio(values, np.ones(len(values)), share=share)

    def ratio(self, over: np.ndarray, under: np.ndarray, *, share: bool = False) -> Estimate | None:
        """sum(over) / sum(under), both [N], over windows where both are finite; None where that has no meaning
        (sum(under) <= 0). Of a `share` the interval ends at 0 and 1.

        Without an interval (`low` and `high` are None) where fewer than two sessions say anything, or where one of them alone
        decides whether there is a ratio.
        """
        known = np.isfinite(over) & np.isfinite(under)
        tops, bottoms = self._by_group(np.where(known, over, 0.0)), self._by_group(np.where(known, under, 0.0))
        if bottoms.sum() <= 0:
            return None
        there = (tops != 0) | (bottoms != 0)
        ends = self._ends(tops[there, None], bottoms[there])
        low, high = (None, None) if ends is None else (float(ends[0][0]), float(ends[1][0]))
        if share and low is not None and high is not None:
            low, high = max(low, 0.0), min(high, 1.0)
        return Estimate(
            mean=float(tops.sum() / bottoms.sum()),
            low=low,
            high=high,
            windows=int(known.sum()),
            sessions=int(there.sum()),
        )

    def world(self, row: WorldMetric, seen: Any) -> Estimate | None:
        """The figure of a metric that is read from what a section saw of a set of videos."""
        found = row.of(seen)
        return None if found is None else self.ratio(*found, share=row.share)

    def curve(self, values: np.ndarray) -> tuple[list[float], list[float], list[float]]:
        """Mean, low and high [T] of `values` [N, T] (all finite); low and high are empty for a single session."""
        ends = self._ends(self._by_group(values), self._by_group(np.ones(len(values))))
        low, high = ([], []) if ends is None else (ends[0].tolist(), ends[1].tolist())
        return values.mean(0).tolist(), low, high

    def _ends(self, tops: np.ndarray, bottoms: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Low and high [T] of the ratios of sums of `tops` [G, T] and `bottoms` [G]; None where there is no interval."""
        total = bottoms.sum()
        if len(bottoms) < 2 or (total - bottoms).min() <= 0:
            return None
        weights = bottoms / total
        means, spread, skewness = _studentise(tops.T / total, weights)
        half = self._critical(weights) * spread
        return means - half * (1 + SKEW * np.maximum(-skewness, 0)), means + half * (1 + SKEW * np.maximum(skewness, 0))

    def _critical(self, weights: np.ndarray) -> float:
        """The critical value with which `_ends` covers normal sessions of these `weights` [G] exactly: Student's, times what
        the same draws ask for in place of his, so that what is random in them all but cancels."""
        from scipy.special import stdtrit

        key = weights.tobytes()
        if key not in self._known:
            groups = len(weights)
            draws = np.random.default_rng([self.seed, groups]).standard_normal((self.resamples, groups))
            means, spread, skewness = _studentise(draws * weights, weights)
            far = np.abs(means) / spread / (1 + SKEW * np.maximum(-np.sign(means) * skewness, 0))
            plain_means, plain, _ = _studentise(draws / groups, np.full(groups, 1 / groups))
            ratio = np.quantile(far, LEVEL) / np.quantile(np.abs(plain_means) / plain, LEVEL)
            self._known[key] = float(stdtrit(groups - 1, (1 + LEVEL) / 2) * ratio)
        return self._known[key]

    def _by_group(self, values: np.ndarray) -> np.ndarray:
        sums = np.zeros((self.sessions, *values.shape[1:]))
        np.add.at(sums, self.codes, values)
        return sums


def _studentise(parts: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, its jackknife deviation and its skewness [R] of sessions whose `parts` [R, G] sum to the mean, of `weights` [G]
    that sum to 1."""
    groups = len(weights)
    means = parts.sum(1)
    apart = parts - means[:, None] * weights  # [R, G]
    apart[np.abs(apart) <= 1e-12 * np.abs(parts).max(1, keepdims=True, initial=0.0)] = 0.0  # rounding is no spread
    without = apart / (1 - weights)  # how far the mean moves, up to its sign, without each session
    spread = np.sqrt((groups - 1) / groups * ((without - without.mean(1, keepdims=True)) ** 2).sum(1))
    square = (apart**2).sum(1)
    skewness = (apart**3).sum(1) / np.where(square > 0, square, 1.0) ** 1.5
    return means, spread, skewness
