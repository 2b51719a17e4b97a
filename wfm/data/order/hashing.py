"""64-bit hashes of integers, on whole arrays: what the order draws from instead of a generator with a state."""

from typing import Any

import numpy as np

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def scramble(values: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser of uint64 values: a bijection in which each bit depends on all."""
    values = values ^ (values >> np.uint64(30))
    values *= _FIRST
    values ^= values >> np.uint64(27)
    values *= _SECOND
    values ^= values >> np.uint64(31)
    return values


def hash64(*parts: Any) -> np.ndarray:
    """uint64: a hash of integers or arrays of them, in this order; shapes broadcast. Never of shape ()."""
    value = np.zeros(1, np.uint64)
    for part in parts:
        value = scramble((value ^ np.asarray(part).astype(np.uint64)) + _STEP)
    return value


def below(values: np.ndarray, bound: np.ndarray) -> np.ndarray:
    """uint64 hashes as whole numbers in [0, bound), bound at most 2**32: by their upper half, without a division."""
    return ((values >> np.uint64(32)) * bound) >> np.uint64(32)
