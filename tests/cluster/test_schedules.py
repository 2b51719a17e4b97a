"""Three hundred seeded schedules with time of their own; forty of them always, the rest by ``make launcher-schedules``.

A schedule that breaks an invariant prints its seed and what happened, line by line; ``SEEDS=17 pytest ...`` plays one alone.
"""

import os
import time
from pathlib import Path

import pytest

from tests.cluster.schedules import play

QUICK, ALL = 40, 300
MOST_SECONDS = 120.0
"""Processor time of all of them."""
SEEDS = [int(one) for one in os.environ.get("SEEDS", "").split(",") if one]


def _all_hold(seed: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WFM_HOME", str(folder / "home"))
    played = play(seed, folder)
    try:
        played.invariants.check()
    finally:
        played.world.close()


@pytest.mark.parametrize("seed", SEEDS or range(QUICK))
def test_invariants_hold(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _all_hold(seed, tmp_path, monkeypatch)


@pytest.mark.long
def test_three_hundred_in_two_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began, broken = time.process_time(), []
    for seed in range(ALL):
        try:
            _all_hold(seed, tmp_path / str(seed), monkeypatch)
        except AssertionError as error:
            broken.append(str(error))
    spent = time.process_time() - began
    print(f"{ALL} schedules in {spent:.0f} s of processor time")
    assert not broken, f"{len(broken)} of {ALL} schedules\n" + "\n\n".join(broken[:5])
    assert spent <= MOST_SECONDS


def test_a_seed_plays_the_same_schedule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = []
    for attempt in range(2):
        monkeypatch.setenv("WFM_HOME", str(tmp_path / "home"))
        played = play(8, tmp_path / str(attempt))
        played.world.close()
        lines.append(played.world.lines)
    assert lines[0] == lines[1]
