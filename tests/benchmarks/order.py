"""The order of samples: what it wastes, how even it leaves the ranks, and how long it takes. One JSON line.

    python tests/benchmarks/order.py
    python tests/benchmarks/order.py --seeds 20 --samples 1000000

Waste and balance are of 20,000 samples (60 % images log-uniform 240 to 4,096 tokens, 40 % clips log-uniform 720 to 48,000),
packs of 65,536 tokens, 64 streams with 8 open packs each, windows of 16 steps, for each seed; of each figure the least and the
most over the seeds. `waste` is of all closed packs over whole windows, about an epoch. `slowest_over_mean` is of each step's
ranks, a pack each, less 1, averaged over steps; `unbalanced` is of the same packs as they come. `nemo` is the greedy knapsack
over buffers that are flushed, on the same lengths, its packs as they come.

Times are of this process's processor, in a million samples: `order` is which sample comes when, with its seed; `all` is that
with packs and balance; `batches` is the other mode whole: 1,024 samples of one shape a step, of 36 shapes. `before` is the
order that it takes the place of (`plan_before`), a sample at a time, which neither packs nor knows shapes. `start` is from the
arrays of a source to the first step.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from sys import path as search_path

import numpy as np

search_path.insert(0, str(Path(__file__).parents[2]))


from tests.benchmarks.plan_before import DataPlan, epoch_rows
from tests.wfm.data.order.twins import greedy_buffers, lengths_of
from wfm.artifacts.schema import encode
from wfm.data.order import Batching, BatchOrder, Lane, Order, Packing, Source
from wfm.data.order.balance import cost_of, imbalance
from wfm.data.order.draws import Draws
from wfm.data.order.hashing import hash64
from wfm.data.order.sources import pieces_of

BUDGET, WINDOW, STREAMS = 65_536, 16, 64
BUFFERS = (64, 256, 1024)


def source_of(seed: int, count: int, weights: np.ndarray | None = None) -> Source:
    lengths = np.random.default_rng(seed).permutation(np.concatenate(lengths_of(seed, count)))
    return Source("all", lengths, np.arange(count, dtype=np.uint64), weights=weights)


def as_they_come(costs: list[int], ranks: int) -> float:
    return imbalance(np.array(costs[: len(costs) // ranks * ranks]).reshape(-1, ranks))


def quality(seed: int, ranks: int) -> dict[str, float]:
    source = source_of(seed, 20_000)
    order = Order([Lane("all", [source])], Packing(BUDGET, ranks), seed)
    epoch = int(source.lengths.sum()) / BUDGET / ranks / WINDOW
    state, costs, tokens, coming = order.start(), [], [], []
    for _ in range(max(1, round(epoch)) * WINDOW):
        step, state = order.next(state)
        costs.append(step.costs)
        tokens += [pack.tokens for pack in step.packs]
        # a window's packs in the order that the streams closed them in, which its steps were made of
        if step.number % WINDOW == 0:
            coming += order._lanes[0]._known.costs.tolist()
    return {
        "waste": 1 - np.mean(tokens) / BUDGET,
        "slowest_over_mean": imbalance(np.array(costs)),
        "unbalanced": as_they_come(coming, ranks),
        "state_bytes_a_stream": len(json.dumps(order.save(state), separators=(",", ":"))) / STREAMS,
        "state_bytes": len(encode(order.save(state))),
    }


def rival(seed: int, ranks: int, buffer: int) -> dict[str, float]:
    lengths = source_of(seed, 20_000).lengths
    packs = greedy_buffers(lengths.tolist(), BUDGET, buffer)
    costs = [int(cost_of(pack, 5120).sum()) for pack in packs]
    return {"waste": 1 - lengths.sum() / len(packs) / BUDGET, "slowest_over_mean": as_they_come(costs, ranks)}


def span(rows: list[dict[str, float]]) -> dict[str, list[float]]:
    """Least and most of each figure."""
    return {name: [round(float(pick(row[name] for row in rows)), 5) for pick in (min, max)] for name in rows[0]}


def seconds(work: Callable[[], object]) -> float:
    """Of the processor, the best of three."""
    found = []
    for _ in range(3):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def order_time(source: Source, count: int) -> float:
    """Microseconds a sample to say which samples come when: one epoch of every stream, from its tables on."""
    pieces = pieces_of(source, BUDGET, "refuse")
    some = 256
    streams = np.tile(np.arange(STREAMS), some)

    draws = Draws([source], [pieces], STREAMS, 1)

    def draw_all() -> None:
        if source.weights is not None:
            draws._epochs[0]._tables.clear()
        for first in range(0, count // STREAMS, some):
            drawn = draws.at(streams, np.repeat(np.arange(first, first + some), STREAMS))
            hash64(1, source.keys[drawn.pieces], pieces.starts[drawn.pieces], drawn.epochs, drawn.repeats)

    return seconds(draw_all) / count * 1e6


def all_time(source: Source, steps: int) -> float:
    order = Order([Lane("all", [source])], Packing(BUDGET, STREAMS), 1)
    drawn = 0

    def plan() -> None:
        nonlocal drawn
        state, drawn = order.start(), 0
        for _ in range(steps):
            step, state = order.next(state)
            drawn += sum(len(pack.rows) for pack in step.packs)

    plan()  # the tables of a weighted epoch are made
    return seconds(plan) / drawn * 1e6


def epoch_start(source: Source) -> float:
    """Seconds until the first draw of a weighted epoch is known."""
    tables = Draws([source], [pieces_of(source, BUDGET, "refuse")], STREAMS, 1)._epochs[0]
    epochs = iter(range(3))
    return seconds(lambda: tables._table(next(epochs)))


def batches_time(source: Source) -> tuple[float, float]:
    """Seconds from the arrays to the first step, and microseconds a sample from there on, of a window of steps."""
    random = np.random.default_rng(0)
    count = len(source.keys)
    shapes = np.stack([random.choice(each, count) for each in ([1, 5, 9, 13], [8, 16, 24], [8, 16, 24])], 1)

    def begin() -> BatchOrder:
        own = Source("all", shapes.prod(1), source.keys, 1, source.weights, shapes[:, 1:].prod(1), shapes)
        order = BatchOrder([Lane("all", [own])], Batching(1024), 1)
        order.next(order.start())
        return order

    order = begin()
    state, window = order.start(), order._lanes[0].window

    def plan() -> None:
        nonlocal state
        for _ in range(2 * window):  # two windows are planned, wherever in one the state stands
            _, state = order.next(state)

    return seconds(begin), seconds(plan) / 2 / window / 1024 * 1e6


def speed(count: int) -> dict[str, dict[str, float]]:
    ids = [f"sample-{number}" for number in range(count)]
    drawn = np.random.default_rng(0).uniform(0.2, 1.8, count)
    weights = drawn / drawn.mean()
    found: dict[str, dict[str, float]] = {}
    for name, held in {"even": None, "weighted": weights}.items():
        plan = DataPlan(ids, 1024, 1, STREAMS, None if held is None else tuple(held.tolist()))
        start = plan.start()
        plan.next(start)
        before = seconds(lambda plan=plan, start=start: [plan.next(start) for _ in range(4)]) / 4096 * 1e6
        begin = 0.0 if held is None else seconds(lambda: epoch_rows(ids, weights, 1, 1)) / count * 1e6
        source = source_of(0, count, held)
        ours = order_time(source, count)
        found[name] = {
            "before_us": before + begin,
            "order_us": ours,
            "order_times_before": (before + begin) / ours,
            "all_us": all_time(source, 64),
        }
        start, batches = batches_time(source)
        found[name] |= {
            "batches_us": batches,
            "batches_times_before": (before + begin) / batches,
            "batches_start_s": start,
        }
        if held is not None:
            found[name]["epoch_start_before_s"] = begin * count / 1e6
            found[name]["epoch_start_s"] = epoch_start(source)
    return {name: {key: round(value, 4) for key, value in row.items()} for name, row in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=1_000_000, help="for the times")
    given = parser.parse_args()
    seeds = range(given.seeds)
    line = {
        "ranks": {ranks: span([quality(seed, ranks) for seed in seeds]) for ranks in (8, 64)},
        "nemo": {
            buffer: {ranks: span([rival(seed, ranks, buffer) for seed in seeds]) for ranks in (8, 64)}
            for buffer in BUFFERS
        },
        "speed": speed(given.samples),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
