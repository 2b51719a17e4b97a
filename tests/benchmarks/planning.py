"""Processor time of a plan, old checkout and new in turn: what `wfm run --dry-run` costs before anything runs.

    python -m tests.benchmarks.planning --old FOLDER --pairs 9
    python -m tests.benchmarks.planning --old FOLDER --pairs 9 --made OLD_STORE NEW_STORE     # and a run with nothing to do

``FOLDER`` is another checkout with its own ``.venv``. Each measurement is one process of its own with its own empty store,
user and system time with those of its children, in ABBA order. ``cold``: nothing is kept from an earlier plan; ``warm``: the
cache folder of an earlier one; ``cached``: a whole ``wfm run`` of the smoke profile in two stores where each checkout has made
everything. One JSON line with the ratios new / old and their range over the pairs.
"""

import argparse
import os
import statistics
import subprocess
import tempfile
from pathlib import Path

from tests.benchmarks.paired import print_line

HERE = Path(__file__).resolve().parents[2]


def run_seconds(checkout: Path, folder: Path, *arguments: str) -> float:
    """Processor seconds of one ``wfm run`` of a checkout; ``folder`` holds what it keeps."""
    command = [checkout / ".venv" / "bin" / "wfm", "run", *arguments]
    environment = {**os.environ, "WFM_HOME": str(folder / "home"), "WFM_CACHE": str(folder / "cache")}
    with tempfile.TemporaryFile() as notices:
        process = subprocess.Popen(command, cwd=checkout, env=environment, stdout=subprocess.DEVNULL, stderr=notices)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        notices.seek(0)
        said = notices.read().decode()
    if process.returncode or ("--dry-run" not in arguments and "nothing to run" not in said):
        raise SystemExit(f"{checkout}: wfm run {' '.join(arguments)} ended with {process.returncode}\n{said}")
    return used.ru_utime + used.ru_stime


def plan_seconds(checkout: Path, folder: Path, pipeline: str) -> float:
    """Of one ``wfm run PIPELINE --dry-run``, with a store of its own."""
    return run_seconds(checkout, folder, pipeline, "--dry-run", "--store", str(folder / "store"))


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
    return compared(seconds[old], seconds[HERE])


def measure_cached(old: Path, pairs: int, pipeline: str, stores: tuple[Path, Path]) -> dict[str, object]:
    """A run with nothing to do, both in turn."""
    seconds: dict[Path, list[float]] = {old: [], HERE: []}
    made = dict(zip((old, HERE), stores, strict=True))
    with tempfile.TemporaryDirectory() as scratch:
        for pair in range(-1, pairs):  # the first pair fills caches and is not counted
            for side in (old, HERE) if pair % 2 == 0 else (HERE, old):
                arguments = (pipeline, "--profile", "smoke", "--store", str(made[side]))
                taken = run_seconds(side, Path(scratch) / str(side == old), *arguments)
                seconds[side] += [taken] if pair >= 0 else []
    return compared(seconds[old], seconds[HERE])


def compared(old: list[float], new: list[float]) -> dict[str, object]:
    """Ratios over the pairs, and both medians."""
    ratios = [after / before for before, after in zip(old, new, strict=True)]
    return {
        "ratio": round(statistics.median(ratios), 3),
        "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
        "old_s": round(statistics.median(old), 3),
        "new_s": round(statistics.median(new), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, required=True, help="the other checkout, with its own .venv")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--pipeline", default="world_model")
    parser.add_argument(
        "--made", type=Path, nargs=2, metavar=("OLD_STORE", "NEW_STORE"), help="stores that hold all of smoke"
    )
    parser.add_argument("--only-cached", action="store_true")
    given = parser.parse_args()
    old, kinds = given.old.resolve(), () if given.only_cached else ("cold", "warm")
    results = {name: measure(old, given.pairs, given.pipeline, name == "warm") for name in kinds}
    if given.made:
        results["cached"] = measure_cached(
            old, given.pairs, given.pipeline, tuple(path.resolve() for path in given.made)
        )
    print_line(benchmark="planning", pipeline=given.pipeline, pairs=given.pairs, **results)


if __name__ == "__main__":
    main()
