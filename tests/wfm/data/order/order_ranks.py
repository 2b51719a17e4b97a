"""What ranks see of an order: real processes that meet over pipes, read real records with threads, and are killed.

    python -m tests.wfm.data.order.order_ranks FOLDER ANSWER [undisturbed] [packs] [phases]

FOLDER holds `images` and `clips`, two artifacts of records. Ranks are forked from this process, which loads everything once.
Not over gloo, whose waiting ranks leave two processors to nobody else: a rank is what reads its share, however it meets others.
ANSWER gets a JSON object: with `undisturbed` "<mode> <ranks> <workers>" -> one hash of each global batch, as rank 0 put it
together from what all had read; with a mode the same of a run whose ranks were all killed (SIGKILL) at ten seeded moments and
that went on with other numbers of ranks and workers, from what it had saved last, with an empty cache.
"""

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from wfm.artifacts.schema import encode, parse
from wfm.data.encoded_samples import EncodedSamples, require_samples
from wfm.data.loader import Loader, LoaderConfig
from wfm.data.loader.batches import PackedBatch
from wfm.data.order import Batching, BatchOrder, Lane, Order, Packing, Phase, Phases, Source
from wfm.data.order.balance import share_out

_FORKED = multiprocessing.get_context("fork")
STEPS, KILLED_STEPS = 24, 80
REAL, WORKERS = (1, 2, 4), (0, 1, 3)
KILLS = 10
TOGETHER = 4
"""Steps after which ranks tell each other what they had, and the state is saved."""

MODES = ("batches", "packs", "phases")

Sequenced = list[str]


def samples_in(folder: Path) -> dict[str, EncodedSamples]:
    return {name: require_samples(folder / name, "train") for name in ("images", "clips")}


def order_of(mode: str, samples: dict[str, EncodedSamples]) -> BatchOrder | Order | Phases:
    """Images beside clips in one lane, clips alone in another; in phases a fifth of the run is of images."""
    images = Source.of("images", samples["images"], 2)
    clips = Source.of("clips", samples["clips"], 3, np.linspace(0.5, 1.5, len(samples["clips"])))
    lanes = [Lane("mixed", [images, clips]), Lane("clips", [clips], 2)]
    packing = Packing(256, 8, streams=4, bins=3, age=40, window=4)
    if mode == "packs":
        return Order(lanes, packing, 7)
    batches = BatchOrder(lanes, Batching(6), 7)
    if mode == "batches":
        return batches
    return Phases([Phase(BatchOrder([Lane("a", [images]), Lane("b", [clips])], Batching(4), 8), 9), Phase(batches, 0)])


def packs_of(batch: Any) -> list[list[list[Any]]]:
    """What a rank was given: of each pack its samples, as their seed and a hash of what was read."""
    if isinstance(batch, PackedBatch):
        each = [_fact(*both) for both in zip(batch.seeds.tolist(), (s["latents"] for s in batch.samples), strict=True)]
        ends = batch.bounds.tolist()
        return [each[first:end] for first, end in pairwise(ends)]
    return [[_fact(*both) for both in zip(batch["seeds"].tolist(), batch["latents"], strict=True)]]


def _fact(seed: int, latents: Any) -> list[Any]:
    return [seed, hashlib.sha256(latents.contiguous().numpy().tobytes()).hexdigest()[:16]]


