"""The order as a run sees it: the same global steps for any ranks and workers, before and after a kill."""

import json
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wfm.data.order import twins
from wfm.artifacts.schema import encode, parse
from wfm.data.order import Lane, Order, Packing, Source, sample_keys
from wfm.data.order.balance import imbalance, share_out
from wfm.data.order.stand_in import NEAREST
from wfm.errors import ConfigError, DataError

HOW = Packing(budget=300, packs=8, streams=4, bins=3, age=40, window=4)


def source_of(name, count, high, rate=1, weighted=False, seed=0) -> Source:
    random = np.random.default_rng([seed, count])
    weights = random.uniform(0.2, 2, count) if weighted else None
    ids = [f"{name}-{number}" for number in range(count)]
    return Source(name, random.integers(1, high + 1, count), sample_keys(ids), rate, weights)


def mixed(how=HOW, seed=3) -> Order:
    sources = [source_of("images", 300, 40, rate=3), source_of("clips", 90, 300, rate=2, weighted=True)]
    return Order([Lane("all", sources)], how, seed)


def alternating(how=HOW, seed=3) -> Order:
    lanes = [
        Lane("images", [source_of("images", 300, 40)], rate=1),
        Lane("clips", [source_of("clips", 90, 300)], rate=3),
    ]
    return Order(lanes, how, seed)


def walk(order, count, state=None):
    found, state = [], order.start() if state is None else state
    for _ in range(count):
        step, state = order.next(state)
        found.append(step)
    return found, state


def digests(steps):
    return [step.sha256 for step in steps]


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([mixed, alternating]), st.lists(st.integers(0, 9), min_size=1, max_size=5))
def test_killed_anywhere_and_resumed_elsewhere_the_steps_are_the_same(make, runs):
    """Each run is a process of its own as far as the order goes: it knows the bytes that the one before it left."""
    unbroken = digests(walk(make(), sum(runs) + 1)[0])
    saved, found = None, []
    for count in [*runs, 1]:
        order = make()
        state = order.start() if saved is None else order.restore(parse(saved, "state"))
        steps, state = walk(order, count, state)
        found += digests(steps)
        saved = encode(order.save(state))
    assert found == unbroken


