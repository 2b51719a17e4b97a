"""Processor time of a plan, old checkout and new in turn: what `wfm run --dry-run` costs before anything runs.

    python -m tests.benchmarks.planning --old FOLDER --pairs 9

``FOLDER`` is another checkout with its own ``.venv``. Each measurement is one process of its own with its own empty store,
user and system time with those of its children, in ABBA order. ``cold``: nothing is kept from an earlier plan; ``warm``: the
cache folder of an earlier one. One JSON line with the ratios new / old and their range over the pairs.
"""

import argparse
import os
import statistics
import subprocess
import tempfile
from pathlib import Path

from tests.benchmarks.paired import print_line

HERE = Path(__file__).resolve().parents[2]


def plan_seconds(checkout: Path, folder: Path, pipeline: str) -> float:
    """Processor seconds of one ``wfm run PIPELINE --dry-run`` of a checkout."""
    wfm = checkout / ".venv" / "bin" / "wfm"
    command = [wfm, "run", pipeline, "--dry-run", "--store", folder / "store"]
    environment = {**os.environ, "WFM_HOME": str(folder / "home"), "WFM_CACHE": str(folder / "cache")}
    process = subprocess.Popen(command, cwd=checkout, env=environment, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{checkout}: planning {pipeline} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime


def measure(old: Path, pairs: int, pipeline: str, warm: bool) -> dict[str, object]:
    """Both in turn; a cold measurement gets a folder of its own."""
    seconds: dict[Path, list[float]] = {old: [], HERE: []}
    with tempfile.TemporaryDirectory() as scratch:
        for side in (old, HERE):  # byte code is written, and the cache filled
            plan_seconds(side, Path(scratch) / f"warm-{side == old}", pipeline)
        for pair in range(pairs):
            for side in (old, HERE) if pair % 2 == 0 else (HERE, old):
                name = f"warm-{side == old}" if warm else f"cold-{side == old}-{pair}"
                seconds[side].append(plan_seconds(side, Path(scratch) / name, pipeline))
    ratios = [new / before for before, new in zip(seconds[old], seconds[HERE], strict=True)]
    return {
        "ratio": round(statistics.median(ratios), 3),
        "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
        "old_s": round(statistics.median(seconds[old]), 3),
        "new_s": round(statistics.median(seconds[HERE]), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, required=True, help="the other checkout, with its own .venv")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--pipeline", default="world_model")
    given = parser.parse_args()
    results = {
        name: measure(given.old.resolve(), given.pairs, given.pipeline, name == "warm") for name in ("cold", "warm")
    }
    print_line(benchmark="planning", pipeline=given.pipeline, pairs=given.pairs, **results)


if __name__ == "__main__":
    main()
