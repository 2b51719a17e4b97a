"""What ranks see of an order: real processes that meet over pipes, read real records with threads, and are killed.

    python -m tests.wfm.data.order.order_ranks FOLDER ANSWER [few] [all] [dying] [MODE=KILLS ...]

FOLDER holds `images` and `clips`, two artifacts of records. Ranks are forked off a server that has imported everything and
done nothing: pools of threads, which reading a table begins, do not survive a fork. Not over gloo, whose waiting ranks leave
two processors to nobody else: a rank is what reads its share, however it meets others. A rank that dies by itself, or takes
longer than `DEADLINE`, says where on standard error, and ends all others and the whole; so does the whole after `PATIENCE`.
What it has come to stands on standard error.
ANSWER gets a JSON object: with `few` or `all` (numbers of ranks and workers) "<mode> <ranks> <workers>" -> one hash of each
global batch, as rank 0 put it together from what all had read; with a mode the same of a run whose ranks were all killed
(SIGKILL) at that many seeded moments and that went on with other numbers of ranks and workers, from what it had saved last,
with an empty cache.
"""

import faulthandler
import hashlib
import itertools
import json
import multiprocessing
import multiprocessing.connection
import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np

from wfm.artifacts.schema import encode, parse
from wfm.data.encoded_samples import EncodedSamples, require_samples
from wfm.data.loader import Loader, LoaderConfig
from wfm.data.loader.batches import PackedBatch
from wfm.data.order import Batching, BatchOrder, Lane, Order, Packing, Phase, Phases, Source
from wfm.data.order.balance import share_out

_SERVER = multiprocessing.get_context("forkserver")
_IMPORTED = "pyarrow.parquet google_crc32c wfm.artifacts.tables wfm.data.encoded_samples wfm.data.loader wfm.data.order"
DEADLINE = 240.0
"""Seconds that a rank may live: about one on a quiet machine."""
PATIENCE = 480.0
"""Seconds that the whole may take: about ten on a quiet machine."""
STEPS, STEPS_A_KILL = 24, 8
REAL, WORKERS = (1, 2, 4), (0, 1, 3)
EIGHT = {"batches": 1, "packs": 3, "phases": 0}
"""Workers of each of 8 ranks in one process, where few are asked for."""
TOGETHER = 4
"""Steps after which ranks tell each other what they had, and the state is saved."""

MODES = ("batches", "packs", "phases")
_BEGAN = time.monotonic()

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
    """Ranks of one machine, made before they are started; who waits for another sleeps."""

    def __init__(self, size: int) -> None:
        self._barrier = _SERVER.Barrier(size)
        self._pipes = [_SERVER.Pipe(duplex=False) for _ in range(size)]
        self.rank, self.size = 0, size

    def barrier(self) -> None:
        self._barrier.wait(DEADLINE)

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


def rank_of(meeting: Meeting, rank: int, work: Callable[..., None], *arguments: Any) -> None:
    """A rank, in a process of its own."""
    faulthandler.dump_traceback_later(DEADLINE, exit=True)
    threads = os.listdir(f"/proc/{os.getppid()}/task")
    assert len(threads) == 1, f"forked off a process with {len(threads)} threads"
    meeting.rank = rank
    work(meeting, *arguments)
    os._exit(0)


def one_dies(meeting: Meeting) -> None:
    """While the others wait for it."""
    if meeting.rank:
        raise RuntimeError("the last words of a rank")
    meeting.gather("what rank 0 had")


@contextmanager
def started(size: int, work: Callable[..., None], *arguments: Any) -> Iterator[list[BaseProcess]]:
    """`size` ranks, each a process, at `work(meeting, ...)`. None is left behind."""
    meeting = Meeting(size)
    ranks = [_SERVER.Process(target=rank_of, args=(meeting, rank, work, *arguments)) for rank in range(size)]
    try:
        for rank in ranks:
            rank.start()
        yield ranks
    finally:
        kill([rank for rank in ranks if rank.pid])


def kill(ranks: Sequence[BaseProcess]) -> None:
    for rank in ranks:
        rank.kill()
    for rank in ranks:
        rank.join()


