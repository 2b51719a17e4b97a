"""Neighbour search at scale: time, memory and recall at 100 thousand to a million vectors, beside faiss and plain clusters.

    OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 python -m tests.benchmarks.dedup_scale --counts 100000 316228 1000000 \\
        --sampled 20000 --rivals-up-to 1000000

Vectors of 384 float16 in heavy-tailed clusters (sizes ~ rank^-1, the largest 12 % of all), of which one in ten is a planted
copy at cos 0.95 to 1. Recall: of all pairs at or above the threshold that ``--sampled`` rows are part of, found by brute force
(0: not measured). Rivals: faiss IVF-Flat (range search, ``--nprobe`` lists; asked for the sampled rows alone, and the time of
the search scaled to all rows), and comparing inside k-means clusters alone, at k = 1000 and, up to 100,000 vectors, at
cosmos-curate's default of 4, whose time at the largest count is then that times the square of the ratio. One JSON line a
measurement. Ours takes one thread whatever is set; the variables hold the rivals to one as well.
"""

import argparse
import os
import resource
import time
from typing import Any

import numpy as np

from tests.benchmarks.paired import print_line
from wfm.curation.arrays import array_module
from wfm.curation.dedup.cells import kmeans
from wfm.curation.dedup.dedup import DedupConfig
from wfm.curation.dedup.neighbours import clustered_pairs

WIDTH, COPIES, BLOCK = 384, 0.1, 8192


def corpus(count: int, seed: int = 0, topics: int = 2000) -> np.ndarray:
    """float16 [count, 384] of length 1: the last tenth are copies of rows before, each at its own cosine in [0.95, 1]."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((topics, WIDTH), np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    share = 1 / np.arange(1, topics + 1)
    originals = count - int(count * COPIES)
    topic = rng.choice(topics, originals, p=share / share.sum())
    spread = rng.uniform(0.5, 1.1, topics).astype(np.float32)
    rows = np.zeros((count, WIDTH), np.float16)
    for a in range(0, originals, BLOCK):
        t = topic[a : a + BLOCK]
        t = t[: originals - a]
        noise = rng.standard_normal((len(t), WIDTH), np.float32) / np.sqrt(WIDTH)
        rows[a : a + len(t)] = _unit(centres[t] + spread[t, None] * noise)
    source = rng.integers(0, originals, count - originals)
    for a in range(0, len(source), BLOCK):
        x = rows[source[a : a + BLOCK]].astype(np.float32)
        side = rng.standard_normal(x.shape, np.float32)
        side = _unit(side - (side * x).sum(axis=1, keepdims=True) * x)
        cosine = rng.uniform(0.95, 1, (len(x), 1)).astype(np.float32)
        rows[originals + a : originals + a + len(x)] = _unit(cosine * x + np.sqrt(1 - cosine**2) * side)
    return rows


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def brute_force(rows: np.ndarray, sampled: np.ndarray, threshold: float) -> set[tuple[int, int]]:
    """All pairs at or above the threshold that a sampled row is part of; decided in float64 like the search."""
    queries = rows[sampled].astype(np.float32)
    found: set[tuple[int, int]] = set()
    for a in range(0, len(rows), BLOCK):
        i, j = np.nonzero(queries @ rows[a : a + BLOCK].astype(np.float32).T >= threshold - 1e-3)
        for x, y in zip(sampled[i].tolist(), (a + j).tolist(), strict=True):
            if x != y and round(float(rows[x].astype(np.float64) @ rows[y].astype(np.float64)), 9) >= threshold:
                found.add((min(x, y), max(x, y)))
    return found


def recall(truth: set[tuple[int, int]], first: np.ndarray, second: np.ndarray) -> float:
    low, high = np.minimum(first, second), np.maximum(first, second)
    return len(truth & set(zip(low.tolist(), high.tolist(), strict=True))) / len(truth)


def in_clusters(rows: np.ndarray, threshold: float, clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """The rivals' shape: k-means, then every pair inside a cluster, none across."""
    xp = array_module("cpu")
    centres = kmeans(xp, rows, np.arange(len(rows)), clusters, 0)
    half = (centres * centres).sum(axis=1) / 2
    nearest = np.concatenate(
        [(rows[a : a + BLOCK].astype(np.float32) @ centres.T - half).argmax(axis=1) for a in range(0, len(rows), BLOCK)]
    )
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for cluster in range(clusters):
        members = np.flatnonzero(nearest == cluster)
        for a in range(0, len(members), BLOCK):
            left = rows[members[a : a + BLOCK]].astype(np.float32)
            for b in range(a, len(members), BLOCK):
                i, j = np.nonzero(left @ rows[members[b : b + BLOCK]].astype(np.float32).T >= threshold)
                keep = members[a + i] < members[b + j]
                found.append((members[a + i[keep]], members[b + j[keep]]))
    return np.concatenate([x for x, _ in found]), np.concatenate([y for _, y in found])


