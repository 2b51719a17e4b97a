"""Packs of like cost into one step, and the same number of them for each rank."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wfm.data.order.balance import arrange, cost_of, imbalance, share_out
from wfm.errors import ConfigError

COSTS = st.tuples(st.integers(1, 8), st.integers(1, 8)).flatmap(
    lambda shape: st.tuples(
        st.just(shape[0]), st.lists(st.integers(1, 50), min_size=shape[0] * shape[1], max_size=shape[0] * shape[1])
    )
)


def test_attention_costs_as_much_as_all_else_at_six_times_the_width():
    dim = 5120
    assert cost_of([1], dim) == 6 * dim + 1
    assert cost_of([6 * dim], dim) == 2 * (6 * dim) ** 2
    assert cost_of([65_536], dim) < cost_of([2 * 65_536], dim) / 2


@settings(deadline=None)
@given(COSTS, st.integers(0, 2**63 - 1))
def test_a_window_has_each_pack_once_and_its_steps_are_runs_of_the_sorted_costs(case, key):
    steps, costs = case
    found = arrange(np.array(costs), steps, key)
    assert sorted(found.ravel().tolist()) == list(range(len(costs)))
    packs = len(costs) // steps
    twin = sorted(sorted(costs)[first : first + packs] for first in range(0, len(costs), packs))
    assert sorted(sorted(np.array(costs)[row].tolist()) for row in found) == twin


@settings(deadline=None)
@given(st.lists(st.integers(1, 1000), min_size=1, max_size=24))
def test_ranks_share_out_a_step_among_them(costs):
    for ranks in (number for number in range(1, len(costs) + 1) if len(costs) % number == 0):
        shares = share_out(np.array(costs), ranks)
        assert shares.shape == (ranks, len(costs) // ranks)
        assert sorted(shares.ravel().tolist()) == list(range(len(costs)))


def test_there_and_back_is_evener_than_every_nth():
    costs = np.random.default_rng(0).integers(1, 1000, (200, 16))
    shared = np.array([row[share_out(row, 4)].sum(1) for row in costs])
    every = np.array([[row[rank::4].sum() for rank in range(4)] for row in costs])
    assert imbalance(shared) < imbalance(every) / 3


def test_ranks_that_do_not_divide_the_packs_are_refused():
    with pytest.raises(ConfigError, match="3 data-parallel ranks do not divide the 8 packs"):
        share_out(np.ones(8, int), 3)


def test_steps_do_not_come_in_the_order_of_their_costs():
    orders = {tuple(np.argsort(arrange(np.arange(64), 16, key).min(1)).tolist()) for key in range(20)}
    assert len(orders) == 20
    assert tuple(range(16)) not in orders
