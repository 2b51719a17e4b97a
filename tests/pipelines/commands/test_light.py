"""The command line is there at once: no help and no finished run waits for packages that only work needs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from wfm.artifacts import Store

ROOT = Path(__file__).parents[3]
HEAVY = (
    "torch", "transformers", "safetensors", "diffusers", "scipy", "sklearn", "numpy", "pyarrow", "pandas", "av", "cv2", "PIL",
    "mujoco", "dask", "distributed", "prefect", "uvicorn", "fastapi", "sqlalchemy", "kfp", "kubernetes", "hera", "openai",
    "fsspec", "s3fs", "gcsfs", "cryptography", "jinja2", "onnxruntime", "usearch", "psutil",
)  # fmt: skip
"""What `wfm --help` must not load."""
FOR_WORK = (
    "torch", "transformers", "scipy", "av", "cv2", "mujoco", "dask", "distributed", "prefect", "uvicorn", "sqlalchemy",
    "pipelines.engines.local", "pipelines.engines.prefect", "pipelines.engines.run_node", "pipelines.engines.dask_cluster",
)  # fmt: skip
"""What a run with nothing to do must not load (`tests/smoke`)."""
START = """
import json, os, sys
{first}
sys.argv = ["wfm", *{arguments}]
def tell():
    print(json.dumps([name for name in {names} if name in sys.modules]), file=sys.stderr, flush=True)
leave = os._exit
os._exit = lambda code: (tell(), leave(code))  # so a command ends where pyarrow is loaded
from pipelines.commands.cli import main
try:
    main()
finally:
    tell()
"""


def loaded(*arguments: str, names: tuple[str, ...] = HEAVY, first: str = "") -> list[str]:
    """Which of the packages a command line loads."""
    code = START.format(arguments=list(arguments), names=names, first=first)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stderr.splitlines()[-1])
    return found


EACH = """
import sys
sys.argv = ["wfm"]
from pipelines.commands.cli import app
from tests.pipelines.commands.terminal import commands
for path, _ in commands():
    try:
        app(args=[*path, "--help"], standalone_mode=False)
    except SystemExit:
        pass
    if (found := [name for name in {names} if name in sys.modules]):
        sys.exit(f"{{path}} loads {{found}}")
print("all", file=sys.stderr)
"""


def test_help_of_no_command_loads_anything_heavy() -> None:
    """pytest, which `terminal` needs, is all that is beside."""
    command = [sys.executable, "-c", EACH.format(names=HEAVY)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # other tests may have set PYTHONSAFEPATH
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (0, "all")


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("schedule", "--help")])
def test_a_start_loads_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert loaded(*arguments) == []


def test_looking_at_runs_loads_what_reads_them_alone(tmp_path: Path) -> None:
    run = Store.open(tmp_path / "store").runs.create({"pipeline": "p", "nodes": []})
    for words in (("status",), ("runs",), ("status", run.id, "--json")):
        assert (
            loaded(*words, "--store", str(tmp_path / "store"), names=tuple({*FOR_WORK, *HEAVY} - {"psutil"})) == []
        ), words


def test_a_package_that_is_loaded_is_seen() -> None:
    assert loaded("--help", first="import psutil, fsspec") == ["fsspec", "psutil"]
