"""Batches of one shape: each sample once an epoch, sources at their rates, the same after a kill and for any ranks."""

import json
from collections import Counter
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wfm.artifacts.schema import encode, parse
from wfm.data.order import Batching, BatchOrder, Lane, Source, one_shape, sample_keys
from wfm.errors import ConfigError, DataError

SHAPES = np.array([(1, 8, 8), (1, 8, 16), (5, 8, 8), (5, 16, 8), (9, 8, 8)])


def source_of(name, count, kinds=5, rate=1, weighted=False, seed=0) -> Source:
    random = np.random.default_rng([seed, count])
    shapes = SHAPES[random.integers(0, kinds, count)]
    weights = random.uniform(0.2, 2, count) if weighted else None
    keys = sample_keys([f"{name}-{number}" for number in range(count)])
    return Source(name, shapes.prod(1), keys, rate, weights, shapes[:, 1] * shapes[:, 2], shapes)


SIX, TOKENS = Batching(6), Batching(tokens=1280)


def mixed(how=SIX, seed=3) -> BatchOrder:
    sources = [source_of("images", 90, kinds=2, rate=3), source_of("clips", 60, rate=2, weighted=True)]
    return BatchOrder([Lane("all", sources)], how, seed)


def alternating(how=TOKENS, seed=3) -> BatchOrder:
    lanes = [Lane("images", [source_of("images", 90, kinds=2)], 1), Lane("clips", [source_of("clips", 60)], 3)]
    return BatchOrder(lanes, how, seed)


def few_draws(monkeypatch) -> None:
    """Windows of a few steps, so that a short run crosses many."""
    monkeypatch.setattr("wfm.data.order.batches._DRAWS", 1)


def walk(order, count, state=None):
    found, state = [], order.start() if state is None else state
    for _ in range(count):
        step, state = order.next(state)
        found.append(step)
    return found, state


def digests(steps):
    return [step.sha256 for step in steps]


