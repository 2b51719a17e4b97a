"""Checkpoints that are found: the newest whole one of this run."""

import json
from pathlib import Path

import pytest

from wfm.training.checkpoint import newest_checkpoint


def checkpoint(scratch: Path, step: int, data: bytes | None = None) -> Path:
    folder = scratch / f"checkpoint-{step:08d}"
    folder.mkdir()
    state = {"schema_version": 1, "step": step, "data": {}, "fingerprint": "this"}
    (folder / "state.json").write_bytes(data if data is not None else json.dumps(state).encode())
    return folder


@pytest.mark.parametrize("data", [b"", b'{"schema_version": 1, "st', b"[" * 100_000, b"[]", b"\xff"])
def test_a_damaged_one_falls_back_to_the_one_before(tmp_path: Path, data: bytes) -> None:
    """Before: JSONDecodeError, TypeError or RecursionError at every start, "a bug of ours"."""
    checkpoint(tmp_path, 1)
    damaged = checkpoint(tmp_path, 2, data)
    found = newest_checkpoint(tmp_path, "this")
    assert found is not None
    assert found.step == 1
    assert not damaged.exists(), "it would stand in the way of the next one of its step"
