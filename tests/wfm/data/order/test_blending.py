"""Exact rates: within one of each source's share at any prefix."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wfm.data.order import twins
from wfm.data.order.blending import LONGEST, Blend
from wfm.errors import ConfigError

RATES = st.lists(st.integers(0, 60), min_size=1, max_size=7).filter(any)


def largest_error(sources: list[int], rates: list[int]) -> float:
    """Of any source at any prefix, in draws."""
    drawn = np.cumsum(np.array(sources)[:, None] == np.arange(len(rates)), axis=0)
    wanted = np.arange(1, len(sources) + 1)[:, None] * np.array(rates) / sum(rates)
    return float(np.abs(drawn - wanted).max())


@settings(deadline=None)
@given(RATES)
def test_every_prefix_is_within_one_draw_of_the_rates(rates):
    count = 2 * sum(rates) + 7
    sources, before = Blend(rates).draws(np.arange(count))
    assert largest_error(sources.tolist(), rates) < 1
    assert np.bincount(sources[: sum(rates)], minlength=len(rates)).tolist() == rates
    for source in range(len(rates)):
        assert before[sources == source].tolist() == list(range((sources == source).sum()))


@settings(deadline=None)
@given(RATES)
def test_it_is_what_the_plain_twin_says(rates):
    assert Blend(rates).draws(np.arange(150))[0].tolist() == twins.blend(rates, 150)


@settings(deadline=None)
@given(RATES, st.integers(0, 10**6))
def test_a_count_is_that_of_the_draws_before(rates, number):
    blend = Blend(rates)
    sources, before = blend.draws(np.arange(number, number + 50))
    for place, (source, nth) in enumerate(zip(sources.tolist(), before.tolist(), strict=True)):
        assert blend.count(number + place)[source] == nth


def test_sources_in_turn_by_chance_or_by_block_miss_the_bound():
    rates = [6, 3, 1]
    chance = np.random.default_rng(0).choice(3, 1000, p=np.array(rates) / 10).tolist()
    block = [0] * 6 + [1] * 3 + [2]
    assert largest_error(Blend(rates).draws(np.arange(1000))[0].tolist(), rates) < 1
    assert largest_error(chance, rates) > 3
    assert largest_error(block * 100, rates) > 1


def test_common_factors_do_not_count():
    assert Blend([600_000, 300_000]).rates == (2, 1)


@pytest.mark.parametrize("rates", [[], [0, 0], [1, -1], [0.5, 0.5], [True, 1]])
def test_rates_that_are_none_are_refused(rates):
    with pytest.raises(ConfigError, match=r"rates: .*whole numbers"):
        Blend(rates)


def test_a_blend_too_long_to_keep_is_refused():
    with pytest.raises(ConfigError, match=f"at most {LONGEST} are kept: round them"):
        Blend([LONGEST, 1])
