"""What ``wfm compile`` writes for the cluster of `manifests/rendered/cluster.json`, as it is kept there.

python -m tests.manifests.compiled             # renews manifests/rendered/<engine>/ (make render)
python -m tests.manifests.compiled --check     # says what differs (make check)
"""

import difflib
import sys
import tempfile
from pathlib import Path

from typer.testing import CliRunner

ROOT = Path(__file__).parents[2]
RENDERED = ROOT / "manifests" / "rendered"
COMPILED = {
    "argo/world-model": ("world_model", "--engine", "argo"),
    "argo/curate-nightly": (
        *("curate", "--engine", "argo", "--template", "curate-nightly", "--videos", "s3://wfm-videos/incoming"),
        *("--cron", "30 2 * * *", "--zone", "Europe/Berlin", "--stop-after-failures", "7"),
    ),
    "kubeflow/world-model": ("world_model", "--engine", "kubeflow"),
    "kubeflow/curate-nightly": (
        *("curate", "--engine", "kubeflow", "--template", "curate-nightly", "--videos", "s3://wfm-videos/incoming"),
        *("--cron", "30 2 * * *"),
    ),
}
"""Folder of `RENDERED` -> what is compiled into it."""
_STORE = "s3://wfm-store/store"


def compile_into(folder: Path, words: tuple[str, ...]) -> str:
    """Run the command; returns what it said."""
    from pipelines.commands.cli import app

    given = ["compile", *words, "--cluster", str(RENDERED / "cluster.json"), "--store", _STORE, "-o", str(folder)]
    done = CliRunner().invoke(app, given, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def differences() -> list[str]:
    """Of what is kept from what would be compiled now, line by line."""
    found = []
    with tempfile.TemporaryDirectory(prefix="wfm-render-") as folder:
        for name, words in COMPILED.items():
            compile_into(Path(folder, name), words)
            made = {path.name: path.read_text() for path in Path(folder, name).iterdir()}
            kept = {path.name: path.read_text() for path in (RENDERED / name).glob("*")}
            for file in sorted({*made, *kept}):
                old, new = (texts.get(file, "").splitlines() for texts in (kept, made))
                found += difflib.unified_diff(
                    old, new, f"{name}/{file}, kept", f"{name}/{file}, compiled", lineterm="", n=1
                )
    return found


def main() -> None:
    if "--check" in sys.argv[1:]:
        found = differences()
        print("\n".join([*found[:200], "renew it: make render"]) if found else "what is rendered is what is kept")
        sys.exit(bool(found))
    for name, words in COMPILED.items():
        for old in (RENDERED / name).glob("*"):
            old.unlink()
        print(compile_into(RENDERED / name, words), end="")


if __name__ == "__main__":
    main()
