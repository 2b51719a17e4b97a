"""Ten thousand mutations of what each reader reads: each ends well or in an error of ours, within a GiB and in bounded time.

    pytest -m long tests/faults/test_fuzz.py -k videos        # one reader
    WFM_FUZZ=500 WFM_FUZZ_FIRST=20000 pytest …                # fewer, and other ones

Each batch is a process of its own with a limit of memory. A mutation that kills its process is a failure, but for videos: a
decoder that crashes is what the list of poisoned videos is for; of these a few are let pass, and counted.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.faults.fuzz_readers import READERS, SECONDS

COUNT = int(os.environ.get("WFM_FUZZ", "10000"))
FIRST = int(os.environ.get("WFM_FUZZ_FIRST", "0"))
BATCH = 1000
ROOT = Path(__file__).parents[2]
PEAK = 1 << 30
MOST_CRASHES = 0.001  # of decoders, which are not ours


def batch(reader: str, first: int, count: int, folder: Path) -> tuple[dict[str, Any] | None, int, str]:
    """(what came of it, or None; the seed it died at; how)."""
    folder.mkdir(parents=True, exist_ok=True)
    surroundings = {
        **os.environ,
        "WFM_HOME": str(folder / "home"),
        "WFM_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "tests.faults.fuzz_readers", reader, str(first), str(count), str(folder)]
    ran = subprocess.run(
        command,
        cwd=ROOT,
        env=surroundings,
        capture_output=True,
        text=True,
        timeout=300 + 3 * SECONDS * count,
        check=False,
    )
    if ran.returncode == 0:
        return json.loads(ran.stdout.splitlines()[-1]), -1, ""
    seed = folder / "seed"
    assert seed.exists(), f"it died before the first mutation:\n{ran.stderr[-2000:]}"
    return None, int(seed.read_text()), f"exit code {ran.returncode}: {ran.stderr[-300:]}"


@pytest.mark.long
@pytest.mark.timeout(6 * 3600)
@pytest.mark.parametrize("reader", list(READERS))
def test_every_mutation_ends_in_an_answer(reader: str, tmp_path: Path) -> None:
    ends: Counter[str] = Counter()
    strange: dict[str, Any] = {}
    crashes: list[tuple[int, str]] = []
    peak, slowest, at, number = 0, [0.0, -1], FIRST, 0
    while at < FIRST + COUNT:
        count, number = min(BATCH, FIRST + COUNT - at), number + 1
        found, seed, how = batch(reader, at, count, tmp_path / str(number))
        if found is None:  # what lies before the one that ended it is run again, to be counted
            crashes.append((seed, how))
            if seed > at:
                found, again, how = batch(reader, at, seed - at, tmp_path / f"{number} before")
                assert found is not None, f"not the same twice: ended at {seed}, then at {again} ({how})"
            count = seed - at + 1
        at += count
        if found is not None:
            ends.update(found["ends"])
            strange.update(found["strange"])
            peak, slowest = max(peak, found["peak"]), max(slowest, found["slowest"])
    print(f"\n{reader}: {COUNT:,} mutations from {FIRST:,}: {dict(ends.most_common())}, {len(crashes)} crashes, "
          f"peak {peak >> 20} MiB, slowest {slowest[0]} s (seed {slowest[1]})")  # fmt: skip
    assert sum(ends.values()) + len(crashes) == COUNT
    assert not strange, f"errors that are not ours, with seeds: {strange}"
    assert peak < PEAK
    if reader == "videos":
        assert len(crashes) <= max(1, MOST_CRASHES * COUNT), crashes[:5]
    else:
        assert not crashes, crashes[:5]
