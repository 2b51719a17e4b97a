"""The loader against webdataset and Megatron-Energon: the same shards, start-up included, in turn. One JSON line a kind.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.loader --pairs 9
    OMP_NUM_THREADS=1 python -m tests.benchmarks.loader --kinds mp4 --samples 1600 --pairs 3

10,000 samples of 16 KiB in 4 shards, in the page cache; one epoch in batches of 16, each library's own shuffle: theirs of
shards and a buffer of 1,000, ours of all samples; ours checks each sample's bytes besides (crc32c), theirs check nothing. `bin`
decodes nothing, `mp4` every frame of a clip with the same settings. A pass is a process of its own; imports are not counted;
opening, planning, starting workers and reading to the last batch are. First each side's settings are tried twice (`tried`: the
better of both [s]): 0, 2 and 4 workers, batches as lists of bytes and as stacked tensors for the rivals, 0, 1, 2 and 4 threads
for ours. Then ours and the better rival in ABBA order. `ratio` is rival / ours by the clock, the median over the pairs,
`processor_ratio` the same of the processor; `load` says how busy the machine was, with others too.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks.loader_data import write_shards
from tests.benchmarks.paired import print_line

ROOT = Path(__file__).parents[2]
SHARDS = 4
Setting = tuple[str, int, str]
"Side, workers, form of a batch."


def one_pass(folder: Path, kind: str, setting: Setting, alone: bool) -> dict[str, float]:
    """What `loader_sides` says of a pass. Raises RuntimeError for one that failed or gave other samples."""
    side, workers, batch = setting
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.loader_sides", folder, kind, side]
    done = subprocess.run(
        [*map(str, command), "--workers", str(workers), "--batch", batch, *["--alone"][:alone]],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    if done.returncode:
        raise RuntimeError(f"{setting} ended with {done.returncode}\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def settings(kind: str) -> dict[str, list[Setting]]:
    """What is tried of each side."""
    batches = ("stack",) if kind == "mp4" else ("stack", "list")
    rivals = {
        side: [(side, workers, batch) for workers in (0, 2, 4) for batch in batches]
        for side in ("webdataset", "energon")
    }
    return {"wfm": [("wfm", workers, "stack") for workers in (0, 1, 2, 4)], **rivals}


def measure(folder: Path, kind: str, samples: int, pairs: int, alone: bool) -> dict[str, Any]:
    """Settings first, then ours and the better rival in turn."""
    tried: dict[Setting, float] = {}
    for setting in (setting for side in settings(kind).values() for setting in side):
        passes = [one_pass(folder, kind, setting, alone) for _ in range(2)]
        if any(found["samples"] != samples for found in passes):
            raise RuntimeError(f"{setting}: {[found['samples'] for found in passes]} samples came, not {samples}")
        tried[setting] = min(found["seconds"] for found in passes)
    best = {side: min(mine, key=tried.__getitem__) for side, mine in settings(kind).items()}
    ours, rival = best["wfm"], min(best["webdataset"], best["energon"], key=tried.__getitem__)
    found: dict[Setting, list[dict[str, float]]] = {ours: [], rival: []}
    for pair in range(pairs):
        for setting in (ours, rival) if pair % 2 == 0 else (rival, ours):
            found[setting].append(one_pass(folder, kind, setting, alone))
    return {
        "ours": _words(ours),
        "rival": _words(rival),
        **_compared("", found[ours], found[rival], "seconds"),
        **_compared("processor_", found[ours], found[rival], "processor"),
        "first_batch_s": [round(statistics.median(row["first"] for row in found[side]), 3) for side in (ours, rival)],
        "tried": {_words(setting): round(seconds, 3) for setting, seconds in tried.items()},
    }


def _words(setting: Setting) -> str:
    side, workers, batch = setting
    return f"{side}, {workers} {'threads' if side == 'wfm' else 'workers'}, {batch}"


def _compared(prefix: str, ours: list[dict[str, float]], rival: list[dict[str, float]], what: str) -> dict[str, Any]:
    ratios = [theirs[what] / mine[what] for mine, theirs in zip(ours, rival, strict=True)]
    return {
        f"{prefix}ratio": round(statistics.median(ratios), 3),
        f"{prefix}ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
        f"{prefix}s": [round(statistics.median(row[what] for row in side), 3) for side in (ours, rival)],
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=("bin", "mp4"), default=["bin", "mp4"])
    parser.add_argument("--samples", type=int, default=10_000, help="a multiple of 16")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--data", type=Path, help="where shards are kept from run to run; a temporary folder without")
    parser.add_argument("--alone", action="store_true", help="passes go before all other processes (root's right)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for kind in given.kinds:
            folder = (given.data or Path(scratch)) / f"{kind}-{given.samples}"
            write_shards(folder, kind, given.samples, SHARDS)
            before = os.getloadavg()[0]
            found = measure(folder, kind, given.samples, given.pairs, given.alone)
            load = [round(before, 1), round(os.getloadavg()[0], 1)]
            print_line(benchmark="loader", kind=kind, samples=given.samples, pairs=given.pairs, **found, load=load)


if __name__ == "__main__":
    main()
