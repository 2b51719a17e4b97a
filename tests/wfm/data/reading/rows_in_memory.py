"""What a reader holds, for test_memory.py: `python -m tests.wfm.data.reading.rows_in_memory FOLDER`, JSON."""

import json
import sys
import tracemalloc
from pathlib import Path

import numpy as np

from tests.wfm.data.reading.conftest import write_records
from wfm.data.reading import RecordPlaces, RecordReader


def held(folder, rows, twin):
    """Bytes that a reader of `rows` rows holds after 300 reads, beside its shards; the twin keeps an object a row."""
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


if __name__ == "__main__":
    sizes = ((1_000, False), (1_000_000, False), (200_000, True))
    print(json.dumps([held(Path(sys.argv[1]) / f"{rows} {twin}", rows, twin) for rows, twin in sizes]))
