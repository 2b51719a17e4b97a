"""A million rows are arrays: what a reader holds, in a process of its own."""

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[4]
A_ROW = 4 + 8 + 8 + 32
"""Bytes of a row in the four arrays."""


def held(folder, rows, twin):
    """Bytes that a reader of `rows` rows holds after 300 reads, beside its shards; the twin keeps an object a row."""
    from tests.wfm.data.reading.conftest import write_records
    from wfm.data.reading import RecordPlaces, RecordReader

    records = write_records(folder, 20)
    records.places()
    tracemalloc.start()
    pick = np.arange(rows) % 20
    places = RecordPlaces(
        [str(folder / name) for name in records.names], **{name: array[pick] for name, array in records.arrays.items()}
    )
    del pick
    kept = [(int(start), int(size)) for start, size in zip(places.offset, places.size, strict=True)] if twin else []
    with RecordReader(places) as reader:
        reader.check()
        for row in np.linspace(0, rows - 1, 300).astype(int).tolist():
            assert reader.read(row) == records.members[row % 20]
        found = tracemalloc.get_traced_memory()[0]
    assert len(kept) == (rows if twin else 0)
    return found


def test_a_million_rows_are_arrays_and_no_objects(tmp_path):
    code = (
        "import json, sys; from pathlib import Path; from tests.wfm.data.reading.test_memory import held;"
        "print(json.dumps([held(Path(sys.argv[1]) / f'{rows} {twin}', rows, twin)"
        " for rows, twin in ((1_000, False), (1_000_000, False), (200_000, True))]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=environment, check=True, capture_output=True, text=True
    )
    few, many, twin = json.loads(done.stdout)
    assert many - few < A_ROW * 1_000_000 + 2**20
    assert twin - few > A_ROW * 200_000 + 2**20
