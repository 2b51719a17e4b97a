"""The search index at scale: recall of the 10 nearest, time and memory, beside faiss's HNSW at the same settings.

    python -m tests.benchmarks.search --counts 20000 200000 --queries 500

Vectors of 384 numbers in heavy-tailed clumps (the generator of `dedup_scale`); queries are of the same clumps and not in the
index. Every engine builds in one process and answers in another, which has opened the index and nothing else: ``open_mib`` and
``asked_mib`` are memory of its own (not pages of the mapped file), ``mapped_mib`` the pages of files that its queries touched.
One JSON line for each count and engine.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from tests.benchmarks.dedup_scale import corpus
from tests.benchmarks.paired import print_line
from wfm.curation.search.search_index import IndexConfig, Piece, SearchIndex, build_index

NEAREST, PIECE = 10, 8192


def truth(rows: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """int64 [Q, 10]: the nearest by brute force in float32, of vectors as float16 keeps them."""
    best = np.full((len(queries), 0), -1.0, np.float32)
    at = np.zeros((len(queries), 0), np.int64)
    for start in range(0, len(rows), 65536):
        cosines = queries @ rows[start : start + 65536].astype(np.float32).T
        best = np.concatenate([best, cosines], axis=1)
        at = np.concatenate([at, np.broadcast_to(np.arange(start, start + cosines.shape[1]), cosines.shape)], axis=1)
        order = np.argpartition(-best, min(NEAREST, best.shape[1] - 1), axis=1)[:, :NEAREST]
        best, at = np.take_along_axis(best, order, 1), np.take_along_axis(at, order, 1)
    return at


def build(engine: str, rows: np.ndarray, folder: Path) -> None:
    config = IndexConfig()
    if engine == "ours":

        def pieces() -> Iterator[Piece]:
            for start in range(0, len(rows), PIECE):
                some = rows[start : start + PIECE]
                yield Piece(some, pa.table({"clip_id": [f"{start + k:064x}" for k in range(len(some))]}))

        build_index(folder / "index", "benchmark", pieces(), config)
        return
    import faiss

    index = faiss.IndexHNSWFlat(rows.shape[1], config.connectivity, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = config.build_effort
    for start in range(0, len(rows), PIECE):
        index.add(rows[start : start + PIECE].astype(np.float32))
    (folder / "index").mkdir()
    faiss.write_index(index, str(folder / "index/faiss"))


def opened(engine: str, folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """One query -> rows of the 10 nearest."""
    if engine == "ours":
        index = SearchIndex(folder / "index", "benchmark")
        return lambda query: index.nearest(query, NEAREST)[0]
    import faiss

    found = faiss.read_index(str(folder / "index/faiss"))
    found.hnsw.efSearch = IndexConfig().search_effort
    faiss.omp_set_num_threads(1)
    return lambda query: found.search(query[None], NEAREST)[1][0]


def memory() -> dict[str, float]:
    """MiB of this process: its own, and of files it has mapped."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(lines[name].split()[0]) / 1024 for name in ("RssAnon", "RssFile")}


def answer(engine: str, folder: Path) -> None:
    """In a process of its own: open, ask, and say what it took."""
    queries = np.load(folder / "queries.npy")
    if engine != "ours":
        import faiss  # noqa: F401
    before, start = memory(), time.perf_counter()
    ask = opened(engine, folder)
    opening, after = time.perf_counter() - start, memory()
    found, times, cpu = [], [], time.process_time()
    for query in queries:
        start = time.perf_counter()
        found.append(ask(query))
        times.append(time.perf_counter() - start)
    cpu, asked = time.process_time() - cpu, memory()
    np.save(folder / "found.npy", np.stack(found))
    facts = {
        "open_seconds": round(opening, 3),
        "open_mib": round(after["RssAnon"] - before["RssAnon"], 1),
        "asked_mib": round(asked["RssAnon"] - before["RssAnon"], 1),
        "mapped_mib": round(asked["RssFile"] - before["RssFile"], 1),
        "query_cpu_ms_mean": round(cpu / len(queries) * 1e3, 2),
        "query_ms_median": round(float(np.median(times)) * 1e3, 2),
        "query_ms_p99": round(float(np.quantile(times, 0.99)) * 1e3, 2),
    }
    (folder / "answer.json").write_text(json.dumps(facts))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--counts", type=int, nargs="+", default=[20_000, 200_000])
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--engines", nargs="+", default=["ours", "faiss"])
    parser.add_argument("--step", choices=["build", "answer"])
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    if given.step == "answer":
        return answer(given.engines[0], given.folder)
    if given.step == "build":
        rows, start, cpu = np.load(given.folder / "rows.npy", mmap_mode="r"), time.perf_counter(), time.process_time()
        build(given.engines[0], rows, given.folder)
        took = {"build_seconds": time.perf_counter() - start, "build_cpu_seconds": time.process_time() - cpu}
        (given.folder / "build.json").write_text(json.dumps({name: round(value, 1) for name, value in took.items()}))
        return None
    for count in given.counts:
        everything = corpus(count + given.queries)
        chosen = np.sort(np.random.default_rng(1).choice(len(everything), given.queries, replace=False))
        rows = np.delete(everything, chosen, axis=0)
        queries = everything[chosen].astype(np.float32)
        nearest = truth(rows, queries)
        for engine in given.engines:
            with tempfile.TemporaryDirectory() as place:
                folder = Path(place)
                np.save(folder / "rows.npy", rows)
                np.save(folder / "queries.npy", queries)
                facts = {}
                for step in ("build", "answer"):
                    command = ["--step", step, "--folder", place, "--engines", engine]
                    subprocess.run([sys.executable, "-m", "tests.benchmarks.search", *command], check=True)
                    facts |= json.loads((folder / f"{step}.json").read_text())
                found = np.load(folder / "found.npy")
                met = sum(len(set(a) & set(b)) for a, b in zip(found.tolist(), nearest.tolist(), strict=True))
                size = sum(path.stat().st_size for path in (folder / "index").iterdir())
            print_line(
                benchmark="search", engine=engine, count=count, width=rows.shape[1], queries=len(queries),
                recall_at_10=round(met / nearest.size, 4), disk_mib=round(size / 2**20, 1), **facts,
            )  # fmt: skip
    return None


if __name__ == "__main__":
    main()