def whole(order: Any, step: Any, shares: Sequence[list[list[list[Any]]]]) -> str:
    """The global batch, from what each rank had of it: sha256."""
    ranks = len(shares)
    if order.bucketed:
        count = len(step.packs[0].rows)
        found = [[shares[place % ranks][0][place // ranks] for place in range(count)]]
    else:
        found = [[] for _ in step.packs]
        for share, places in zip(shares, share_out(step.costs, ranks), strict=True):
            for place, pack in zip(places.tolist(), share, strict=True):
                found[place] = pack
    return hashlib.sha256(json.dumps([step.number, step.lane, found]).encode()).hexdigest()


def in_process(mode: str, samples: dict[str, EncodedSamples], ranks: int, workers: int) -> Sequenced:
    """Ranks in one process, each with a loader of its own."""
    order = order_of(mode, samples)
    loaders = [Loader(samples, order_of(mode, samples), LoaderConfig(workers=workers)) for _ in range(ranks)]
    for rank, loader in enumerate(loaders):
        loader.share_with(rank, ranks)
    steps, _ = walked(order, order.start(), STEPS)
    found = [whole(order, step, [packs_of(loader.next()) for loader in loaders]) for step in steps]
    for loader in loaders:
        loader.close()
    return found


def walked(order: Any, state: Any, steps: int) -> tuple[list[Any], Any]:
    """So many steps from `state` on, and the state after them."""
    found = []
    for _ in range(steps):
        step, state = order.next(state)
        found.append(step)
    return found, state


class Meeting:
    """Ranks of one machine, made before they are forked off; who waits for another sleeps."""

    def __init__(self, size: int) -> None:
        self._barrier = _FORKED.Barrier(size)
        self._pipes = [_FORKED.Pipe(duplex=False) for _ in range(size)]
        self.rank, self.size = 0, size

    def barrier(self) -> None:
        self._barrier.wait()

    def gather(self, mine: Any) -> list[Any]:
        """What all ranks have, for rank 0; nothing for the others."""
        self._pipes[self.rank][1].send(mine)
        return [] if self.rank else [receiving.recv() for receiving, _ in self._pipes]


def live(ranks: Meeting, mode: str, workers: int, folder: Path, run: Path, steps: int) -> None:
    """One rank, from what was saved last to `steps` or to its death."""
    samples = samples_in(folder)
    order, saved, log = order_of(mode, samples), run / "state", run / "log"
    with Loader(samples, order_of(mode, samples), LoaderConfig(workers=workers)) as loader:
        loader.share_with(ranks.rank, ranks.size)
        state, first = order.start(), 0
        if saved.exists():
            held = parse(saved.read_bytes(), "the state")
            loader.restore(held["order"])
            state, first = order.restore(held["order"]), held["step"]
        lines = log.read_text().splitlines(keepends=True)[:first] if log.exists() else []
        ranks.barrier()
        if not ranks.rank:
            log.write_text("".join(lines))
        for number in range(first, steps, TOGETHER):
            mine = [packs_of(loader.next()) for _ in range(min(TOGETHER, steps - number))]
            found = ranks.gather(mine)
            taken, state = walked(order, state, len(mine))
            if not ranks.rank:
                with log.open("a") as file:
                    for place, step in enumerate(taken):
                        file.write(whole(order, step, [share[place] for share in found]) + "\n")
                new = saved.with_suffix(".new")
                new.write_bytes(encode({"schema_version": 1, "step": number + len(mine), "order": loader.state()}))
                new.replace(saved)
        ranks.barrier()


def forked(size: int, *arguments: Any) -> list[int]:
    """`size` ranks, each a process: their ids."""
    meeting, children = Meeting(size), []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            try:
                meeting.rank = rank
                live(meeting, *arguments)
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    return children


def ended(children: list[int]) -> list[int]:
    """Exit codes, once all have ended; below 0: by that signal."""
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def undisturbed(mode: str, folder: Path, run: Path, size: int, workers: int) -> Sequenced:
    run.mkdir()
    codes = ended(forked(size, mode, workers, folder, run, STEPS))
    assert not any(codes), codes
    return (run / "log").read_text().split()


def killed(mode: str, folder: Path, run: Path) -> dict[str, Any]:
    """A run that dies ten times, each time at a seeded step and a while into it."""
    run.mkdir()
    moments = random.Random(mode)
    lives: list[list[int]] = []
    for number in range(KILLS + 1):
        size, workers = moments.choice(REAL), moments.choice(WORKERS)
        shutil.rmtree(os.environ["WFM_CACHE"], ignore_errors=True)
        at = KILLED_STEPS * (number + 1) // (KILLS + 1) + moments.randrange(-2, 3)
        children = forked(size, mode, workers, folder, run, KILLED_STEPS)
        if number < KILLS:
            wait_for(run / "log", at, children)
            time.sleep(moments.random() / 100)
            for child in children:
                os.kill(child, signal.SIGKILL)
        lives.append([size, *ended(children)])
    return {"batches": (run / "log").read_text().split(), "lives": lives}


def wait_for(log: Path, lines: int, children: list[int]) -> None:
    """Until the log has so many lines."""
    while not log.exists() or log.read_bytes().count(b"\n") < lines:
        time.sleep(0.001)
        for child in children:  # left to be waited for
            if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                raise RuntimeError(f"a rank of {len(children)} ended by itself before {lines} steps")


def undisturbed_runs(folder: Path, runs: Path) -> Iterator[tuple[str, Sequenced]]:
    """Real ranks first: what is forked off has no loader's threads yet."""
    for mode in MODES:
        for size in REAL:
            for workers in WORKERS:
                name = f"{mode} {size} {workers}"
                yield name, undisturbed(mode, folder, runs / name.replace(" ", "-"), size, workers)
    samples = samples_in(folder)
    for mode in MODES:
        for workers in WORKERS:
            yield f"{mode} in process 8 {workers}", in_process(mode, samples, 8, workers)


def main(folder: str, answer: str, *asked: str) -> None:
    runs = Path(answer + ".runs")
    runs.mkdir()
    samples_in(Path(folder))  # what it imports is there before ranks are forked off
    found = {mode: killed(mode, Path(folder), runs / f"{mode}-killed") for mode in MODES if mode in asked}
    if "undisturbed" in asked:
        found |= dict(undisturbed_runs(Path(folder), runs))
    Path(answer).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)
