"""Two programs on the same work, in turn, in one process: what a speed claim rests on.

    result = paired(ours, rival, pairs=9)      # ABBA order: drift of the machine cancels
    print_line(benchmark="...", **result.as_dict())

Absolute times mean nothing on a shared machine; the ratio rival / ours does, with the range over the pairs beside it.
`Floor` says what part of a time is unavoidable: its matrix products and attention at this machine's measured peak.
"""

import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

THREADS = int(os.environ.get("WFM_BENCHMARK_THREADS", "2"))


@dataclass(frozen=True)
class Paired:
    """Seconds a call of both sides, by pair."""

    ours: list[float]
    rival: list[float]

    @property
    def ratio(self) -> float:
        """Median over the pairs of rival / ours: above 1, ours is faster."""
        return statistics.median(self.ratios)

    @property
    def ratios(self) -> list[float]:
        return [rival / ours for ours, rival in zip(self.ours, self.rival, strict=True)]

    def as_dict(self) -> dict[str, float | list[float] | int]:
        return {
            "ratio": round(self.ratio, 3),
            "ratio_range": [round(min(self.ratios), 3), round(max(self.ratios), 3)],
            "ours_ms": round(1e3 * statistics.median(self.ours), 2),
            "rival_ms": round(1e3 * statistics.median(self.rival), 2),
            "pairs": len(self.ours),
            "threads": torch.get_num_threads(),
        }


def paired(
    ours: Callable[[], object],
    rival: Callable[[], object],
    *,
    pairs: int = 9,
    seconds: float = 0.3,
    clock: Callable[[], float] = time.perf_counter,
) -> Paired:
    """Time both in ABBA order. Each measurement repeats its call until `seconds` have passed; both are warmed up.

    clock: `time.process_time` with one thread counts the work on a machine that others use as well; it cannot show how well
    threads are used.
    """
    torch.set_num_threads(THREADS)
    repeats = [max(1, round(seconds / warm_up(call))) for call in (ours, rival)]
    times: tuple[list[float], list[float]] = ([], [])
    for pair in range(pairs):
        for side in (0, 1) if pair % 2 == 0 else (1, 0):
            times[side].append(time_of((ours, rival)[side], repeats[side], clock))
    return Paired(*times)


def warm_up(call: Callable[[], object], calls: int = 2) -> float:
    """Seconds of the last of a few calls."""
    for _ in range(calls - 1):
        call()
    return time_of(call, 1)


def time_of(call: Callable[[], object], repeats: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Mean seconds a call."""
    start = clock()
    for _ in range(repeats):
        call()
    return (clock() - start) / repeats


def best_batch(make: Callable[[int], Callable[[], object]], batches: tuple[int, ...] = (1, 2, 4)) -> int:
    """The batch at which `make(batch)` takes the least time a sample."""
    return min(batches, key=lambda batch: min(warm_up(make(batch)), warm_up(make(batch))) / batch)


@dataclass(frozen=True)
class Floor:
    """This machine's peaks [FLOP/s], the best of several tries."""

    gemm: float
    attention: float
    convolution: float

    def seconds(self, *, gemm: float = 0.0, attention: float = 0.0, convolution: float = 0.0) -> float:
        """Least time of so many FLOPs of each kind."""
        return gemm / self.gemm + attention / self.attention + convolution / self.convolution


@torch.no_grad()
def measure_floor(*, tokens: int = 512, head_dim: int = 48, heads: int = 8, tries: int = 9) -> Floor:
    """Peaks of a large GEMM, of the fused attention at `tokens` tokens, and of a channels-last 3x3 convolution."""
    torch.set_num_threads(THREADS)
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    q, k, v = (torch.randn(2, heads, tokens, head_dim) for _ in range(3))
    x = torch.randn(8, 128, 64, 64).to(memory_format=torch.channels_last)
    w = torch.randn(128, 128, 3, 3).to(memory_format=torch.channels_last)

    def peak(call: Callable[[], object], flops: float) -> float:
        warm_up(call, 3)
        return flops / min(time_of(call, 3) for _ in range(tries))

    return Floor(
        gemm=peak(lambda: a @ b, 2 * 1024**3),
        attention=peak(lambda: F.scaled_dot_product_attention(q, k, v), 4 * 2 * heads * tokens**2 * head_dim),
        convolution=peak(lambda: F.conv2d(x, w, padding=1), 2 * 8 * 64 * 64 * 128 * 128 * 9),
    )


def print_line(**values: object) -> None:
    """One JSON line."""
    print(json.dumps(values), flush=True)
