"""The command line is there at once: no help and no finished run waits for packages that only work needs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.commands.cli import app

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
import json, sys
{first}
sys.argv = ["wfm", *{arguments}]
try:
    from pipelines.commands.cli import main
    main()
finally:
    print(json.dumps([name for name in {names} if name in sys.modules]), file=sys.stderr)
"""


def loaded(*arguments: str, names: tuple[str, ...] = HEAVY, first: str = "") -> list[str]:
    """Which of the packages a command line loads."""
    code = START.format(arguments=list(arguments), names=names, first=first)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stderr.splitlines()[-1])
    return found


GROUPS = [group.name for group in app.registered_groups]


@pytest.mark.parametrize("arguments", [(), ("run",), ("schedule",), ("generate",), *((name,) for name in GROUPS)])
def test_help_loads_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert loaded(*arguments, "--help") == []


def test_a_package_that_is_loaded_is_seen() -> None:
    assert loaded("--help", first="import psutil, fsspec") == ["fsspec", "psutil"]