def twin(order: BatchOrder, count: int) -> list[list[list[int]]]:
    """The plain rule, a draw at a time: a sample goes to the bucket of its shape, the first that is full is the next batch."""
    (lane,) = order._bucketed
    waiting, found = {}, []
    drawn = lane._draw(np.arange(20 * count))
    for source, piece, epoch in zip(drawn.sources.tolist(), drawn.pieces.tolist(), drawn.epochs.tolist(), strict=True):
        held, shape = lane.pieces[source], tuple(lane.pieces[source].shapes[piece].tolist())
        batch = waiting.setdefault(shape, [])
        batch.append([source, int(held.rows[piece]), int(held.starts[piece]), epoch])
        how = order.how
        if len(batch) == (how.samples or max(1, how.tokens // int(np.prod(shape)))):
            found.append(waiting.pop(shape))
    return found[:count]


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize(
    "how", [Batching(6), Batching(tokens=700, oversize="split"), Batching(tokens=300, oversize="cut")]
)
def test_the_bucket_that_is_first_full_is_the_next_step(how, small, monkeypatch):
    if small:
        few_draws(monkeypatch)
    steps, _ = walk(mixed(how), 300)
    assert [step.batch.table[[0, 1, 2, 4]].T.tolist() for step in steps] == twin(mixed(how), 300)


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from([mixed, alternating]),
    st.sampled_from([SIX, Batching(1), TOKENS, Batching(tokens=128, oversize="split")]),
    st.lists(st.integers(0, 400), min_size=1, max_size=4),
)
def test_killed_anywhere_and_resumed_the_steps_are_the_same(make, how, runs):
    with pytest.MonkeyPatch.context() as patch:
        few_draws(patch)
        unbroken = digests(walk(make(how), sum(runs) + 1)[0])
        saved, found = None, []
        for count in [*runs, 1]:
            order = make(how)
            state = order.start() if saved is None else order.restore(parse(saved, "state"))
            steps, state = walk(order, count, state)
            found += digests(steps)
            saved = encode(order.save(state))
        assert found == unbroken


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 120), st.integers(1, 12), st.integers(1, 5), st.integers(0, 2**40))
def test_each_sample_once_an_epoch_and_nothing_dropped(count, size, kinds, seed):
    """Of what was drawn, all that is in no batch waits in its bucket, for the samples of its own shape."""
    with pytest.MonkeyPatch.context() as patch:
        few_draws(patch)
        order = BatchOrder([Lane("all", [source_of("clips", count, kinds)])], Batching(size), seed)
    steps, state = walk(order, 400 // size)
    window = order._bucketed[0].window
    found = [pair for step in steps for pair in zip(step.batch.epochs.tolist(), step.batch.rows.tolist(), strict=True)]
    assert len(set(found)) == len(found)
    for step in steps:
        assert len(step.batch.rows) == size
        assert {tuple(order._bucketed[0].pieces[0].shapes[row]) for row in step.batch.rows} == {step.shape}
    rest, state = walk(order, window - len(steps) % window, state)
    (stream,) = state.lanes[0].streams
    drawn = sum(len(step.batch.rows) for step in steps + rest)
    assert drawn + sum(map(len, stream.open)) == stream.drawn
    assert all(len(waiting) < size for waiting in stream.open)
    counts = Counter(row for step in steps + rest for row in step.batch.rows.tolist())
    epochs = stream.drawn // count
    assert all(epochs - size - 1 <= counts[row] <= epochs + 1 for row in range(count))


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 2**40))
def test_sources_have_their_exact_rates_among_what_is_drawn(one, two, seed):
    sources = [source_of("images", 40, 2, one), source_of("clips", 50, 2, two)]
    order = BatchOrder([Lane("all", sources)], Batching(4), seed)
    steps, _ = walk(order, 500)
    images = sum(int((step.batch.sources == 0).sum()) for step in steps)
    # exact within one of the draws; what waits in the two buckets, 3 samples each, is not in a batch yet
    assert abs(images - 2000 * one / (one + two)) <= 1 + 6


def test_lanes_alternate_at_their_rates_and_weights_are_kept():
    steps, _ = walk(alternating(), 400)
    images = np.cumsum([step.lane == "images" for step in steps])
    assert np.abs(images - np.arange(1, 401) / 4).max() < 1
    order = mixed()
    steps, _ = walk(order, 2000)
    counts = np.zeros(60)
    for step in steps:
        np.add.at(counts, step.batch.rows[step.batch.sources == 1], 1)
    weights = order._bucketed[0].pieces[1].weights / 2**32
    assert np.abs(counts - weights * counts.sum() / weights.sum()).max() <= 3


def test_a_batch_is_as_many_samples_as_the_tokens_hold_and_one_at_least():
    steps, _ = walk(alternating(Batching(tokens=400, oversize="leave_out")), 200)
    assert {(step.shape, len(step.batch.rows)) for step in steps} == {
        ((1, 8, 8), 6), ((1, 8, 16), 3), ((5, 8, 8), 1)
    }  # fmt: skip
    with pytest.raises(DataError, match=r"'clips': .* samples do not fit a pack, a budget of 400 tokens"):
        alternating(Batching(tokens=400))


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 8, 11])
def test_any_number_of_ranks_shares_the_same_batch(ranks):
    (step,), _ = walk(mixed(), 1)
    shares = [step.of_rank(rank, ranks) for rank in range(ranks)]
    assert all(len(share) == 1 for share in shares)
    for rank, (share,) in enumerate(shares):
        assert (share.table == step.batch.table[:, rank::ranks]).all()
    sizes = [len(share.rows) for (share,) in shares]
    assert sum(sizes) == 6
    assert max(sizes) - min(sizes) <= 1


