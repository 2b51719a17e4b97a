"""Phases: each order for its steps, numbered through, and the same after a kill in any of them."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wfm.artifacts.schema import encode, parse
from wfm.data.order import Batching, BatchOrder, Lane, Order, Packing, Phase, Phases, Source
from wfm.errors import ConfigError, DataError

SHAPES = np.array([(1, 2, 2), (1, 2, 4), (3, 2, 2), (5, 2, 4)])


def lane(seed, count=40) -> Lane:
    shapes = SHAPES[np.random.default_rng(seed).integers(0, 4, count)]
    keys = np.arange(count, dtype=np.uint64)
    return Lane("all", [Source("clips", shapes.prod(1), keys, frames=shapes[:, 1:].prod(1), shapes=shapes)])


def batches(steps=(7, 5, 0)) -> Phases:
    hows = [Batching(3), Batching(tokens=40), Batching(5)]
    return Phases(
        [Phase(BatchOrder([lane(seed)], how, seed), n) for seed, (how, n) in enumerate(zip(hows, steps, strict=True))]
    )


def packs(steps=(7, 5, 0)) -> Phases:
    how = [Packing(budget, 4, streams=4, bins=2, age=20, window=2) for budget in (40, 60, 80)]
    return Phases([Phase(Order([lane(seed)], how[seed], seed), n) for seed, n in enumerate(steps)])


def walk(order, count, state=None):
    found, state = [], order.start() if state is None else state
    for _ in range(count):
        step, state = order.next(state)
        found.append(step)
    return found, state


@pytest.mark.parametrize("make", [batches, packs])
def test_each_phase_is_its_order_for_its_steps_numbered_through(make):
    steps, _ = walk(make(), 20)
    assert [step.number for step in steps] == list(range(20))
    assert [step.lane for step in steps] == ["0/all"] * 7 + ["1/all"] * 5 + ["2/all"] * 8
    assert make().sources == {f"{number}/all": ("clips",) for number in range(3)}
    for phase, first, end in zip(make().phases, (0, 7, 12), (7, 12, 20), strict=True):
        alone = walk(phase.order, end - first)[0]
        tables = [[pack.table.tolist() for step in found for pack in step.packs] for found in (steps[first:end], alone)]
        assert tables[0] == tables[1]


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([batches, packs]), st.lists(st.integers(0, 9), min_size=1, max_size=4))
def test_killed_in_any_phase_and_resumed_the_steps_are_the_same(make, runs):
    unbroken = [step.sha256 for step in walk(make(), sum(runs) + 1)[0]]
    saved, found = None, []
    for count in [*runs, 1]:
        order = make()
        steps, state = walk(order, count, order.start() if saved is None else order.restore(parse(saved, "state")))
        found += [step.sha256 for step in steps]
        saved = encode(order.save(state))
    assert found == unbroken


@pytest.mark.parametrize("make", [batches, packs])
def test_a_stand_in_comes_from_the_phase_of_the_step(make):
    order = make()
    step = walk(order, 9)[0][-1]
    alone = order.phases[1].order
    for pack in step.packs:
        new = order.replace(step.lane, pack, 0, 0)
        assert new.table.tolist() == alone.replace("all", pack, 0, 0).table.tolist()
        assert new.rows[0] != pack.rows[0]


@pytest.mark.parametrize("make", [batches, packs])
def test_the_last_phase_goes_on_behind_its_steps(make):
    """A run that leaves batches out takes more than the phases have; whatever came before is what it was."""
    ended, open_ended = make((7, 5, 3)), make()
    steps, state = walk(ended, 15)
    more, _ = walk(ended, 4, ended.restore(json.loads(encode(ended.save(state)))))
    assert [step.sha256 for step in [*steps, *more]] == [step.sha256 for step in walk(open_ended, 19)[0]]
    assert [step.number for step in more] == [15, 16, 17, 18]


def test_the_end_as_it_was_written_before_is_read():
    order = batches((7, 5, 3))
    _, state = walk(order, 15)
    written = {**order.save(state), "phase": 3}
    assert order.restore(json.loads(encode(written))) == state
    with pytest.raises(DataError, match="step 2 of phase 3, which has 3"):
        order.restore(json.loads(encode({**order.save(walk(order, 14)[1]), "phase": 3})))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda v: v.update(phase=9), DataError, "of phase 9, and there are 3"),
        (lambda v: v.update(phase=0), ConfigError, "of the order"),
        (lambda v: v.update(phase=-1), DataError, "'phase'"),
        (lambda v: v.update(order="0" * 64), ConfigError, "of the order 000000"),
        (lambda v: v["state"].update(step=5), DataError, "step 5 of phase 1, which has 5"),
        (lambda v: v.update(schema_version=7), ConfigError, "version 7"),
        (lambda v: v.update(state=[]), DataError, "'state'"),
    ],
)
def test_a_state_that_is_not_these_phases_is_refused(change, error, message):
    order = batches()
    values = json.loads(encode(order.save(walk(order, 9)[1])))
    change(values)
    with pytest.raises(error, match=message):
        order.restore(values)


def test_phases_that_are_none_are_refused():
    with pytest.raises(ConfigError, match=r"phases\[1\].steps is 0"):
        batches((7, 0, 3))
    with pytest.raises(ConfigError, match="there is none"):
        Phases([])
    with pytest.raises(ConfigError, match="some are of packs"):
        Phases([packs().phases[0], batches().phases[0]])
    assert batches((6, 6, 0)).sha256 != batches((7, 5, 0)).sha256
