"""Data order: a permutation each epoch, the same after a restart, for any number of ranks."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wfm.data.plan import DataPlan, permute
from wfm.errors import ConfigError


@given(st.integers(1, 400), st.integers(0, 2**63 - 1))
def test_permute_is_a_permutation(size, key):
    assert sorted(permute(i, size, key) for i in range(size)) == list(range(size))


def test_permute_depends_on_the_key_and_shuffles():
    orders = [[permute(i, 200, key) for i in range(200)] for key in range(4)]
    assert len({tuple(order) for order in orders}) == 4
    assert all(np.mean(np.diff(order) == 1) < 0.1 for order in orders)


def ids(count: int) -> list[str]:
    return [f"s{i}" for i in range(count)]


def walk(plan: DataPlan, batches: int, state=None):
    state = plan.start() if state is None else state
    out = []
    for _ in range(batches):
        batch, state = plan.next(state)
        out.append(batch)
    return out, state


@pytest.mark.parametrize("streams", [1, 2, 4])
def test_an_epoch_takes_each_sample_once(streams):
    plan = DataPlan(ids(24), batch_size=8, seed=3, streams=streams)
    batches, state = walk(plan, 3)
    assert sorted(np.concatenate([batch.indices for batch in batches])) == list(range(24))
    assert all((batch.epochs == 0).all() for batch in batches)
    again, _ = walk(plan, 3, state)
    assert (again[0].epochs == 1).all()
    assert [b.indices.tolist() for b in again] != [b.indices.tolist() for b in batches]


def test_batches_run_over_the_end_of_an_epoch():
    plan = DataPlan(ids(5), batch_size=4, seed=0)
    batches, _ = walk(plan, 5)
    flat = np.concatenate([batch.indices for batch in batches])
    assert [sorted(flat[i : i + 5]) for i in range(0, 20, 5)] == [list(range(5))] * 4


def test_restored_state_continues_with_the_very_next_batch():
    plan = DataPlan(ids(10), batch_size=4, seed=1, streams=2)
    unbroken, _ = walk(plan, 9)
    _, state = walk(plan, 4)
    saved = json.loads(json.dumps(plan.save(state)))
    resumed, _ = walk(plan, 5, DataPlan(ids(10), batch_size=4, seed=1, streams=2).restore(saved))
    for one, two in zip(unbroken[4:], resumed, strict=True):
        assert (one.indices == two.indices).all()
        assert (one.seeds == two.seeds).all()


@pytest.mark.parametrize("world", [1, 2, 3, 4, 8, 11])
def test_ranks_share_the_same_global_batch(world):
    plan = DataPlan(ids(30), batch_size=8, seed=5)
    batch, _ = plan.next(plan.start())
    shares = [batch.of_rank(rank, world) for rank in range(world)]
    for rank, share in enumerate(shares):
        assert (share.seeds == batch.seeds[rank::world]).all()
        assert (share.indices == batch.indices[rank::world]).all()
    sizes = [len(share.indices) for share in shares]
    assert sum(sizes) == 8
    assert max(sizes) - min(sizes) <= 1


def test_a_sample_keeps_its_seed_when_others_come():
    few, many = (DataPlan(ids(n), batch_size=n, seed=0) for n in (6, 12))
    seeds = {}
    for plan in (few, many):
        batch, _ = plan.next(plan.start())
        for index, seed in zip(batch.indices, batch.seeds, strict=True):
            seeds.setdefault(plan.sample_ids[index], set()).add(int(seed))
    assert all(len(seeds[name]) == 1 for name in few.sample_ids)
    assert len({s for found in seeds.values() for s in found}) == 12


@pytest.mark.parametrize("change", [{"seed": 2}, {"num_samples": 11}, {"version": 99}])
def test_a_state_of_another_order_is_refused(change):
    plan = DataPlan(ids(10), batch_size=2, seed=1)
    with pytest.raises(ConfigError, match=next(iter(change))):
        plan.restore({**plan.save(plan.start()), **change})


def test_too_few_samples_and_odd_batches_are_refused():
    with pytest.raises(ConfigError, match="too little data"):
        DataPlan(ids(1), batch_size=2, seed=0, streams=2)
    with pytest.raises(ConfigError, match="batch_size"):
        DataPlan(ids(9), batch_size=3, seed=0, streams=2)
