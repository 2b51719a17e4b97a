"""Draw n of stream v: every piece once an epoch, or as often as its weight lets it stand, whoever asks for which draw when."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wfm.data.order import twins
from wfm.data.order.draws import Draws
from wfm.data.order.sources import Source, pieces_of
from wfm.data.seeds import mix
from wfm.errors import DataError


def source_of(count, weights=None, name="clips", rate=1) -> Source:
    held = None if weights is None else np.array(weights, float)
    return Source(name, np.full(count, 7), np.arange(count, dtype=np.uint64) + 1000, rate, held)


def draws_of(sources, streams, seed=5) -> Draws:
    return Draws(sources, [pieces_of(source, 100, "refuse") for source in sources], streams, seed)


def drawn(draws, stream, numbers):
    found = draws.at(np.full(len(numbers), stream), np.asarray(numbers))
    return list(
        zip(*(getattr(found, name).tolist() for name in ("sources", "pieces", "epochs", "repeats")), strict=True)
    )


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 4), st.integers(4, 40), st.integers(0, 2**63 - 1))
def test_an_epoch_of_a_stream_is_what_the_plain_twin_says(streams, count, seed):
    draws, key = draws_of([source_of(count)], streams, seed), mix(seed, "order", "clips")
    for stream in range(streams):
        wanted = [
            (0, piece, epoch, repeat)
            for epoch in range(3)
            for piece, repeat in twins.stream_epoch(count, streams, stream, epoch, key)
        ]
        assert drawn(draws, stream, range(len(wanted))) == wanted


WEIGHTS = st.lists(st.floats(0, 5), min_size=4, max_size=30).map(lambda found: [weight + 1 / 3 for weight in found])


def stands(weights, epoch, key) -> list[int]:
    """How often each piece is in an epoch, in whole numbers of 2**-32, which Python has of any size."""
    units = [round(weight * 2**32) for weight in weights]
    chances = [twins.hash64(key, 1000 + piece, 0) >> 32 for piece in range(len(weights))]
    at = lambda epochs: [epochs * unit + chance >> 32 for unit, chance in zip(units, chances, strict=True)]  # noqa: E731
    return [after - before for before, after in zip(at(epoch), at(epoch + 1), strict=True)]


@settings(max_examples=50, deadline=None)
@given(WEIGHTS, st.integers(0, 2**63 - 1))
def test_weighted_epochs_are_what_the_plain_twin_says(weights, seed):
    streams = 2 if min(sum(weights[::2]), sum(weights[1::2])) >= 1 else 1
    draws, key = draws_of([source_of(len(weights), weights)], streams, seed), mix(seed, "order", "clips")
    for stream in range(streams):
        wanted = [
            (0, piece, epoch, repeat)
            for epoch in range(4)
            for piece, repeat in twins.stream_epoch(
                len(weights), streams, stream, epoch, key, stands(weights, epoch, key)
            )
        ]
        assert drawn(draws, stream, range(len(wanted))) == wanted


def by_chance(weights, epochs, seed) -> np.ndarray:
    """What floor(w) times, and once more with the probability of what is left, comes to over epochs."""
    random = np.random.default_rng(seed)
    return sum(np.floor(weights) + (random.random(len(weights)) < weights % 1) for _ in range(epochs))


def test_a_weight_is_kept_to_within_one_over_any_number_of_epochs():
    weights = np.random.default_rng(0).uniform(0, 3, 50)
    draws = draws_of([source_of(50, weights)], 1)
    found = drawn(draws, 0, range(int(weights.sum() * 45)))
    for epochs in (1, 2, 7, 40):
        counts = Counter(piece for _, piece, epoch, _ in found if epoch < epochs)
        assert max(abs(counts[piece] - epochs * weights[piece]) for piece in range(50)) < 1 + 1e-6
    assert np.abs(by_chance(weights, 40, 0) - 40 * weights).max() > 3


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3000)), min_size=1, max_size=40))
def test_a_draw_does_not_hang_on_what_else_is_asked_for(asked):
    """Two sources, one of them weighted, with epochs of 2 and of 1,000 pieces side by side."""
    weights = np.random.default_rng(1).uniform(0.5, 1.5, 9)
    sources = [source_of(9, weights, "few", rate=3), source_of(1000, None, "many", rate=5)]
    together = draws_of(sources, 3).at(*(np.array(each) for each in zip(*asked, strict=True)))
    draws = draws_of(sources, 3)
    for place, (stream, number) in enumerate(asked):
        alone = draws.at(np.array([stream]), np.array([number]))
        for name in ("sources", "pieces", "epochs", "repeats"):
            assert getattr(together, name)[place] == getattr(alone, name)[0]


def test_the_same_samples_under_two_names_come_in_two_orders():
    """What a blend of one data set by two paths gets wrong where the seed knows nothing of the path."""
    draws = draws_of([source_of(50, name="one"), source_of(50, name="other")], 1)
    found = drawn(draws, 0, range(100))
    one, other = ([piece for source, piece, _, _ in found if source == index] for index in (0, 1))
    assert sorted(one) == sorted(other) == list(range(50))
    assert one != other


def test_a_sample_of_weight_zero_is_never_drawn():
    draws = draws_of([source_of(6, [2, 0, 1, 0, 1, 2])], 1)
    assert {piece for _, piece, _, _ in drawn(draws, 0, range(600))} == {0, 2, 4, 5}


def test_too_little_data_is_refused_by_name():
    with pytest.raises(DataError, match="'clips': 3 samples cannot fill 4 streams"):
        draws_of([source_of(3)], 4)
    with pytest.raises(DataError, match="'clips': the weights leave 1 of 2 streams less than one sample an epoch"):
        draws_of([source_of(4, [1, 0.1, 1, 0.1])], 2)
