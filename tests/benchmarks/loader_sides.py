"""One pass over the shards of `loader_data` by one library, in this process: what `loader.py` starts and times.

    python -m tests.benchmarks.loader_sides FOLDER KIND SIDE --workers 2 --batch list

Prints one JSON line: `seconds` from after the imports to after the last batch (opening, planning and workers included),
`processor` of it with that of the workers, `first` batch, `imports`, and what came: `samples`, `bytes`. Every side gives
batches of 16 samples in a shuffled order, each sample once: as a list of bytes (`list`), or stacked to one tensor (`stack`);
clips are decoded by `loader_data.decode`, always stacked.
"""

import argparse
import dataclasses
import importlib
import json
import os
import resource
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.benchmarks.loader_data import FRAMES, SIDE, SIZE, decode, read_places
from wfm.artifacts import Store
from wfm.data.loader import Loader, LoaderConfig
from wfm.data.order import Batching, BatchOrder, Lane, Source
from wfm.data.reading import RecordPlaces, RecordReader

BATCH = 16
BUFFER = 1000
"Samples of the rivals' shuffle buffers."
IMPORTS = {"webdataset": ("webdataset",), "energon": ("megatron.energon",)}


def as_tensor(data: bytes | memoryview, kind: str) -> torch.Tensor:
    if kind == "mp4":
        return torch.from_numpy(decode(data))
    return torch.frombuffer(data, dtype=torch.uint8)  # never written to


def webdataset(folder: Path, kind: str, workers: int, batch: str, prefetch: int) -> Iterator[Any]:
    """Batched in the workers, as its documentation advises; the order of shards and a buffer are shuffled."""
    import webdataset as wds

    shards = sorted(str(path) for path in folder.glob("shards/train/*.tar"))
    samples = wds.WebDataset(shards, shardshuffle=len(shards), seed=0, empty_check=False).shuffle(BUFFER, seed=0)
    if batch == "list":
        batches = samples.map(lambda sample: sample[kind]).listed(BATCH)
    else:
        batches = samples.map(lambda sample: as_tensor(sample[kind], kind)).batched(BATCH, collation_fn=torch.stack)
    if not workers:
        return iter(batches)
    return iter(wds.WebLoader(batches, batch_size=None, num_workers=workers, prefetch_factor=prefetch))


def energon_loader(folder: Path, kind: str, workers: int, batch: str, prefetch: int, repeat: bool = False) -> Any:
    """Crude samples, a cooker, no decoder of its own; slices of shards and a buffer are shuffled.

    Of its settings these were the quickest that shuffle (121 us of processor a sample with no worker, 244 with all as it
    comes): nothing of the task encoder overridden but `batch`, no collection of garbage between steps, one shard open at a
    time. Clips are decoded behind its buffer, so that it holds bytes.
    """
    from megatron.energon import Cooker, TaskEncoder, WorkerConfig, get_savable_loader, get_train_dataset, stateless

    raw = batch == "list"

    class Encoder(TaskEncoder):
        decoder = None
        cookers = (Cooker(stateless(lambda sample: sample)),)

        @stateless
        def batch(self, samples: list[Any]) -> Any:
            found = [sample[kind] for sample in samples]
            return found if raw else torch.stack([as_tensor(data, kind) for data in found])

    dataset = get_train_dataset(
        folder, worker_config=WorkerConfig(rank=0, world_size=1, num_workers=workers), batch_size=BATCH,
        shuffle_buffer_size=BUFFER, max_samples_per_sequence=None, parallel_shard_iters=1, task_encoder=Encoder(),
        repeat=repeat,
    )  # fmt: skip
    return get_savable_loader(dataset, prefetch_factor=prefetch, gc_collect_every_n_steps=0)


class Ids(Sequence[str]):
    """Of samples, from a mapped column: no Python object a row, as `wfm.data.encoded_samples` has them."""

    def __init__(self, column: np.ndarray) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, row: Any) -> Any:
        return self._column[row].decode()


class Records:
    """`Samples` over our reader: bytes as they are, or clips decoded by `decode`."""

    def __init__(self, folder: Path, kind: str, root: str = "", store: Store | None = None) -> None:
        warnings.filterwarnings("ignore", "The given buffer is not writable")
        held = read_places(folder)
        shards = [f"{root or folder}/{shard}" for shard in held["shards"].tolist()]
        places = RecordPlaces(shards, held["shard"], held["offset"], held["size"], held["sha256"], held["crc32c"])
        self.reader, self._kind = RecordReader(places, store=store), kind
        self.ids, self.order_keys = Ids(held["ids"]), held["order_keys"]
        shape, size = ((FRAMES, SIDE, SIDE), FRAMES * SIDE * SIDE * 3) if kind == "mp4" else ((1, 1, 1), SIZE)
        self.shapes = np.broadcast_to(np.array(shape), (len(self.ids), 3))
        self.sizes = np.broadcast_to(np.array(size), len(self.ids))
        self.identity = str(folder)

    def read(self, row: int) -> dict[str, torch.Tensor]:
        return self.read_many((row,))[0]

    def read_many(self, rows: Sequence[int]) -> list[dict[str, torch.Tensor]]:
        kind = self._kind
        return [{kind: as_tensor(members[kind], kind)} for members in self.reader.read_many(rows)]

    @property
    def counters(self) -> dict[str, float]:
        return dataclasses.asdict(self.reader.counts())


def wfm(folder: Path, kind: str, workers: int, batch: str, prefetch: int) -> Iterator[Any]:
    """The loader as a training has it: the order of buckets, hash of each sample checked; one epoch."""
    samples = Records(folder, kind)
    order = BatchOrder([Lane("all", [Source.of("all", samples)])], Batching(samples=BATCH), seed=0)
    with Loader({"all": samples}, order, LoaderConfig(workers=workers)) as loader:
        for _ in range(len(samples.ids) // BATCH):
            yield loader.next()[kind]


SIDES: dict[str, Callable[..., Iterable[Any]]] = {"wfm": wfm, "webdataset": webdataset, "energon": energon_loader}


def processor() -> float:
    return sum(
        used.ru_utime + used.ru_stime
        for used in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("kind", choices=("bin", "mp4"))
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--batch", choices=("list", "stack"), default="stack")
    parser.add_argument("--prefetch", type=int, default=2)
    parser.add_argument("--alone", action="store_true", help="before all other processes of the machine (root's right)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    start, used = time.perf_counter(), processor()
    for name in IMPORTS.get(given.side, ()):
        importlib.import_module(name)
    if given.alone:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    imports, start, used = time.perf_counter() - start, time.perf_counter(), processor()
    samples = size = 0
    first = None
    batches = SIDES[given.side](given.folder, given.kind, given.workers, given.batch, given.prefetch)
    for batch in batches:
        first = first or time.perf_counter() - start
        samples += len(batch)
        size += sum(map(len, batch)) if isinstance(batch, list) else batch.numel()
    seconds = time.perf_counter() - start
    del batches
    found = {"seconds": seconds, "processor": processor() - used, "first": first, "imports": imports}
    print(json.dumps({**found, "samples": samples, "bytes": size}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