def test_seeds_are_those_of_packs_and_hang_on_the_sample_alone():
    few, many = (walk(one_shape([f"s{i}" for i in range(n)], n, 0), 1)[0][0].batch for n in (6, 12))
    of_each = [dict(zip(found.rows.tolist(), found.seeds.tolist(), strict=True)) for found in (few, many)]
    assert all(of_each[0][row] == of_each[1][row] for row in range(6))
    seeds = np.concatenate([step.batch.seeds for step in walk(mixed(), 800)[0]])
    assert len(np.unique(seeds)) == len(seeds)
    bits = (seeds[:, None] >> np.arange(63) & 1).mean(0)
    assert np.abs(bits - 0.5).max() < 5 * 0.5 / np.sqrt(len(seeds))


def test_a_sample_that_cannot_be_read_is_replaced_by_one_of_its_shape():
    order, other = mixed(), mixed()
    for step in walk(order, 30)[0]:
        for place in range(6):
            found = [order.replace("all", step.batch, place, attempt) for attempt in range(6)]
            share = step.of_rank(place % 2, 2)[0]
            for new in found:
                source, row = int(new.sources[place]), int(new.rows[place])
                assert (source, row) != (step.batch.sources[place], step.batch.rows[place])
                assert tuple(order.pieces()["all"][source].shapes[row]) == step.shape
                assert (np.delete(new.table, place, 1) == np.delete(step.batch.table, place, 1)).all()
            assert len({int(new.seeds[place]) for new in [*found, step.batch]}) == 7
            again = other.replace("all", share, place // 2, 5)
            assert again.table[:, place // 2].tolist() == found[5].table[:, place].tolist()


def test_the_only_one_of_its_shape_gives_way_to_another_source_or_to_nothing():
    shapes = np.array([(1, 8, 8), (5, 8, 8)])
    one = Source("one", shapes.prod(1), np.arange(2, dtype=np.uint64), shapes=shapes)
    two = Source("two", shapes[:1].prod(1), np.arange(1, dtype=np.uint64), shapes=shapes[:1])
    order = BatchOrder([Lane("all", [one, two])], Batching(1), 0)
    steps = {(int(s.batch.sources[0]), s.shape): s for s in walk(order, 20)[0]}
    new = order.replace("all", steps[0, (1, 8, 8)].batch, 0, 0)
    assert (new.sources[0], new.rows[0]) == (1, 0)
    with pytest.raises(DataError, match=r"row 1 of its source 0 .* no other sample has its shape \(5, 8, 8\)"):
        order.replace("all", steps[0, (5, 8, 8)].batch, 0, 0)


def test_pieces_of_a_split_sample_are_buckets_of_their_own():
    shapes = np.array([(1, 8, 8)] * 4 + [(9, 8, 8)] * 4)
    source = Source("a", shapes.prod(1), np.arange(8, dtype=np.uint64), frames=np.full(8, 64), shapes=shapes)
    order = BatchOrder([Lane("a", [source])], Batching(tokens=256, oversize="split"), 0)
    steps, _ = walk(order, 60)
    assert {step.shape for step in steps} == {(1, 8, 8), (3, 8, 8)}
    pieces = {pair for s in steps for pair in zip(s.batch.starts.tolist(), s.batch.lengths.tolist(), strict=True)}
    assert pieces == {(0, 64), (0, 192), (192, 192), (384, 192)}


def test_rare_buckets_are_counted():
    shapes = np.array([(1, 8, 8)] * 99 + [(5, 8, 8)])
    source = Source("a", shapes.prod(1), np.arange(100, dtype=np.uint64), shapes=shapes)
    order = BatchOrder([Lane("a", [source])], Batching(10), 0)
    common, rare = order.buckets(50)
    assert (rare.shape, rare.samples, rare.batch) == ((5, 8, 8), 1, 10)
    assert (common.steps, rare.steps) == (pytest.approx(49.5), pytest.approx(0.5))
    assert [step.shape for step in walk(order, 50)[0]].count((5, 8, 8)) <= 1
    assert [step.shape for step in walk(order, 1000)[0]].count((5, 8, 8)) == pytest.approx(10, abs=1)


def test_what_a_source_leaves_out_keeps_rows_keys_and_seeds():
    whole = source_of("clips", 60)
    still = whole.only(whole.shapes[:, 0] == 1)
    found = [{}, {}]
    for source, seen in zip((whole, still), found, strict=True):
        for step in walk(BatchOrder([Lane("a", [source])], Batching(2), 5), 200)[0]:
            if step.shape[0] == 1:
                seen |= {(row, epoch): seed for row, epoch, seed in step.batch.table[[1, 4, 5]].T.tolist()}
    both = found[0].keys() & found[1].keys()
    assert {row for row, _ in both} == set(still.rows.tolist())
    assert all(found[0][key] == found[1][key] for key in both)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v["lanes"][0]["streams"].append(v["lanes"][0]["streams"][0]), "has 2 streams, not 1"),
        (lambda v: v["lanes"][0]["streams"][0]["open"].reverse(), "this order never leaves waiting together"),
        (lambda v: v["lanes"][0]["streams"][0]["open"][0].append(10**9), "only .* were drawn"),
        (lambda v: v["lanes"][0]["streams"][0].update(open=[[*range(9)]]), "never leaves waiting together"),
        (lambda v: v["lanes"][0]["streams"][0].update(open=[], closed=[[1]]), "never leaves closed"),
        (lambda v: v.update(step=1), "step 1 is 1 of lane 'all', whose streams stand elsewhere"),
    ],
)
def test_a_state_that_is_not_this_orders_is_refused(change, message, monkeypatch):
    few_draws(monkeypatch)
    order = mixed()
    values = json.loads(encode(order.save(walk(order, 150)[1])))
    assert len(values["lanes"][0]["streams"][0]["open"]) > 1
    change(values)
    with pytest.raises(DataError, match=message):
        order.restore(values)


