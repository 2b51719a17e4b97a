"""The index on disk: what it finds against comparing with everything, that it is whole or not there, and bad input."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from wfm.curation.search.search_index import IndexConfig, Piece, SearchIndex, build_index, open_or_build
from wfm.errors import ConfigError, DataError

ONE = IndexConfig(threads=1)


def clustered(count: int, width: int = 48, seed: int = 0) -> np.ndarray:
    """float32 [count, width] in clumps of uneven sizes, as embeddings lie."""
    rng = np.random.default_rng(seed)
    clump = np.minimum(rng.zipf(1.3, count), 60) - 1
    centres = rng.standard_normal((60, width))
    return (centres[clump] + 0.7 * rng.standard_normal((count, width))).astype(np.float32)


def pieces(x: np.ndarray, step: int = 700) -> Iterator[Piece]:
    for start in range(0, len(x), step):
        ids = [f"clip{row:06d}" for row in range(start, min(start + step, len(x)))]
        yield Piece(x[start : start + step], pa.table({"clip_id": ids}))


def none() -> Iterator[Piece]:
    raise AssertionError("the index was built again")
    yield


def test_recall_against_brute_force(tmp_path: Path) -> None:
    everything = clustered(4100)
    x, queries = everything[:4000], everything[4000:]
    index = open_or_build(tmp_path / "i", "s", pieces(x), ONE)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    met = 0
    for query in queries:
        true = np.argsort(-(unit @ query), kind="stable")[:10]
        found, cosines = index.nearest(query, 10)
        assert list(cosines) == sorted(cosines, reverse=True)
        met += len(set(true) & set(found))
        exact, exact_cosines = index.nearest(query, 10, exact=True)
        assert len(set(true) & set(exact)) >= 9, "float16 may swap neighbours at the edge, no more"
        np.testing.assert_allclose(exact_cosines, (unit @ (query / np.linalg.norm(query)))[exact], atol=1e-3)
    assert met / (10 * len(queries)) >= 0.99


def test_rows_belong_to_vectors_and_flat_ones_are_counted(tmp_path: Path) -> None:
    x = clustered(1500)
    x[[3, 700, 1499]] = 0
    index = open_or_build(tmp_path / "i", "s", pieces(x), ONE)
    assert (len(index), index.about["flat"]) == (1497, 3)
    for row in (0, 3, 698, 1496):
        clip = int(index.rows.column("clip_id")[row].as_py()[4:])
        assert x[clip].any()
        assert index.nearest(x[clip], 1)[1][0] > 0.999
        assert index.nearest(x[clip], 1)[0][0] == row


def test_the_same_vectors_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        build_index(tmp_path / name, "s", pieces(clustered(900)), ONE)
    for file in ("vectors.usearch", "rows.arrow", "about.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_built_once_and_again_when_stale_or_damaged(tmp_path: Path) -> None:
    x, folder = clustered(300), tmp_path / "i"
    open_or_build(folder, "first", pieces(x), ONE)
    assert len(open_or_build(folder, "first", none(), ONE)) == 300
    assert len(open_or_build(folder, "second", pieces(x[:200]), ONE)) == 200, "stale"
    with (folder / "vectors.usearch").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(DataError, match="1000 bytes"):
        SearchIndex(folder, "second")
    assert len(open_or_build(folder, "second", pieces(x[:100]), ONE)) == 100, "damaged"
    (folder / "about.json").write_text("{")
    assert len(open_or_build(folder, "second", pieces(x[:50]), ONE)) == 50
    (folder / "rows.arrow").unlink()
    assert len(open_or_build(folder, "second", pieces(x[:60]), ONE)) == 60
    for name in ("vectors.usearch", "rows.arrow"):  # as long as it was
        (folder / name).write_bytes(bytes((folder / name).stat().st_size))
        assert len(open_or_build(folder, "second", pieces(x[:70]), ONE)) == 70


def test_a_build_that_dies_leaves_nothing(tmp_path: Path) -> None:
    def dies() -> Iterator[Piece]:
        yield next(pieces(clustered(300)))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_index(tmp_path / "i", "s", dies(), ONE)
    assert list(tmp_path.iterdir()) == []


def test_two_builders_the_first_wins(tmp_path: Path) -> None:
    def late() -> Iterator[Piece]:
        yield from pieces(clustered(300))
        build_index(tmp_path / "i", "s", pieces(clustered(300)), ONE)  # the other one is done first

    build_index(tmp_path / "i", "s", late(), ONE)
    assert len(SearchIndex(tmp_path / "i", "s")) == 300
    assert [path.name for path in tmp_path.iterdir()] == ["i"]


def test_wrong_questions_are_refused(tmp_path: Path) -> None:
    index = open_or_build(tmp_path / "i", "s", pieces(clustered(50)), ONE)
    for query in (np.zeros(48), np.ones(47), np.full(48, np.nan)):
        with pytest.raises(DataError, match="48 finite numbers"):
            index.nearest(query, 3)
    with pytest.raises(ConfigError, match="0 hits"):
        index.nearest(np.ones(48), 0)
    assert len(index.nearest(np.ones(48), 500)[0]) == 50, "more than there are: all"
    with pytest.raises(DataError, match="none of 5 clips"):
        build_index(tmp_path / "none", "s", pieces(np.zeros((5, 48), np.float32)), ONE)
    shutil.copytree(tmp_path / "i", tmp_path / "j")
    about = json.loads((tmp_path / "j/about.json").read_text())
    (tmp_path / "j/about.json").write_text(json.dumps({**about, "count": 49}))
    with pytest.raises(DataError, match="49 entries"):
        SearchIndex(tmp_path / "j", "s")
