"""How much of a training is spent waiting for data that comes from an ill S3. One JSON line.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.loader_waiting
    OMP_NUM_THREADS=1 python -m tests.benchmarks.loader_waiting --steps 60 --step-seconds 0.3

Steps of real compute in one thread (products of matrices until `--step-seconds` have passed: 0.25 to 0.5 s), each of 16
samples of 16 KiB out of 4 shards in a bucket: moto's server behind a proxy that adds 200 ms to each answer, answers 5 % with an
error, and holds one connection for ever in the midst of a body; both in a process of their own on the same machine. No cache.
Measured from step 20 to step 220: `waiting` is the share of the time that `next` took. `on` is with 64 MiB read ahead, `off`
with nothing read ahead: each step's samples are asked for, all at once, when it begins.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
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
AHEAD = 64 * 2**20


def compute(a: torch.Tensor, seconds: float) -> None:
    """Products for so long."""
    x, until = a, time.perf_counter() + seconds
    while time.perf_counter() < until:
        x = torch.tanh(x @ a)


def waits(folder: Path, options: dict[str, str], config: LoaderConfig, steps: int, seconds: float) -> dict[str, Any]:
    """Train for so many steps behind the first few."""
    samples = Records(folder, "bin", "s3://bench", Store.open("s3://bench/store", options))
    order = BatchOrder([Lane("all", [Source.of("all", samples)])], Batching(samples=BATCH), seed=0)
    a, waited, lasted, used = torch.randn(SIDE, SIDE), [], [], time.process_time()
    with Loader({"all": samples}, order, config) as loader:
        for _ in range(FIRST + steps):
            began = time.perf_counter()
            batch = loader.next()
            came = time.perf_counter()
            a[0, :BATCH] = batch["bin"].float().mean(1)
            compute(a, seconds)
            waited.append(came - began)
            lasted.append(time.perf_counter() - came)
        counted = loader.counters()
    waited, lasted = waited[FIRST:], sorted(lasted[FIRST:])
    return {
        "waiting": round(sum(waited) / (sum(waited) + sum(lasted)), 4),
        "longest_wait_s": round(max(waited), 3),
        "steps_that_waited": sum(one > 0.005 for one in waited),
        "step_s": [round(lasted[place], 3) for place in (0, len(lasted) // 2, -1)],
        "processor_s": round(time.process_time() - used, 1),
        "counters": {name: value for name, value in counted.items() if name.startswith("reader_")},
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--step-seconds", type=float, default=0.35)
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
