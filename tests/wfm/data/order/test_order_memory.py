"""What an order holds of a million samples: nothing that no file backs but what it plans at one time."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from wfm.data.order.columns import unnamed

ROOT = Path(__file__).parents[4]
COUNT = 1_000_000
MOST = 6.0
"""Bytes a sample, of memory that no file backs; measured 0.8, of the twin 24.8 (AVX2)."""
CHILD = """
import ctypes, gc, json, sys
from pathlib import Path
import numpy as np
from wfm.data.order import Batching, BatchOrder, Lane, Order, Packing, Source
from wfm.data.order.hashing import hash64

def anonymous():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/status").read_text().partition("RssAnon:")[2].split()[0]) * 1024

def column(name, values):
    np.save(name, values)
    return np.asarray(np.load(f"{name}.npy", mmap_mode="r"))

class Samples:
    def __init__(self, count):
        self.ids = range(count)
        self.order_keys = column(f"keys{count}", hash64(np.arange(count)))
        self.shapes = column(f"shapes{count}", np.array([(1, 4, 6), (3, 2, 2), (5, 2, 4)])[np.arange(count) % 3])

def orders(count, kept):
    samples = Samples(count)
    before = anonymous()
    source = Source.of("all", samples)
    if kept:  # columns as arrays, as they were
        frames = source.shapes[:, 1] * source.shapes[:, 2]
        source = Source("all", source.shapes.prod(1), source.keys, 1, None, frames, source.shapes, np.arange(count))
    found = BatchOrder([Lane("all", [source])], Batching(samples=16), 0), Order([Lane("all", [source])], Packing(64, 8, 8), 0)
    for order in found:
        order.next(order.start())
    return found, anonymous() - before

orders(10_000, False)
held, grown = orders(int(sys.argv[1]), sys.argv[2] == "kept")
print(json.dumps(grown / int(sys.argv[1])))
"""


@pytest.mark.alone
def test_what_an_order_holds_does_not_grow_with_its_samples(tmp_path: Path) -> None:
    """The twin keeps lengths, frames and rows as arrays, and misses the bound."""
    grown = {}
    for kind in ("computed", "kept"):
        command = [sys.executable, "-c", CHILD, str(COUNT), kind]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        grown[kind] = json.loads(done.stdout)
    assert grown["computed"] < MOST < grown["kept"], grown


def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(monkeypatch):
    """A page of a sparse file that finds no room when it is written to ends the process by SIGBUS, without a word."""

    def full(file, offset, size):
        assert (offset, size) == (0, 8 * 2**20)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        unnamed(2**20, np.int64)
    assert len(unnamed(4, np.int64)) == 4  # what is small is no file
