"""A million rows are arrays: what a reader holds, in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[4]
A_ROW = 4 + 8 + 8 + 32
"""Bytes of a row in the four arrays."""


def test_a_million_rows_are_arrays_and_no_objects(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.wfm.data.reading.rows_in_memory", str(tmp_path)],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    few, many, twin = json.loads(done.stdout)
    assert many - few < A_ROW * 1_000_000 + 2**20
    assert twin - few > A_ROW * 200_000 + 2**20
