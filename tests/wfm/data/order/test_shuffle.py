"""Permutations computed place by place: that they are, and that no one would tell them from chance."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wfm.data.order import twins
from wfm.data.order import shuffle
from wfm.data.order.hashing import hash64
from wfm.data.order.shuffle import permute

KEYS = st.integers(0, 2**64 - 1)


@settings(deadline=None)
@given(st.integers(1, 700), KEYS)
def test_it_is_a_permutation(size, key):
    assert sorted(permute(np.arange(size), size, key).tolist()) == list(range(size))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 2**45), st.integers(0, 2**45), KEYS), min_size=1, max_size=20))
def test_each_element_of_an_array_is_what_the_plain_twin_says(cases):
    sizes, places, keys = zip(*[(size, place % size, key) for size, place, key in cases], strict=True)
    found = permute(np.array(places), np.array(sizes), np.array(keys, np.uint64))
    assert found.tolist() == [twins.permute(*case) for case in zip(places, sizes, keys, strict=True)]


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=5))
def test_the_hash_is_what_the_plain_twin_says(parts):
    assert hash64(*parts).tolist() == [twins.hash64(*parts)]


def chi_square(counts: np.ndarray) -> float:
    """Standard deviations that the counts are further from even than chance leaves them, in the mean."""
    expected = counts.mean()
    degrees = counts.size - 1
    return ((((counts - expected) ** 2) / expected).sum() - degrees) / np.sqrt(2 * degrees)


def orders_of(size: int) -> float:
    """How uneven all orders of `size` values come up, over keys in a row."""
    keys = np.arange(30_000, dtype=np.uint64)
    orders = Counter(map(tuple, permute(np.arange(size)[None], size, keys[:, None]).tolist()))
    return abs(chi_square(np.array([orders[order] for order in itertools.permutations(range(size))])))


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_all_orders_of_a_few_come_up_alike(size):
    assert orders_of(size) < 5


def test_half_the_rounds_would_not_do(monkeypatch):
    monkeypatch.setattr(shuffle, "ROUNDS", 8)
    assert orders_of(5) > 20


def test_every_value_stands_in_every_place_alike():
    found = permute(np.arange(30)[None], 30, np.arange(10_000, dtype=np.uint64)[:, None])
    counts = np.array([np.bincount(found[:, place], minlength=30) for place in range(30)])
    assert abs(chi_square(counts)) < 5


def test_neighbours_do_not_stay_neighbours():
    found = permute(np.arange(30)[None], 30, np.arange(10_000, dtype=np.uint64)[:, None])
    assert abs((np.diff(found) == 1).mean() - 1 / 30) < 0.001


def test_a_large_one_has_no_trace_of_the_order_before_nor_of_another_key():
    size = 100_000
    one, other = permute(np.arange(size), size, 1), permute(np.arange(size), size, 2)
    limit = 5 / np.sqrt(size)
    assert abs(np.corrcoef(one, np.arange(size))[0, 1]) < limit
    assert abs(np.corrcoef(one, other)[0, 1]) < limit
    assert all(abs(np.corrcoef(one[:-lag], one[lag:])[0, 1]) < limit for lag in (1, 2, 316, 317))
    assert (one == np.arange(size)).sum() < 8  # of fixed points there is one in the mean
    bits = [(one >> bit & 1) for bit in range(10)]
    assert all(abs(np.corrcoef(bit, np.arange(size) >> low & 1)[0, 1]) < limit for bit in bits for low in range(10))
