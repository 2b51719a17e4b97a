"""The whole matrix of kills (``make crash-matrix``): every point, at its first pass and its last, in every scene and store.

`test_crash_points.py` has the table of points and tries each of them once.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults.kills import Calm, kill_and_finish
from tests.faults.test_crash_points import SCENES, TABLE

SIDE_BY_SIDE = 3
"""Kills at once: most of the time is spent on waiting for leases of the dead."""
pytestmark = [pytest.mark.long, pytest.mark.timeout(7200)]


@pytest.mark.parametrize("kind", ["disk", "s3"])
@pytest.mark.parametrize("scene", SCENES)
def test_killed_anywhere_and_started_elsewhere(
    scene: str, kind: str, calm: Callable[[str, str], Calm], tmp_path: Path
) -> None:
    there = calm(scene, kind)
    mine = {name: point for name, point in TABLE.items() if scene in point.passed_by and kind in point.on}
    rows = [(name, 1) for name in mine]
    for name in (name for name, point in mine.items() if point.committed is not None):
        rows += [(name, count) for count in [there.undisturbed.order.count(name)] if count != 1]

    def kill(row: tuple[str, int]) -> str:
        name, at = row
        try:
            kill_and_finish(there, name, at, tmp_path / f"{name}-{at}", resumed=mine[name].resumed)
        except AssertionError as error:
            return f"{name}:{at}: {error}"
        return ""

    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        failures = [words for words in pool.map(kill, rows) if words]
    print(f"{scene} on {kind}: {len(rows)} kills")
    assert not failures, "\n\n".join(failures)
