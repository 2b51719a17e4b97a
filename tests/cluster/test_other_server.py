"""Scenarios as they are run on a real API server: ``pytest tests/cluster/scenarios/test_….py --api URL``. The other server
is the model here, in a process of its own of which nothing is known but its URL."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.derivation import ROOT
from tests.cluster.serve import Cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    found = Cluster(tmp_path)
    found.start()
    yield found
    found.kill()


def run(cluster: Cluster, folder: Path, file: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """At a hundredth of the time that scenarios speak of."""
    places = ["-p", "no:cacheprovider", f"--basetemp={folder / 'scenarios'}", "--api", cluster.url]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *places, f"tests/cluster/scenarios/test_{file}.py", *words], cwd=ROOT,
        capture_output=True, text=True, env={**os.environ, "WFM_TEST_PACE": "0.01"},
    )  # fmt: skip


@pytest.mark.long  # real time, a hundredth of it: a machine that is busy makes pods late
@pytest.mark.parametrize(
    ("file", "which", "many"),
    [
        ("ordinary_ways", "runs_and_commits and container", 1),
        ("server_troubles", "answer_is_lost or without_the_crd or not_there", 3),
    ],
)
def test_scenarios_run_unchanged_on_another_server(
    cluster: Cluster, tmp_path: Path, file: str, which: str, many: int
) -> None:
    done = run(cluster, tmp_path, file, "-k", which)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
    assert f"{many} passed" in done.stdout


def test_scenarios_for_a_cluster_that_is_set_up_otherwise_are_named(cluster: Cluster, tmp_path: Path) -> None:
    """Nobody here sets up its controllers."""
    other = run(cluster, tmp_path, "queues", "--collect-only", "--api-set-up", "integrations=()").stdout
    assert re.findall(r"::(\w+)", other) == ["test_an_integration_that_is_off_is_noticed"] * 2
