"""How much of a training is spent waiting for data that comes from an ill S3. One JSON line.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.loader_waiting
    OMP_NUM_THREADS=1 python -m tests.benchmarks.loader_waiting --steps 60 --step-seconds 0.3

Steps of real compute in one thread: products of matrices, as many as take `--step-seconds` (0.25 to 0.5 s), which is worked out
anew for each step from how long the last ones took, so that others on the machine do not make steps of another length. Each is
of 16 samples of 16 KiB out of 4 shards in a bucket: moto's server behind a proxy that adds 200 ms to each answer, answers 5 %
with an error, and holds one connection for ever in the midst of a body; both in a process of their own on the same machine. No
cache. Measured from step 20 to step 220: `waiting` is the share of the time that `next` took, `step_s` the shortest step, the
median and the longest, `pace` the products a second, of those before anything was read. `on` is with 64 MiB read ahead, `off`
with nothing read ahead: each step's samples are asked for, all at once, when it begins. `close_s`: how long it took to end the
threads. `chrt -r 1` in front (root) lets all of it go before what else the machine does.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.loader_data import write_shards
from tests.benchmarks.loader_sides import BATCH, Records
from tests.benchmarks.paired import print_line
from wfm.artifacts import Store
from wfm.data.loader import Loader, LoaderConfig
from wfm.data.order import Batching, BatchOrder, Lane, Source

ROOT = Path(__file__).parents[2]
FIRST = 20
"Steps that are not counted."
SIDE = 512
"Of the matrices."
LAST = 8
"Steps that say how long a product takes."
AHEAD = 64 * 2**20


class Compute:
    """Products of matrices, counted before they are begun."""

    def __init__(self, seconds: float) -> None:
        self._x, self._seconds = torch.randn(SIDE, SIDE), seconds
        self._times: deque[float] = deque([1e-3], maxlen=LAST)
        for _ in range(LAST):
            self.step()
        self.alone = self.product_seconds()
        "A product, with nothing beside it."

    def product_seconds(self) -> float:
        """As the last steps say."""
        return statistics.median(self._times)

    def step(self, batch: torch.Tensor | None = None) -> float:
        """Seconds that one took."""
        began, products = time.perf_counter(), max(1, round(self._seconds / self.product_seconds()))
        a = self._x.clone()
        if batch is not None:
            a[0, :BATCH] = batch.float().mean(1)
        for _ in range(products):
            a = torch.tanh(a @ self._x)
        took = time.perf_counter() - began
        self._times.append(took / products)
        return took


def waits(folder: Path, options: dict[str, str], config: LoaderConfig, steps: int, seconds: float) -> dict[str, Any]:
    """Train for so many steps behind the first few."""
    samples = Records(folder, "bin", "s3://bench", Store.open("s3://bench/store", options))
    order = BatchOrder([Lane("all", [Source.of("all", samples)])], Batching(samples=BATCH), seed=0)
    work, waited, lasted, paces = Compute(seconds), [], [], []
    used = time.process_time()
    with Loader({"all": samples}, order, config) as loader:
        for _ in range(FIRST + steps):
            began = time.perf_counter()
            batch = loader.next()
            waited.append(time.perf_counter() - began)
            lasted.append(work.step(batch["bin"]))
            paces.append(work.alone / work.product_seconds())
        counted, processor, began = loader.counters(), time.process_time() - used, time.perf_counter()
        samples.reader.close()  # as a training does: threads that wait for the bucket end with it
    waited, lasted = waited[FIRST:], sorted(lasted[FIRST:])
    return {
        "waiting": round(sum(waited) / (sum(waited) + sum(lasted)), 4),
        "longest_wait_s": round(max(waited), 3),
        "steps_that_waited": sum(one > 0.005 for one in waited),
        "step_s": [round(lasted[place], 3) for place in (0, len(lasted) // 2, -1)],
        "pace": round(statistics.median(paces[FIRST:]), 3),
        "processor_s": round(processor, 1),
        "close_s": round(time.perf_counter() - began, 3),
        "counters": {name: value for name, value in counted.items() if name.startswith("reader_")},
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--step-seconds", type=float, default=0.3)
    parser.add_argument("--workers", type=int, default=16)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_shards(folder, "bin", 4096, 4)
        for name, ahead in (("on", AHEAD), ("off", 0)):
            with subprocess.Popen(
                [sys.executable, "-m", "tests.wfm.data.reading.ill_server", "--latency", "0.2", "--errors", "0.05",
                 "--stalls", "600"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True,
            ) as server:  # fmt: skip
                assert server.stdout is not None
                assert server.stdin is not None
                places = json.loads(server.stdout.readline())
                upload(folder, places["healthy"])
                options = {"key": "k", "secret": "secret", "endpoint_url": places["endpoint"]}
                config = LoaderConfig(workers=given.workers if ahead else 0, prefetch_bytes=ahead or 1)
                found[name] = waits(folder, options, config, given.steps, given.step_seconds)
                server.stdin.close()
    print_line(benchmark="loader_waiting", steps=given.steps, **found, load=round(os.getloadavg()[0], 1))


def upload(folder: Path, endpoint: str) -> None:
    """The shards into the bucket, past the illness."""
    import s3fs

    client = s3fs.S3FileSystem(key="k", secret="secret", endpoint_url=endpoint)
    client.mkdir("bench")
    for path in sorted(folder.glob("shards/train/*.tar")):
        client.pipe_file(f"bench/{path.relative_to(folder)}", path.read_bytes())


if __name__ == "__main__":
    main()
