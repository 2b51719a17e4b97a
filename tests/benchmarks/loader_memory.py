"""Memory of a process that plans and reads, at 1,000 to a million samples. One JSON line.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.loader_memory
    OMP_NUM_THREADS=1 python -m tests.benchmarks.loader_memory --counts 1000 100000 --steps 100

The table of samples is made up, its places are those of 1,000 real samples of 16 KiB in 4 shards; it lies on disk with its
index, four parts of it, and is opened as a training opens it. Each count is a process of its own: it opens the table, makes
the order, and reads so many steps of 16 samples with two threads. `end` and `peak` are its memory that no file backs
(`RssAnon`), in MiB above that of the process before (libraries loaded, nothing opened); `of_files` is the growth of what files
back (`RssFile`), which the system may take back. `bytes_a_sample` is what `end` grows by from the least count to the most.
`reading` is the growth between step 20 and the last. `twin` is the same with a Python object a sample, which is what must not
be.
"""

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.benchmarks.loader_data import read_places, save_places, write_lengths, write_shards
from tests.benchmarks.loader_resume import Opened
from tests.benchmarks.loader_sides import BATCH
from tests.benchmarks.paired import print_line
from wfm.data.loader import Loader, LoaderConfig
from wfm.data.order import Batching, BatchOrder, Lane, Source, sample_keys

ROOT = Path(__file__).parents[2]
PLACES = ("shard", "offset", "size", "sha256", "crc32c")
REAL = 1000
FIRST = 20


def write_table(folder: Path, count: int) -> Path:
    """A folder whose table has the first `REAL` rows again and again, each time by another id."""
    found, own = read_places(folder), folder / str(count)
    for shard in found["shards"].tolist():
        (own / shard).parent.mkdir(parents=True, exist_ok=True)
        os.link(folder / shard, own / shard)
    ids = [f"s{number:07d}" for number in range(count)]
    repeated = {name: found[name][np.arange(count) % REAL] for name in PLACES}
    save_places(own, shards=found["shards"], **repeated, ids=np.array(ids, "S"), order_keys=sample_keys(ids))
    write_lengths(own)
    return own


def anonymous() -> float:
    """Of this process [MiB]; what was freed is given back first."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return sample()


def sample(what: str = "RssAnon") -> float:
    text = Path("/proc/self/status").read_text()
    return int(text.partition(f"{what}:")[2].split()[0]) / 1024


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


def one_process(folder: Path, steps: int, twin: bool) -> dict[str, float]:
    """Plan and read here."""
    torch.set_num_threads(1)
    before, of_files, peak = anonymous(), sample("RssFile"), Peak()
    samples = Opened(folder)
    held = [{"id": name, "row": row, "size": float(row)} for row, name in enumerate(samples.ids)] if twin else []
    order = BatchOrder([Lane("all", [Source.of("all", samples)])], Batching(samples=BATCH), seed=0)
    with Loader({"all": samples}, order, LoaderConfig(workers=2, prefetch_bytes=4 * 2**20)) as loader:
        for step in range(steps):
            batch = loader.next()
            if step == FIRST:
                early = anonymous()
        after = anonymous()
    assert len(batch["bin"]) == BATCH
    found = {"end": after - before, "peak": peak.end() - before, "reading": after - early, "objects": len(held)}
    return {**found, "of_files": sample("RssFile") - of_files}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--twin", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        print(json.dumps(one_process(given.here, given.steps, given.twin)))
        return
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        write_shards(Path(scratch), "bin", REAL, 4)
        folders = {count: write_table(Path(scratch), count) for count in given.counts}
        for name, more in (("ours", []), ("twin", ["--twin"])):
            rows = {count: _of_child(folders[count], given.steps, more) for count in given.counts}
            least, most = min(given.counts), max(given.counts)
            grown = (rows[most]["end"] - rows[least]["end"]) * 2**20 / (most - least)
            found[name] = {"bytes_a_sample": round(grown, 1), "mib": rows}
    print_line(benchmark="loader_memory", steps=given.steps, **found)


def _of_child(folder: Path, steps: int, more: list[str]) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.loader_memory", "--here", str(folder)]
    command += ["--steps", str(steps), *more]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        raise RuntimeError(f"{folder.name} samples: ended with {done.returncode}\n{done.stderr[-2000:]}")
    return {name: round(value, 1) for name, value in json.loads(done.stdout.splitlines()[-1]).items()}


if __name__ == "__main__":
    main()
