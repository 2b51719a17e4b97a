"""Fixtures that many tests share: a finished smoke run of the main job, made once a session."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Wfm = Callable[..., subprocess.CompletedProcess[str]]


def run_wfm(*arguments: str, store: Path, timeout: float = 900, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command ``wfm`` as a user would, in a process of its own."""
    environment = {**os.environ, "WFM_STORE": str(store), "COLUMNS": "160", "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment,
    )
    if check and done.returncode != 0:
        raise AssertionError(f"wfm {' '.join(arguments)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


@pytest.fixture(scope="session")
def wfm() -> Wfm:
    """The command, to be called with ``store=``."""
    return run_wfm


@pytest.fixture(scope="session")
def smoke_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which the smoke profile of the main job has run, unbroken."""
    store = tmp_path_factory.mktemp("smoke") / "store"
    done = run_wfm("run", "world_model", "--profile", "smoke", store=store)
    (store.parent / "output.txt").write_text(done.stdout + done.stderr)
    return store
