"""Bootstrap intervals at clip level, paired, clustered by session.

Windows of one recording share a world, a camera and often an action: they are not independent witnesses. So whole
sessions are drawn with replacement, each with all its windows (Davison & Hinkley 1997, 3.8). Gains are differences of
the same window under two methods, so they are paired by construction.
"""

from collections.abc import Sequence

import numpy as np

from wfm.evaluation.schema import Estimate

LEVEL = 0.95


class Bootstrap:
    """Draws, once, `resamples` sets of sessions; every statistic of the same windows then sees the same draws.

    With a single session its windows are drawn instead (`Estimate.sessions` says 1: read that interval with care).
    """

    def __init__(self, sessions: Sequence[str], *, resamples: int = 2000, seed: int = 0) -> None:
        names, codes = np.unique(np.asarray(sessions, dtype=object).astype(str), return_inverse=True)
        self.sessions = len(names)
        self.codes = codes if len(names) > 1 else np.arange(len(codes))
        groups = int(self.codes.max()) + 1 if len(self.codes) else 0
        generator = np.random.default_rng([seed, len(self.codes), groups])
        # How often each session was drawn [R, G].
        self.draws = (
            generator.multinomial(groups, np.full(groups, 1 / groups), size=resamples) if groups else np.zeros((0, 0))
        )

    def mean(self, values: np.ndarray) -> Estimate | None:
        """Mean of `values` [N] over the windows where it is finite; None when there is none."""
        return self.ratio(values, np.ones(len(values)))

    def ratio(self, over: np.ndarray, under: np.ndarray) -> Estimate | None:
        """sum(over) / sum(under), both [N], over windows where both are finite; None where that has no meaning
        (sum(under) <= 0)."""
        known = np.isfinite(over) & np.isfinite(under)
        if not known.any():
            return None
        tops, bottoms = self._by_group(np.where(known, over, 0.0)), self._by_group(np.where(known, under, 0.0))
        if bottoms.sum() <= 0:
            return None
        drawn_top, drawn_bottom = self.draws @ tops, self.draws @ bottoms  # [R]
        good = drawn_bottom > 0
        low, high = np.quantile(drawn_top[good] / drawn_bottom[good], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Estimate(
            mean=float(tops.sum() / bottoms.sum()),
            low=float(low),
            high=float(high),
            windows=int(known.sum()),
            sessions=self.sessions,
        )

    def curve(self, values: np.ndarray) -> tuple[list[float], list[float], list[float]]:
        """Mean, low and high [T] of `values` [N, T] (all finite), one draw of sessions for the whole curve."""
        tops = self._by_group(values)  # [G, T]
        bottoms = self._by_group(np.ones(len(values)))  # [G]
        drawn = (self.draws @ tops) / (self.draws @ bottoms)[:, None]  # [R, T]
        low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
        return values.mean(0).tolist(), low.tolist(), high.tolist()

    def _by_group(self, values: np.ndarray) -> np.ndarray:
        sums = np.zeros((self.draws.shape[1], *values.shape[1:]))
        np.add.at(sums, self.codes, values)
        return sums
