"""A shuffle that is computed and not kept: any place of any permutation on its own."""

from typing import Any

import numpy as np

from wfm.data.order.hashing import below, scramble

ROUNDS = 16
"""Four are a permutation that no one tells from chance by few of its values. Small ones are seen whole: of five values some
orders come up half as often again as others after 8 rounds, and still measurably so after 12."""
LARGEST = 2**62
_ROUND = 0xD1342543DE82EF95


def permute(positions: Any, sizes: Any, keys: Any) -> np.ndarray:
    """int64: the values at `positions` of the pseudo-random permutations of range(size) that `keys` (uint64) give.

    Shapes broadcast; each element has a permutation of its own. 0 <= position < size <= `LARGEST`. A Feistel network over the
    numbers below a * b, a and b about the root of size: fewer than a of them are beyond size, and walk on until they are not
    (cycle walking), which keeps it a permutation.
    """
    arrays = np.broadcast_arrays(*(np.asarray(given).astype(np.uint64) for given in (positions, sizes, keys)))
    values, size, key = (array.ravel() for array in arrays)
    high = np.maximum(np.ceil(np.sqrt(size.astype(np.float64))), 1).astype(np.uint64)
    low = (size + high - np.uint64(1)) // high
    found = _network(values, high, low, key)
    walking = np.flatnonzero(found >= size)
    while len(walking):
        found[walking] = _network(found[walking], high[walking], low[walking], key[walking])
        walking = walking[found[walking] >= size[walking]]
    return found.astype(np.int64).reshape(arrays[0].shape)


def _network(values: np.ndarray, high: np.ndarray, low: np.ndarray, key: np.ndarray) -> np.ndarray:
    left = values // low
    right = values - left * low
    for number in range(ROUNDS):
        shift = key + np.uint64(number * _ROUND % 2**64)
        if number % 2:
            right = right + below(scramble(left + shift), low)
            right -= low * (right >= low)
        else:
            left = left + below(scramble(right + shift), high)
            left -= high * (left >= high)
    return left * low + right
