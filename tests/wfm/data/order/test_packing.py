"""Streaming best-fit: nothing over the budget, nothing lost, nothing left waiting; a record goes on as if without a stop."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wfm.data.order import twins
from wfm.data.order.packing import Packer, StreamRecord

BUDGET = 100
LENGTHS = st.lists(st.integers(1, BUDGET), max_size=150)
BINS, AGE = st.integers(1, 6), st.integers(1, 40)


def tokens_in(record: StreamRecord, lengths: list[int]) -> list[int]:
    return [lengths[number] for pack in (*record.open, *record.closed) for number in pack]


def run(lengths, bins, age):
    packer = Packer(StreamRecord(), [], BUDGET, bins, age)
    packer.feed(lengths, len(lengths) + 1)
    return packer


@settings(deadline=None)
@given(LENGTHS, BINS, AGE)
def test_it_is_what_the_plain_twin_says(lengths, bins, age):
    closed, opened = twins.pack(lengths, BUDGET, bins, age)
    packer = run(lengths, bins, age)
    assert packer.closed == closed
    assert sorted(map(list, packer.record().open)) == sorted(opened)


@settings(deadline=None)
@given(LENGTHS, BINS, AGE)
def test_each_draw_is_in_one_pack_and_none_is_over_the_budget(lengths, bins, age):
    packer = run(lengths, bins, age)
    packs = [*packer.closed, *packer.record().open]
    assert sorted(number for pack in packs for number in pack) == list(range(len(lengths)))
    assert all(sum(lengths[number] for number in pack) <= BUDGET for pack in packs)
    assert len(packer.record().open) <= bins


@settings(deadline=None)
@given(LENGTHS, BINS, AGE)
def test_no_pack_outlives_the_age(lengths, bins, age):
    packer = run(lengths, bins, age)
    assert all(pack[-1] - pack[0] < age for pack in packer.closed)
    assert all(len(lengths) - pack[0] <= age for pack in packer.record().open)


def test_without_an_age_a_sample_waits_for_ever():
    lengths = [60] + [99] * 500
    closed, opened = twins.pack(lengths, BUDGET, 2)
    assert [0] in opened
    assert [0] in run(lengths, 2, 40).closed
    assert run(lengths, 2, 40).closed.index([0]) < 41 < len(closed)


@settings(max_examples=60, deadline=None)
@given(LENGTHS, BINS, AGE, st.data())
def test_a_packer_from_a_record_goes_on_as_if_without_a_stop(lengths, bins, age, data):
    """Taken one at a time, and stopped at any of them."""
    unbroken = run(lengths, bins, age)
    record, packs = StreamRecord(), []
    while True:
        packer = Packer(record, tokens_in(record, lengths), BUDGET, bins, age)
        assert packer.fits()
        wanted = data.draw(st.integers(1, 3))
        packer.feed(lengths[record.drawn :], wanted)
        if len(packer.closed) < wanted:
            break
        packs += packer.take(wanted)
        record = packer.record()
        assert len(record.closed) <= 1
    assert packs + packer.closed == unbroken.closed
    assert packer.record().open == unbroken.record().open


def test_streaming_wastes_less_than_buffers_that_are_flushed():
    """Eight open packs against buffers eight times what lies in them."""
    lengths = np.random.default_rng(0).permutation(np.concatenate(twins.lengths_of(0))).tolist()
    packer = Packer(StreamRecord(), [], 65_536, 8, 512)
    packer.feed(lengths, math.inf)
    tokens = [sum(lengths[number] for number in pack) for pack in packer.closed]
    flushed = twins.greedy_buffers(lengths, 65_536, 256)
    assert 1 - np.mean(tokens) / 65_536 < 0.002
    assert 1 - sum(lengths) / len(flushed) / 65_536 > 0.01
