"""Put each fault of the rivals into a copy of the tree, and see the test that is named beside it fail.

    python -m tests.benchmarks.rival_faults
    python -m tests.benchmarks.rival_faults --only "chain"

The table is tests/wfm/curation/rival_faults.toml: what the fault is, whose, the test, and a change of one file that brings
the fault in. A line a fault: ``caught``; ``missed``, when the test passes all the same; ``stale``, when the text to be changed
is no longer there. Before that, every test named must pass on the tree as it is. Ends with 1 unless all are caught.
"""

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "tests/wfm/curation/rival_faults.toml"
FOLDERS = ("wfm", "components", "pipelines", "docs", "tests")


@dataclasses.dataclass(frozen=True)
class Fault:
    """A row of the table."""

    fault: str
    of: str
    "Whose it is, or was."
    test: str
    "Id of the test that catches it, as pytest takes it."
    file: str
    "Where the fault is put in."
    old: str
    "What stands there, once."
    new: str
    "What the rival has."


def table() -> list[Fault]:
    """The faults. Raises TypeError for a row with other fields."""
    return [Fault(**row) for row in tomllib.loads(TABLE.read_text())["fault"]]


def passes(tests: list[str], tree: Path) -> tuple[bool, str]:
    """(whether pytest passes on ``tree``, the end of what it said). Raises RuntimeError where nothing ran."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "-p", "no:cacheprovider", *tests],
        cwd=tree, env={**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    if done.returncode not in (0, 1) or (done.returncode == 0 and " passed" not in done.stdout):
        raise RuntimeError(f"{tests}: pytest ended with {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.returncode == 0, done.stdout[-1500:]


def verdict(fault: Fault, tree: Path) -> tuple[str, str]:
    """(``caught``, ``missed`` or ``stale``; what pytest said). The tree is as before afterwards."""
    path = tree / fault.file
    text = path.read_text()
    if text.count(fault.old) != 1:
        return "stale", f"{fault.old!r} stands {text.count(fault.old)} times in {fault.file}"
    path.write_text(text.replace(fault.old, fault.new))
    try:
        passed, said = passes([fault.test], tree)
    finally:
        path.write_text(text)
    return ("missed" if passed else "caught"), said


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only faults whose text, file or test holds these letters")
    parser.add_argument("--show", action="store_true", help="print what pytest said of each")
    asked = parser.parse_args()
    faults = [fault for fault in table() if asked.only in f"{fault.fault} {fault.file} {fault.test}"]
    verdicts: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        tree = copy_of_the_tree(Path(folder) / "tree")
        sound, said = passes(sorted({fault.test for fault in faults}), tree)
        if not sound:
            raise SystemExit(f"a test fails on the tree as it is:\n{said}")
        for fault in faults:
            found, said = verdict(fault, tree)
            verdicts[found] = verdicts.get(found, 0) + 1
            print(json.dumps({"verdict": found, "fault": fault.fault, "test": fault.test}), flush=True)
            if asked.show or found == "stale":
                print(said, flush=True)
    print(json.dumps({"faults": len(faults), **verdicts}))
    raise SystemExit(verdicts != {"caught": len(faults)})


def copy_of_the_tree(tree: Path) -> Path:
    """The source as it is now, without what was made of it."""
    for name in FOLDERS:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "constraints.txt", "README.md"):
        shutil.copy(ROOT / name, tree / name)
    return tree


if __name__ == "__main__":
    main()
