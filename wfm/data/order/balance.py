"""Equal tokens are not equal work: packs of like cost into the same step, and shared out evenly among its ranks."""

from typing import Any

import numpy as np

from wfm.data.order.hashing import hash64
from wfm.data.order.shuffle import permute
from wfm.errors import ConfigError


def cost_of(lengths: Any, dim: int) -> np.ndarray:
    """int64: what samples of so many tokens cost, as 6 * dim * l * (1 + l / (6 * dim)): a layer of width `dim` does work in
    proportion to l, its attention to l**2, and at l = 6 * dim to the same amount."""
    tokens = np.asarray(lengths, np.int64)
    return tokens * (6 * dim + tokens)


def arrange(costs: np.ndarray, steps: int, key: int) -> np.ndarray:
    """int64 [steps, packs]: which of a window's packs make up each step, by their costs [steps * packs].

    Packs are sorted by cost and cut into steps; the steps are shuffled, and the packs in each, so that neither the time of
    a step nor the place of a pack in it tells what is there. Ties go by the packs' places.
    """
    by_cost = np.argsort(costs, kind="stable").reshape(steps, -1)
    packs = by_cost.shape[1]
    rows = permute(np.arange(steps), steps, hash64(key, 0))
    columns = permute(np.arange(packs)[None], packs, hash64(key, 1, rows)[:, None])
    return by_cost[rows[:, None], columns]


def share_out(costs: np.ndarray, ranks: int) -> np.ndarray:
    """int64 [ranks, packs of each]: a step's packs, as many for each rank; given costliest first, there and back (0, 1, 1, 0).

    Raises ConfigError for ranks that do not divide the packs.
    """
    if ranks < 1 or len(costs) % ranks:
        raise ConfigError(
            f"{ranks} data-parallel ranks do not divide the {len(costs)} packs of a step: some would have more than others"
        )
    laid = np.argsort(-np.asarray(costs, np.int64), kind="stable").reshape(-1, ranks)
    laid[1::2] = laid[1::2, ::-1].copy()
    return laid.T


def imbalance(costs: np.ndarray) -> float:
    """The slowest rank's cost over the mean of a step's ranks, less 1, averaged over steps. `costs`: [steps, ranks]."""
    return float((costs.max(1) / costs.mean(1)).mean() - 1)
