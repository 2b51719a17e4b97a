"""The most bytes that lay in a cache while processes added to it, each its own records.

    python -m tests.wfm.data.reading.adding FOLDER CAP PROCESSES HOW

HOW is `ours` or the broken twin `without_lock`. Processes are forked off this one, which has done nothing yet: that of the
tests has threads and hooks of everything that they loaded, and those are no child's. What a child raises stands on standard
error; standard output gets the bytes.
"""

import contextlib
import fcntl
import hashlib
import multiprocessing
import sys
import time
from pathlib import Path

import numpy as np

from wfm.data.reading.cache import RecordCache
from wfm.data.reading.config import Counter

BLOCK = 4096
DEADLINE = 120.0


def entries(folder):
    return {path for path in folder.rglob("*") if path.is_file() and path.name != "lock"}


def on_disk(folder):
    """Bytes that the records take, in whole blocks, and what is being written."""
    found = 0
    for path in entries(folder):
        with contextlib.suppress(FileNotFoundError):
            found += -(-path.stat().st_size // BLOCK) * BLOCK
    return found


def some(number, size=3000):
    data = np.random.default_rng(number).bytes(size)
    return hashlib.sha256(data).digest(), data


def fill(cache, numbers):
    for number in numbers:
        cache.put(*some(number))


def ours(folder, cap, numbers):
    fill(RecordCache(folder, cap, Counter()), numbers)


def without_lock(folder, cap, numbers):
    """The broken twin: each process counts for itself, and stops where it alone has reached the cap."""
    cache = RecordCache(folder, cap, Counter())
    for number in numbers[: cap // BLOCK]:
        digest, data = some(number)
        path = cache._path(digest)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)


def watched(folder, cap, processes, adding):
    folder.mkdir()
    context = multiprocessing.get_context("fork")
    running = [
        context.Process(target=adding, args=(folder, cap, range(1000 * n, 1000 * n + 100))) for n in range(processes)
    ]
    for process in running:
        process.start()
    most, until = 0, time.monotonic() + DEADLINE
    while any(process.is_alive() for process in running):
        with (folder / "lock").open(
            "ab"
        ) as held:  # while files come and go a listing counts some that never lay together
            fcntl.flock(held, fcntl.LOCK_EX)
            most = max(most, on_disk(folder))
        if time.monotonic() > until:
            for process in running:
                process.kill()
            raise TimeoutError(f"{adding.__name__}: not done in {DEADLINE:.0f} s")
        time.sleep(0.005)
    codes = [process.exitcode for process in running]
    assert not any(codes), f"{adding.__name__}: processes ended with {codes}; what they said is above"
    return max(most, on_disk(folder))


if __name__ == "__main__":
    adding = {"ours": ours, "without_lock": without_lock}[sys.argv[4]]
    print(watched(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), adding))