def ended(ranks: Sequence[BaseProcess]) -> None:
    """Once all have done their work. RuntimeError as soon as one has died: the others wait for it, for ever."""
    left = list(ranks)
    while left:
        multiprocessing.connection.wait([rank.sentinel for rank in left])
        left = [rank for rank in left if rank.is_alive()]
        require_whole(ranks)


def require_whole(ranks: Sequence[BaseProcess]) -> None:
    dead = {number: rank.exitcode for number, rank in enumerate(ranks) if rank.exitcode}
    if dead:
        raise RuntimeError(
            f"of {len(ranks)} ranks died by themselves (rank: exit code): {dead}; what they said is above"
        )


def undisturbed(mode: str, folder: Path, run: Path, size: int, workers: int) -> Sequenced:
    run.mkdir()
    with started(size, live, mode, workers, folder, run, STEPS) as ranks:
        ended(ranks)
    return (run / "log").read_text().split()


def killed(mode: str, folder: Path, run: Path, kills: int) -> dict[str, Any]:
    """A run that dies so many times, each time at a seeded step and a while into it."""
    run.mkdir()
    moments, steps = random.Random(mode), STEPS_A_KILL * kills
    lives: list[list[int]] = []
    for number in range(kills + 1):
        size, workers = moments.choice(REAL), moments.choice(WORKERS)
        shutil.rmtree(os.environ["WFM_CACHE"], ignore_errors=True)
        at = steps * (number + 1) // (kills + 1) + moments.randrange(-2, 3)
        with started(size, live, mode, workers, folder, run, steps) as ranks:
            if number < kills:
                wait_for(run / "log", at, ranks)
                time.sleep(moments.random() / 100)
                kill(ranks)
            else:
                ended(ranks)
        lives.append([size, *(rank.exitcode for rank in ranks)])
        tell(f"{mode}: life {number + 1} of {kills + 1}, {size} ranks with {workers} workers, is over")
    return {"batches": (run / "log").read_text().split(), "lives": lives}


def wait_for(log: Path, lines: int, ranks: Sequence[BaseProcess]) -> None:
    """Until the log has so many lines."""
    while not log.exists() or log.read_bytes().count(b"\n") < lines:
        require_whole(ranks)
        if not any(rank.is_alive() for rank in ranks):
            raise RuntimeError(f"{len(ranks)} ranks came to the end of the run before {lines} steps were in its log")
        time.sleep(0.001)


def undisturbed_runs(folder: Path, runs: Path, *, few: bool) -> Iterator[tuple[str, Sequenced]]:
    """`few`: each number of ranks with one number of workers."""
    for mode in MODES:
        for size, workers in zip(REAL, WORKERS, strict=True) if few else itertools.product(REAL, WORKERS):
            name = f"{mode} {size} {workers}"
            tell(name)
            yield name, undisturbed(mode, folder, runs / name.replace(" ", "-"), size, workers)
    samples = samples_in(folder)
    for mode in MODES:
        for workers in (EIGHT[mode],) if few else WORKERS:
            tell(name := f"{mode} in process 8 {workers}")
            yield name, in_process(mode, samples, 8, workers)


def tell(what: str) -> None:
    print(f"{time.process_time():.1f} s of processor, {time.monotonic() - _BEGAN:.1f} s: {what}", file=sys.stderr)


def main(folder: str, answer: str, *asked: str) -> None:
    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    runs = Path(answer + ".runs")
    runs.mkdir()
    found: dict[str, Any] = {}
    _SERVER.set_forkserver_preload(_IMPORTED.split())
    if "dying" in asked:
        with started(2, one_dies) as ranks:
            ended(ranks)
    for mode, kills in (each.split("=") for each in asked if "=" in each):
        found[mode] = killed(mode, Path(folder), runs / f"{mode}-killed", int(kills))
    for each in {"few", "all"} & set(asked):
        found |= dict(undisturbed_runs(Path(folder), runs, few=each == "few"))
    Path(answer).write_text(json.dumps(found))
    tell("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