def test_every_field_makes_another_order_and_wrong_ones_are_refused():
    assert len({mixed(how).sha256 for how in (SIX, Batching(7), TOKENS, replace(TOKENS, oversize="cut"))}) == 4
    assert mixed(seed=4).sha256 != mixed().sha256
    with pytest.raises(ConfigError, match="samples is 0 and tokens 0: one of them"):
        Batching()
    with pytest.raises(ConfigError, match="samples is 2 and tokens 3: one of them"):
        Batching(2, 3)
    with pytest.raises(ConfigError, match=r"batching\.tokens: -1"):
        Batching(2, -1)
    with pytest.raises(DataError, match="'a' says no shapes"):
        BatchOrder([Lane("a", [Source("a", np.ones(3, int), np.arange(3, dtype=np.uint64))])], Batching(2), 0)
    with pytest.raises(DataError, match="'samples' has no samples"):
        one_shape([], 4, 0)


def test_version_1_is_frozen():
    """A change of a single draw or step moves this hash: raise `state.VERSION` with it, and old states are refused."""
    numbers = np.arange(200)
    keys, shapes = (numbers + 1).astype(np.uint64), SHAPES[numbers * 7 % 11 % 5]
    lengths, frames, weights = shapes.prod(1), shapes[:, 1:].prod(1), 0.25 + (numbers % 7) / 4
    even = Source("images", lengths, keys, 3, None, frames, shapes)
    weighted = Source("clips", lengths, keys, 2, weights, frames, shapes)
    order = BatchOrder(
        [Lane("mixed", [even, weighted]), Lane("video", [weighted], 2)], replace(TOKENS, oversize="cut"), 11
    )
    steps, state = walk(order, 900)
    found = sha256("".join(digests(steps)).encode() + encode(order.save(state))).hexdigest()
    assert found == "e553f2c0f8ce48e393b765fdcaac0000a2af8b821035ad62082883b0dc2befc2"
