"""An index of nearest neighbours on disk (usearch's HNSW graph), opened by memory-mapping and never read whole.

Opened it takes about 60 bytes of memory a vector; the rest are pages of the file that queries touched (measured on 200,000
vectors of 384: 12 MiB of its own, of a file of 212 MiB; tests/benchmarks/search.py).

A folder holds three files, and is put in place by one rename, so that it is there whole or not at all:

    vectors.usearch   the graph and the vectors, float16, key k = row k of the rows
    rows.arrow        what a hit is shown with, one row a vector (Arrow IPC, memory-mapped)
    about.json        the stamp of what it was built from, counts, sizes

Plain twin: ``nearest(..., exact=True)`` compares with every vector. The graph's cosines come from float16 and are computed
again in float32 for the hits, so both give the same numbers for the same rows.
"""

import dataclasses
import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from wfm.artifacts.atomic import create_folder
from wfm.config import Config, how
from wfm.errors import ConfigError, DataError, MissingPackage

FORMAT = 1
_VECTORS, _ROWS, _ABOUT = "vectors.usearch", "rows.arrow", "about.json"


class IndexConfig(Config):
    """How dense the graph is and how hard it is searched.

    Measured on 20,000 vectors of 48 numbers in clumps, recall of the 10 nearest: 0.997 for queries from the same clumps, 0.993
    for others (16/128/128: 0.991 and 0.882), in a millisecond each. On 200,000 of 384 numbers in heavy-tailed
    clumps: 0.998, in 5 milliseconds.
    """

    connectivity: int = 32
    "Edges of a vector in the graph; more find more and take more bytes."
    build_effort: int = 256
    "Candidates looked at where an edge is made."
    search_effort: int = 512
    "Candidates looked at in a search, at least as many as hits are wanted."
    threads: int = how(0)
    "Threads that build; 0: all. With 1 the same vectors give the same bytes."


@dataclasses.dataclass(frozen=True)
class Piece:
    """Some vectors and the rows they belong to, as a build takes them in."""

    vectors: np.ndarray
    "float [n, D]; a vector of zeros (no direction) is left out and counted."
    rows: pa.Table
    "n rows."