def with_faiss(
    rows: np.ndarray, asked: np.ndarray, threshold: float, lists: int, nprobe: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """IVF-Flat over inner products, a range search of the rows asked for: (first, second, processor seconds for all rows).

    faiss keeps float32: 1.5 GB a million.
    """
    import faiss

    start = time.process_time()
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(WIDTH), WIDTH, lists, faiss.METRIC_INNER_PRODUCT)
    rng = np.random.default_rng(0)
    index.train(rows[np.sort(rng.choice(len(rows), min(len(rows), 64 * lists), replace=False))].astype(np.float32))
    for a in range(0, len(rows), BLOCK):
        index.add(rows[a : a + BLOCK].astype(np.float32))
    index.nprobe = nprobe
    built = time.process_time()
    first, second = [], []
    for a in range(0, len(asked), BLOCK):
        some = asked[a : a + BLOCK]
        bounds, _, hits = index.range_search(rows[some].astype(np.float32), threshold)
        first.append(np.repeat(some, np.diff(bounds.astype(np.int64))))
        second.append(hits)
    seconds = (built - start) + (time.process_time() - built) * len(rows) / len(asked)
    return np.concatenate(first), np.concatenate(second), seconds


def measured(name: str, truth: set[tuple[int, int]], call: Any, **more: object) -> float:
    """Prints the line of one search; returns processor seconds, which other users of the machine disturb less."""
    start, cpu = time.perf_counter(), time.process_time()
    first, second, *more_seconds = call()
    seconds = time.perf_counter() - start
    cpu = more_seconds[0] if more_seconds else time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print_line(
        benchmark="dedup_scale", search=name, seconds=round(seconds, 2), cpu_seconds=round(cpu, 2),
        recall=round(recall(truth, first, second), 5) if truth else None, pairs=len(first), truth=len(truth),
        peak_rss_gib=round(peak, 2), threads=os.environ.get("OPENBLAS_NUM_THREADS", "all"), **more,
    )  # fmt: skip
    return float(cpu)


def rivals(
    rows: np.ndarray, sampled: np.ndarray, truth: set[tuple[int, int]], ours: float, given: argparse.Namespace
) -> None:
    """The others over the same rows, and how much longer they take."""
    count, threshold, lists = len(rows), given.threshold, round(4 * np.sqrt(len(rows)))
    slower = {
        "in_clusters_1000": measured(
            "in_clusters", truth, lambda: in_clusters(rows, threshold, 1000), count=count, k=1000
        )
    }
    if len(sampled):
        slower["faiss_ivf_flat"] = measured(
            "faiss_ivf_flat", truth, lambda: with_faiss(rows, sampled, threshold, lists, given.nprobe),
            count=count, lists=lists, nprobe=given.nprobe, scaled_from=len(sampled),
        )  # fmt: skip
    if count <= 100_000:
        slower["in_clusters_4"] = cpu = measured(
            "in_clusters", truth, lambda: in_clusters(rows, threshold, 4), count=count, k=4
        )
        largest = max(given.counts)
        print_line(
            benchmark="dedup_scale", k=4, count=largest, extrapolated_cpu_seconds=round(cpu * (largest / count) ** 2)
        )
    print_line(
        benchmark="dedup_scale", count=count, times_ours={name: round(s / ours, 2) for name, s in slower.items()}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[20_000, 50_000])
    parser.add_argument("--sampled", type=int, default=20_000)
    parser.add_argument("--threshold", type=float, default=0.95)
    parser.add_argument("--reach", type=float, default=DedupConfig().reach)
    parser.add_argument("--leaf", type=int, default=DedupConfig().leaf)
    parser.add_argument(
        "--rivals-up-to", type=int, default=0, help="counts at which faiss and plain clusters run as well"
    )
    parser.add_argument("--nprobe", type=int, default=16)
    given = parser.parse_args()
    times = []
    for count in given.counts:
        rows = corpus(count)
        sampled = np.sort(np.random.default_rng(1).choice(count, min(count, given.sampled), replace=False))
        truth: set[tuple[int, int]] = set()
        for a in range(0, len(sampled), 2000):
            truth |= brute_force(rows, sampled[a : a + 2000], given.threshold)

        def ours(rows: np.ndarray = rows) -> tuple[np.ndarray, np.ndarray]:
            found = clustered_pairs(rows, np.arange(len(rows)), given.threshold, reach=given.reach, leaf=given.leaf)
            return found.first, found.second

        times.append(measured("ours", truth, ours, count=count, reach=given.reach, leaf=given.leaf))
        if count <= given.rivals_up_to:
            rivals(rows, sampled, truth, times[-1], given)
    if len(times) > 1:
        exponent = np.polyfit(np.log(given.counts), np.log(times), 1)[0]
        print_line(benchmark="dedup_scale", cpu_exponent=round(float(exponent), 3), counts=given.counts)


if __name__ == "__main__":
    main()
