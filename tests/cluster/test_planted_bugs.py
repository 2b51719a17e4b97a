"""The suite tested itself: each bug of `plants/` turns its scenario red, which is green without it."""

import pytest

from tests.cluster import invariants
from tests.cluster.conftest import MakeWorld
from tests.cluster.plants import PLANTS, a_crash_unseen, an_eviction_costs_no_retry
from tests.cluster.world import World


@pytest.mark.parametrize("way", ["http", "event", "mute"])
def test_a_crash_is_seen_however_watches_end(make_world: MakeWorld, way: str) -> None:
    a_crash_unseen(make_world, way)


@pytest.mark.parametrize("number", range(len(PLANTS)), ids=[name for name, *_ in PLANTS])
def test_a_planted_bug_is_found(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    _, _, plant, scenario, longest = PLANTS[number]
    monkeypatch.setattr(World, "longest", longest)
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        scenario(make_world)


def test_an_eviction_costs_no_retry(make_world: MakeWorld) -> None:
    an_eviction_costs_no_retry(make_world)


def test_each_invariant_has_a_bug_that_breaks_it() -> None:
    assert {invariant for _, invariant, *_ in PLANTS} >= set(invariants.Invariants.NAMES)
