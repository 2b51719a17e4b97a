"""Curation of a few real films by both engines: the same keys, states, names and bytes."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.runs.state import read_state
from wfm.artifacts import Store

pytestmark = [pytest.mark.smoke, pytest.mark.long]


def test_both_engines_make_the_same_dataset(
    tmp_path: Path, wfm: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    found: list[Any] = []
    for engine in ("prefect", "local"):
        few = ["--set", "simulate_videos.sessions=2", "--set", "simulate_videos.views=1"]
        wfm("run", "curate", "--profile", "smoke", "--engine", engine, *few, store=tmp_path / engine)
        store = Store.open(tmp_path / engine)
        (run,) = store.runs.list()
        state = read_state(run)
        assert state is not None
        nodes = {
            name: (node.state, node.key, node.outcome, node.attempts, node.note) for name, node in state.nodes.items()
        }
        files = {
            name: {file.path: file.sha256 for file in store.artifact(node.key).files()}
            for name, node in state.nodes.items()
        }
        found.append((state.state, nodes, files, store.resolve("dataset/curated-smoke")))
    assert found[0] == found[1]
    assert found[0][0] == "done"
