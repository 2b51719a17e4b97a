"""How long it takes to go on from a saved state: to open the data, restore, and have the first batch. One JSON line.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.loader_resume --samples 1000000 --shards 100 --pairs 5

The same samples of 16 bytes for both (a million are 1 GB of tars and take minutes to write; `--data` keeps them). Ours opens
its table of lengths, a part a shard, as a training does; `wfm, with identity` also works out which samples they are, as a
training does to know its checkpoint again (in `tried` alone: Energon does not ask whether the data are those of before). Each
side reads `--batches` batches of 16 in a first process and saves its state to a file; then, in ABBA order, processes of their
own restore it. Imports are not counted. Energon has its savable loader with the settings of `loader_sides` and a shuffle
buffer of 1,000 samples, which it reads again; it is tried with 0 and 2 workers, and the better is compared. `the_same_batch`
says whether what came after the restore is what came without. `first_s` is the time of a start from nothing, to the first
batch.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.loader_data import write_lengths, write_shards
from tests.benchmarks.loader_sides import BATCH, as_tensor, energon_loader
from tests.benchmarks.paired import print_line
from wfm.data.encoded_samples import EncodedSamples
from wfm.data.lengths import open_lengths
from wfm.data.loader import Loader, LoaderConfig
from wfm.data.order import Batching, BatchOrder, Lane, Source
from wfm.data.record_table import place_of

ROOT = Path(__file__).parents[2]


class Opened(EncodedSamples):
    """Records whose one member is `bin`, of a table of lengths that is opened as a training opens one."""

    def __init__(self, folder: Path) -> None:
        warnings.filterwarnings("ignore", "The given buffer is not writable")
        place = place_of(folder)
        super().__init__(open_lengths(place, "train"), place)

    def _tensors(self, row: int, members: Any) -> dict[str, torch.Tensor]:
        return {"bin": as_tensor(members["bin"], "bin")}


def ours(folder: Path, state: Path, batches: int, with_identity: int) -> Iterator[Any]:
    """The times of the first batch and of one after a restore; saves after `batches` where nothing was saved. `with_identity`:
    of the samples too, which a training compares with that of its checkpoint, and which is of ids and clips."""
    samples = Opened(folder)
    if with_identity:
        _ = samples.identity
    order = BatchOrder([Lane("all", [Source.of("all", samples)])], Batching(samples=BATCH), seed=0)
    with Loader({"all": samples}, order, LoaderConfig(workers=2)) as loader:
        if state.exists():
            loader.restore(json.loads(state.read_text()))
        for number in range(batches + 2):
            if number == batches and not state.exists():
                state.write_text(json.dumps(loader.state()))
            yield loader.next()["bin"].numpy().tobytes()


def energon(folder: Path, state: Path, batches: int, workers: int) -> Iterator[Any]:
    """The same."""
    loader = energon_loader(folder, "bin", workers, "list", 2, repeat=True)
    if state.exists():
        loader.restore_state_rank(torch.load(state, weights_only=False))  # written by this benchmark a moment ago
    for number, batch in enumerate(loader):
        yield b"".join(batch)
        if number == batches - 1 and not state.exists():
            torch.save(loader.save_state_rank(), state)
        if number == batches + 1:
            return


SIDES = {"wfm": ours, "energon": energon}


def here(side: str, folder: Path, state: Path, batches: int, workers: int) -> dict[str, Any]:
    """In this process: seconds to the first batch, and what came. Without a state: of the batch that follows what is saved."""
    if side == "energon":
        import megatron.energon  # noqa: F401
    fresh = not state.exists()
    began, used = time.perf_counter(), time.process_time()
    came = SIDES[side](folder, state, batches if fresh else 0, workers)
    first = next(came)
    seconds, processor = time.perf_counter() - began, time.process_time() - used
    for _ in range(batches if fresh else 0):
        first = next(came)
    if fresh:
        next(came, None)  # the state is saved by now
    return {"seconds": seconds, "processor": processor, "first": first.hex()}


def child(side: str, workers: int, folder: Path, state: Path, batches: int) -> dict[str, Any]:
    """The same in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.loader_resume", "--here", side, str(workers)]
    command += [str(folder), str(state), str(batches)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"{side} ended with {done.returncode}\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--batches", type=int, default=50)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--here", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.here:
        side, workers, folder, state, batches = given.here
        print(json.dumps(here(side, Path(folder), Path(state), int(batches), int(workers))), flush=True)
        os._exit(0)
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.data or Path(scratch) / "shards"
        write_shards(folder, "bin", given.samples, given.shards, size=16)
        write_lengths(folder)
        rivals = {"energon": ("energon", 0), "energon, 2 workers": ("energon", 2)}
        settings = {"wfm": ("wfm", 0), "wfm, with identity": ("wfm", 1), **rivals}
        states = {name: Path(scratch) / f"{number}.state" for number, name in enumerate(settings)}
        fresh = {name: child(*settings[name], folder, states[name], given.batches) for name in settings}
        tried = {name: child(*settings[name], folder, states[name], given.batches) for name in settings}
        same = {name: tried[name]["first"] == fresh[name]["first"] for name in settings}
        rival = min(rivals, key=lambda name: tried[name]["seconds"])
        found: dict[str, list[dict[str, Any]]] = {"wfm": [], rival: []}
        for pair in range(given.pairs):
            for name in ("wfm", rival) if pair % 2 == 0 else (rival, "wfm"):
                found[name].append(child(*settings[name], folder, states[name], given.batches))
        line: dict[str, Any] = {}
        for what in ("seconds", "processor"):
            ratios = [theirs[what] / mine[what] for mine, theirs in zip(found["wfm"], found[rival], strict=True)]
            line[f"{what}_ratio"] = [round(ratio, 2) for ratio in (statistics.median(ratios), min(ratios), max(ratios))]
            line[what] = {name: round(statistics.median(row[what] for row in rows), 3) for name, rows in found.items()}
        line["first_s"] = {name: round(row["seconds"], 3) for name, row in fresh.items()}
        line["tried_s"] = {name: round(row["seconds"], 3) for name, row in tried.items()}
        line["tried_processor"] = {name: round(row["processor"], 3) for name, row in tried.items()}
        line["state_bytes"] = {name: states[name].stat().st_size for name in settings}
    load = round(os.getloadavg()[0], 1)
    print_line(
        benchmark="loader_resume", samples=given.samples, pairs=given.pairs, the_same_batch=same, **line, load=load
    )


if __name__ == "__main__":
    main()