class SearchIndex:
    """An opened index."""

    def __init__(self, folder: Path, stamp: str) -> None:
        """Map the files of ``folder``. Raises DataError when they are not whole or were built from something else."""
        about = _read_about(folder)
        if about.get("stamp") != stamp or about.get("format") != FORMAT:
            raise DataError(
                f"{folder}: built from {str(about.get('stamp'))[:12]}, wanted {stamp[:12]}: delete the folder"
            )
        for name, size in about["sizes"].items():
            seen = (folder / name).stat().st_size if (folder / name).is_file() else -1
            if seen != size:
                raise DataError(
                    f"{folder / name}: {seen} bytes, {size} were written: delete the folder, it is built again"
                )
        self.folder, self.about = folder, about
        opened = _usearch().restore
        try:
            self._index = opened(str(folder / _VECTORS), view=True)
            self._mapped = pa.memory_map(str(folder / _ROWS))
            self.rows: pa.Table = pa.ipc.open_file(self._mapped).read_all()
        except (ValueError, RuntimeError, OSError, pa.ArrowException) as error:
            raise DataError(f"{folder}: damaged ({error}): delete the folder, it is built again") from None
        if self._index is None or not len(self._index) == len(self.rows) == about["count"]:
            raise DataError(f"{folder}: the graph and its rows do not have {about['count']} entries: delete the folder")
        self._index.expansion_search = int(about["search_effort"])

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def width(self) -> int:
        """D of the vectors."""
        return int(self._index.ndim)

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """float32 [n, D] of the given rows, each of length 1 up to float16's rounding."""
        if not len(rows):
            return np.zeros((0, self.width), np.float32)
        return np.asarray(self._index.get(np.asarray(rows, np.uint64)), np.float32).reshape(len(rows), self.width)

    def all_vectors(self) -> np.ndarray:
        """float32 [N, D], in the order of ``rows``: for what looks at everything (clusters, a taxonomy)."""
        return self.vectors(np.arange(len(self)))

    def nearest(self, query: np.ndarray, count: int, *, exact: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """(rows int64 [n], cosines float32 [n]), best first, n <= count. query float [D], not all zeros."""
        query = np.asarray(query, np.float32)
        length = float(np.linalg.norm(query))
        if query.shape != (self.width,) or not np.isfinite(length) or not length > 0:
            raise DataError(
                f"a query is {self.width} finite numbers that are not all 0; this one has shape {query.shape}"
            )
        if count < 1:
            raise ConfigError(f"{count} hits were asked for: ask for 1 or more")
        unit = query / length
        found = self._index.search(unit, min(count, len(self)), exact=exact, threads=1)
        rows = np.asarray(found.keys, np.uint64).astype(np.int64)
        cosines = self.vectors(rows) @ unit
        order = np.lexsort((rows, -cosines))
        return rows[order], cosines[order]


def build_index(folder: Path, stamp: str, pieces: Iterator[Piece], config: IndexConfig) -> None:
    """Write an index, piece by piece, so that only the graph itself is held in memory.

    Another process may build the same at the same time: who is first wins, the other's work is thrown away. Raises DataError
    when no piece has a vector with a direction.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    temporary.mkdir()
    try:
        count, flat = _write(temporary, pieces, config)
        if not count:
            raise DataError(f"nothing to search: none of {flat} clips has a vector with a direction")
        sizes = {name: (temporary / name).stat().st_size for name in (_VECTORS, _ROWS)}
        about = {"format": FORMAT, "stamp": stamp, "count": count, "flat": flat, "sizes": sizes}
        about["search_effort"] = config.search_effort
        (temporary / _ABOUT).write_text(json.dumps(about, indent=1, sort_keys=True) + "\n")
        if not create_folder(temporary, folder) and not (folder / _ABOUT).is_file():
            raise DataError(f"{folder} holds something that is no index: move it away")
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def open_or_build(folder: Path, stamp: str, pieces: Iterator[Piece], config: IndexConfig) -> SearchIndex:
    """The index of ``stamp`` in ``folder``, built when it is not there, stale or damaged. ``pieces`` is only read to build."""
    try:
        return SearchIndex(folder, stamp)
    except DataError:
        shutil.rmtree(folder, ignore_errors=True)
    build_index(folder, stamp, pieces, config)
    return SearchIndex(folder, stamp)


def _write(folder: Path, pieces: Iterator[Piece], config: IndexConfig) -> tuple[int, int]:
    """(vectors written, vectors without a direction)."""
    index: Any = None
    writer: Any = None
    count = flat = 0
    try:
        for piece in pieces:
            lengths = np.linalg.norm(piece.vectors.astype(np.float32), axis=1)
            usable = np.flatnonzero(lengths > 0)
            flat += len(lengths) - len(usable)
            if not len(usable):
                continue
            unit = piece.vectors[usable].astype(np.float32) / lengths[usable, None]
            if index is None:
                index = _usearch()(
                    ndim=unit.shape[1], metric="ip", dtype="f16", connectivity=config.connectivity,
                    expansion_add=config.build_effort, expansion_search=config.search_effort,
                )  # fmt: skip
                writer = pa.ipc.new_file(str(folder / _ROWS), piece.rows.schema)
            index.add(np.arange(count, count + len(unit), dtype=np.uint64), unit, threads=config.threads)
            writer.write_table(piece.rows.take(usable))
            count += len(unit)
    finally:
        if writer is not None:
            writer.close()
    if index is not None:
        index.save(str(folder / _VECTORS))
    return count, flat


def _read_about(folder: Path) -> dict[str, Any]:
    try:
        about = json.loads((folder / _ABOUT).read_text())
        return about if isinstance(about, dict) and isinstance(about.get("sizes"), dict) else {}
    except FileNotFoundError:
        raise DataError(f"{folder}: there is no index here") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / _ABOUT}: cannot be read ({error}): delete the folder") from None


def _usearch() -> Any:
    try:
        from usearch.index import Index
    except ImportError:
        raise MissingPackage("usearch", extra="search", purpose="searching a dataset") from None
    return Index
