"""Memory of a process that plans and reads, at 1,000 to a million samples. One JSON line.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.loader_memory
    OMP_NUM_THREADS=1 python -m tests.benchmarks.loader_memory --counts 1000 100000 --steps 100

The table of samples is made up, its places are those of 1,000 real samples of 16 KiB in 4 shards; it lies on disk and is
memory-mapped, as a part's table of lengths is. Each count is a process of its own: it opens the table, makes the order, and
reads so many steps of 16 samples with two threads. `end` and `peak` are its memory that no file backs, in MiB above that of
the process before (libraries loaded, nothing opened); `bytes_a_sample` is what `end` grows by from the least count to the
most: the index, keys and lengths of all samples that the order holds. `reading` is the growth between step 20 and the last.
`twin` is the same with a Python object a sample, which is what must not be.
"""

import argparse
import ctypes
import gc
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch

from tests.benchmarks.loader_data import SIZE, read_places, write_shards
from tests.benchmarks.loader_sides import BATCH, as_tensor
from tests.benchmarks.paired import print_line
from wfm.data.loader import Loader, LoaderConfig
from wfm.data.order import Batching, BatchOrder, Lane, Source, sample_keys
from wfm.data.reading import RecordPlaces, RecordReader

ROOT = Path(__file__).parents[2]
PLACES = ("shard", "offset", "size", "sha256", "crc32c")
REAL = 1000
FIRST = 20


class Names(Sequence[str]):
    """Ids that are made when they are asked for, as those of a memory-mapped table are."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[str]: ...
    def __getitem__(self, place: int | slice) -> str | Sequence[str]:
        if isinstance(place, slice):
            return [f"s{row:07d}" for row in range(*place.indices(self._count))]
        if not 0 <= place < self._count:
            raise IndexError(place)
        return f"s{place:07d}"


class Table:
    """`Samples` of a made-up table."""

    def __init__(self, folder: Path, count: int, shards: list[str]) -> None:
        held = {
            name: np.load(folder / f"{name}-{count}.npy", mmap_mode="r")
            for name in ("shard", "offset", "size", "sha256")
        }
        self._reader = RecordReader(RecordPlaces(shards, *held.values()))
        self.ids = Names(count)
        self.order_keys: np.ndarray = np.load(folder / f"order_keys-{count}.npy", mmap_mode="r")
        self.shapes: np.ndarray = np.load(folder / f"shapes-{count}.npy", mmap_mode="r")
        self.sizes: np.ndarray = np.broadcast_to(np.int64(SIZE), count)
        self.identity = f"made up {count}"

    def read(self, row: int) -> dict[str, torch.Tensor]:
        return {"bin": as_tensor(self._reader.read(row)["bin"], "bin")}


def write_table(folder: Path, count: int) -> None:
    """The first `REAL` rows again and again."""
    found = read_places(folder)
    for name in PLACES:
        np.save(folder / f"{name}-{count}.npy", found[name][np.arange(count) % REAL])
    np.save(folder / f"shapes-{count}.npy", np.ones((count, 3), np.int64))
    np.save(folder / f"order_keys-{count}.npy", sample_keys(Names(count)))


def anonymous() -> float:
    """Of this process [MiB]; what was freed is given back first."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return sample()


def sample() -> float:
    text = Path("/proc/self/status").read_text()
    return int(text.partition("RssAnon:")[2].split()[0]) / 1024


class Peak:
    """The most that `sample` found, asked every 5 ms."""

    def __init__(self) -> None:
        self.most, self._over = sample(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(0.005):
            self.most = max(self.most, sample())

    def end(self) -> float:
        self._over.set()
        self._thread.join()
        return self.most


def one_process(folder: Path, count: int, steps: int, twin: bool) -> dict[str, float]:
    """Plan and read here."""
    shards = sorted(str(path) for path in folder.glob("shards/train/*.tar"))
    torch.set_num_threads(1)
    before, peak = anonymous(), Peak()
    samples = Table(folder, count, shards)
    held = [{"id": name, "row": row, "size": float(row)} for row, name in enumerate(samples.ids)] if twin else []
    order = BatchOrder([Lane("all", [Source.of("all", samples)])], Batching(samples=BATCH), seed=0)
    with Loader({"all": samples}, order, LoaderConfig(workers=2, prefetch_bytes=4 * 2**20)) as loader:
        for step in range(steps):
            batch = loader.next()
            if step == FIRST:
                early = anonymous()
        after = anonymous()
    assert len(batch["bin"]) == BATCH
    return {"end": after - before, "peak": peak.end() - before, "reading": after - early, "objects": len(held)}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--twin", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        print(json.dumps(one_process(given.here, given.counts[0], given.steps, given.twin)))
        return
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        write_shards(Path(scratch), "bin", REAL, 4)
        for count in given.counts:
            write_table(Path(scratch), count)
        for name, more in (("ours", []), ("twin", ["--twin"])):
            rows = {count: _of_child(Path(scratch), count, given.steps, more) for count in given.counts}
            least, most = min(given.counts), max(given.counts)
            grown = (rows[most]["end"] - rows[least]["end"]) * 2**20 / (most - least)
            found[name] = {"bytes_a_sample": round(grown, 1), "mib": rows}
    print_line(benchmark="loader_memory", steps=given.steps, **found)


def _of_child(folder: Path, count: int, steps: int, more: list[str]) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.loader_memory", "--here", str(folder)]
    command += ["--counts", str(count), "--steps", str(steps), *more]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        raise RuntimeError(f"{count} samples: ended with {done.returncode}\n{done.stderr[-2000:]}")
    return {name: round(value, 1) for name, value in json.loads(done.stdout.splitlines()[-1]).items()}


if __name__ == "__main__":
    main()