def read_by(ranks: int, workers: int, steps: int) -> str:
    """A hash over the global batches as `ranks` processes with `workers` each would come by them: each rank plans for itself
    and hands its packs out to its workers in turn, who are asked in turn for what they have."""
    of_ranks = []
    for rank in range(ranks):
        mine = [pack for step in walk(mixed(), steps)[0] for pack in step.of_rank(rank, ranks)]
        queues = [mine[worker :: max(workers, 1)] for worker in range(max(workers, 1))]
        of_ranks.append([queues[place % len(queues)][place // len(queues)] for place in range(len(mine))])
    digest = sha256()
    for number, step in enumerate(walk(mixed(), steps)[0]):
        each = len(step.packs) // ranks
        placed = {}
        for rank, share in enumerate(share_out(step.costs, ranks)):
            placed |= dict(zip(share.tolist(), of_ranks[rank][number * each : (number + 1) * each], strict=True))
        for place in range(len(step.packs)):
            digest.update(placed[place].table.tobytes())
    return digest.hexdigest()


def test_any_number_of_ranks_and_workers_sees_the_same_global_batches():
    assert len({read_by(ranks, workers, 6) for ranks in (1, 2, 4, 8) for workers in (0, 1, 3)}) == 1


def test_ranks_that_do_not_divide_the_packs_are_refused():
    with pytest.raises(ConfigError, match="3 data-parallel ranks do not divide the 8 packs"):
        walk(mixed(), 1)[0][0].of_rank(0, 3)


@pytest.mark.parametrize("seed", [1, 2])
def test_no_sample_is_lost_or_repeated_in_an_epoch(seed):
    order = Order([Lane("clips", [source_of("clips", 203, 300)])], HOW, seed)
    steps, state = walk(order, 4 * 24)
    packs = [pack for step in steps for pack in step.packs]
    found = [pair for pack in packs for pair in zip(pack.epochs.tolist(), pack.rows.tolist(), strict=True)]
    assert len(set(found)) == len(found)
    # an epoch is over for a stream when its last draw has left the open packs
    waiting = [min((pack[0] for pack in stream.open), default=stream.drawn) for stream in state.lanes[0].streams]
    over = min(first // 51 for first in waiting)
    assert over >= 3
    assert {pair for pair in found if pair[0] < over} == {(epoch, row) for epoch in range(over) for row in range(203)}
    open_ones = sum(len(pack) for stream in state.lanes[0].streams for pack in (*stream.open, *stream.closed))
    assert len(found) + open_ones == sum(stream.drawn for stream in state.lanes[0].streams)


def test_packs_are_under_the_budget_and_seeds_are_each_samples_own():
    steps, _ = walk(mixed(), 40)
    packs = [pack for step in steps for pack in step.packs]
    assert max(pack.tokens for pack in packs) <= HOW.budget
    seeds = np.concatenate([pack.seeds for pack in packs])
    assert len(np.unique(seeds)) == len(seeds)
    bits = (seeds[:, None] >> np.arange(63) & 1).mean(0)
    assert np.abs(bits - 0.5).max() < 5 * 0.5 / np.sqrt(len(seeds))  # all 63 of them are drawn
    drawn = np.concatenate([pack.sources for pack in packs])
    assert abs((drawn == 0).mean() - 3 / 5) < 0.02


def test_a_seed_hangs_on_the_sample_and_not_on_its_row():
    one = source_of("clips", 90, 300)
    turned = Source("clips", one.lengths[::-1].copy(), one.keys[::-1].copy())
    found = []
    for source in (one, turned):
        steps, _ = walk(Order([Lane("all", [source])], HOW, 3), 12)
        first = [(source.keys[row], seed) for step in steps for pack in step.packs
                 for row, epoch, seed in zip(pack.rows, pack.epochs, pack.seeds, strict=True) if epoch == 0]  # fmt: skip
        found.append(dict(first))
    both = found[0].keys() & found[1].keys()
    assert len(both) > 40
    assert all(found[0][key] == found[1][key] for key in both)


def test_images_and_video_alternate_at_the_rates_of_their_lanes():
    steps, _ = walk(alternating(), 40)
    images = np.cumsum([step.lane == "images" for step in steps])
    assert np.abs(images - np.arange(1, 41) / 4).max() < 1
    assert {len(step.packs) for step in steps} == {HOW.packs}
    longest = {name: max(pack.lengths.max() for step in steps if step.lane == name for pack in step.packs)
               for name in ("images", "clips")}  # fmt: skip
    assert longest["images"] <= 40 < longest["clips"]


def test_a_lane_is_the_same_whatever_stands_beside_it():
    beside = [step for step in walk(alternating(), 40)[0] if step.lane == "clips"]
    alone = walk(Order([Lane("clips", [source_of("clips", 90, 300)])], HOW, 3), len(beside))[0]
    tables = [[pack.table.tolist() for step in steps for pack in step.packs] for steps in (beside, alone)]
    assert tables[0] == tables[1]


@pytest.mark.parametrize("rule", ["cut", "split", "leave_out"])
def test_oversize_samples_go_by_the_rule_and_are_counted(rule):
    source = Source("clips", np.array([100, 700] * 8), np.arange(16, dtype=np.uint64))
    order = Order([Lane("all", [source])], replace(HOW, oversize=rule), 0)
    held = order.pieces()["all"][0]
    assert (held.oversized, held.tokens_left) == (8, {"cut": 3200, "split": 0, "leave_out": 5600}[rule])
    packs = [pack for step in walk(order, 8)[0] for pack in step.packs]
    found = {key for pack in packs for key in zip(pack.starts.tolist(), pack.lengths.tolist(), strict=True)}
    more = {"cut": {(0, 300)}, "split": {(0, 233), (233, 233), (466, 234)}, "leave_out": set()}[rule]
    assert found == {(0, 100)} | more


@pytest.mark.parametrize("make", [mixed, alternating])
def test_a_sample_that_cannot_be_read_is_replaced_by_rule(make):
    """By one of its source that fits its place, the same for whoever asks, and another at the next attempt."""
    order, other = make(), make()
    step = walk(order, 3)[0][-1]
    for pack in step.packs:
        for place, (source, row, length) in enumerate(zip(pack.sources, pack.rows, pack.lengths, strict=True)):
            if length < 30:  # shorter ones have few to take their place
                continue
            found = [order.replace(step.lane, pack, place, attempt) for attempt in range(8)]
            for new in found:
                assert new.rows[place] != row
                assert new.sources[place] == source
                known = order.pieces()[step.lane][source].lengths
                assert new.lengths[place] <= length
                assert ((known > new.lengths[place]) & (known <= length)).sum() <= NEAREST
                assert (np.delete(new.table, place, 1) == np.delete(pack.table, place, 1)).all()
            assert len({int(new.rows[place]) for new in found}) > 2
            assert len({int(new.seeds[place]) for new in [*found, pack]}) == 9
            again = other.replace(step.lane, pack, place, 7)
            assert again.table.tolist() == found[7].table.tolist()


def test_nothing_of_weight_zero_takes_a_place_and_the_shortest_has_no_substitute():
    source = Source(
        "clips", np.arange(1, 9), np.arange(8, dtype=np.uint64), weights=np.array([1, 0, 0, 0, 0, 1, 1, 5.0])
    )
    order = Order([Lane("all", [source])], Packing(8, 4, streams=1, bins=1, window=2), 0)
    packs = [pack for step in walk(order, 8)[0] for pack in step.packs]
    pack, place = next((pack, place) for pack in packs for place, row in enumerate(pack.rows) if row == 5)
    assert {int(order.replace("all", pack, place, attempt).rows[place]) for attempt in range(20)} == {0}
    pack, place = next((pack, place) for pack in packs for place, row in enumerate(pack.rows) if row == 0)
    with pytest.raises(
        DataError, match="'clips': row 0 cannot be read, and no other of its samples is 1 tokens or less"
    ):
        order.replace("all", pack, place, 0)


def damaged(change):
    order = mixed()
    values = json.loads(encode(order.save(walk(order, 6)[1])))
    change(values)
    return order, values


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda v: v.update(schema_version=2), ConfigError, "has version 2, this wfm has 1"),
        (lambda v: v.update(order="0" * 64), ConfigError, "samples, lengths, weights, rates, seed or packing have changed"),
        (lambda v: v.pop("step"), DataError, "'step'"),
        (lambda v: v["lanes"][0]["streams"][0].update(drawn=-1), DataError, "streams.0.drawn"),
        (lambda v: v["lanes"][0]["streams"][1].update(drawn=1), DataError, "stream 1: draw .* only 1 were drawn"),
        (lambda v: v["lanes"][0]["streams"][2]["open"].append([]), DataError, "stream 2: a pack is empty"),
        (lambda v: v["lanes"][0]["streams"][0]["open"][0].append(0), DataError, "stream 0: a draw stands twice, or before"),
        (lambda v: v["lanes"][0]["streams"][0].update(closed=[[0], [1]]), DataError, "2 packs are closed and not taken"),
        (lambda v: v["lanes"][0]["streams"][0]["open"].reverse(), DataError, "stream 0: packs that this order never"),
        (lambda v: v["lanes"][0]["streams"][0].update(closed=[[*range(30)]], open=[]), DataError, "stream 0: packs that"),
        (lambda v: v["lanes"][0]["streams"].pop(), DataError, "has 3 streams, not 4"),
        (lambda v: v["lanes"][0].update(name="some"), DataError, "its lanes are .'some'., the order's .'all'."),
        (lambda v: v.update(step=1), DataError, "step 1 is 1 of lane 'all', whose streams stand elsewhere"),
    ],
)  # fmt: skip
def test_a_state_that_is_not_this_orders_is_refused(change, error, message):
    order, values = damaged(change)
    with pytest.raises(error, match=message):
        order.restore(values)


def test_what_no_order_wrote_is_refused():
    with pytest.raises(ConfigError, match="has version None"):
        mixed().restore([1])


@pytest.mark.parametrize("change", [{"budget": 299}, {"packs": 4}, {"bins": 2}, {"age": 39}, {"window": 8}, {"dim": 1}])
def test_every_field_of_the_packing_makes_another_order(change):
    sources = [source_of("images", 90, 40)]
    made = [Order([Lane("all", sources)], how, 0).sha256 for how in (HOW, replace(HOW, **change))]
    assert made[0] != made[1]


@pytest.mark.parametrize("name", ["budget", "packs", "streams", "bins", "age", "window", "dim"])
def test_packing_that_is_none_is_refused(name):
    with pytest.raises(ConfigError, match=f"packing.{name}: 0 is no whole number above 0"):
        replace(HOW, **{name: 0})


def test_streams_divide_the_packs_of_a_window():
    with pytest.raises(ConfigError, match="5 streams do not divide the 32 packs of a window"):
        replace(HOW, streams=5)


def test_names_are_each_ones_own():
    source = source_of("clips", 90, 300)
    with pytest.raises(ConfigError, match="each has a name of its own"):
        Order([Lane("a", [source]), Lane("a", [source])], HOW, 0)
    with pytest.raises(ConfigError, match=r"lane 'a': sources .* each wants a name of its own"):
        Order([Lane("a", [source, source])], HOW, 0)
    with pytest.raises(ConfigError, match="one or more"):
        Order([], HOW, 0)


@pytest.mark.parametrize(("ranks", "windows"), [(8, 8), (64, 1)])
def test_waste_and_balance_are_what_the_issue_asks(ranks, windows):
    """20,000 samples, T = 65,536, V = 64, 8 open packs, windows of 16 steps; `tests/benchmarks/order.py` has the figures."""
    lengths = np.random.default_rng(0).permutation(np.concatenate(twins.lengths_of(0)))
    source = Source("all", lengths, np.arange(len(lengths), dtype=np.uint64))
    steps, _ = walk(Order([Lane("all", [source])], Packing(65_536, ranks), 0), 16 * windows)
    waste = 1 - np.mean([pack.tokens for step in steps for pack in step.packs]) / 65_536
    costs = np.array([step.costs for step in steps])
    unbalanced = np.random.default_rng(1).permutation(costs.ravel()).reshape(costs.shape)
    assert waste <= 0.002
    assert imbalance(costs) <= 0.05
    assert imbalance(unbalanced) >= 0.22
    nemo = twins.greedy_buffers(lengths.tolist(), 65_536, 64)
    assert 1 - lengths.sum() / len(nemo) / 65_536 > 10 * waste


def test_version_1_is_frozen():
    """A change of a single draw, pack or step moves this hash: raise `state.VERSION` with it, and old states are refused."""
    numbers = np.arange(200)
    keys = (numbers + 1).astype(np.uint64)
    weights = 0.25 + (numbers % 7) / 4
    even, weighted = Source("images", 1 + numbers % 37, keys, 3), Source("clips", 10 + numbers % 291, keys, 2, weights)
    order = Order([Lane("mixed", [even, weighted]), Lane("video", [weighted], 2)], HOW, 11)
    steps, state = walk(order, 30)
    found = sha256("".join(digests(steps)).encode() + encode(order.save(state))).hexdigest()
    assert found == "c37b70fd9360669e3aa38ec377e99328aea3d30a0970d73e4fac9d8b8f8aed87"
