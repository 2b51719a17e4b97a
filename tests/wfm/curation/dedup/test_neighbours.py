"""Pairs: block by block against the plain definition, and the clustered search against the exact one."""

import tracemalloc

import numpy as np
import pytest

from wfm.curation.dedup import cells
from wfm.curation.dedup.neighbours import Pairs, clustered_pairs, exact_pairs
from wfm.curation.dedup.projection import kept_share, project


def scattered(seed: int, count: int, copies: int, noise: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """float16 [N, 32] of length 1, some of them near copies of others, and groups of about three."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, 32))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    source = rng.integers(0, count - copies, copies)
    rows[-copies:] = rows[source] + noise * rng.normal(size=(copies, 32)) * rng.uniform(0, 1, (copies, 1))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float16), rng.integers(0, count // 3, count)


def as_set(pairs: Pairs) -> set[tuple[int, int]]:
    return set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))


@pytest.mark.parametrize("block", [7, 64, 1000])
def test_exact_pairs_equal_the_definition(block: int) -> None:
    rows, groups = scattered(0, 150, 40)
    cosines = rows.astype(np.float64) @ rows.astype(np.float64).T
    expected = {
        (i, j) for i in range(150) for j in range(i + 1, 150) if cosines[i, j] >= 0.95 and groups[i] != groups[j]
    }
    found = exact_pairs(rows, groups, 0.95, block=block)
    assert as_set(found) == expected
    assert len(expected) > 20
    assert found.cosine == pytest.approx(
        [cosines[i, j] for i, j in zip(found.first, found.second, strict=True)], abs=1e-3
    )


@pytest.mark.parametrize("seed", range(4))
def test_clustered_search_finds_every_pair(seed: int) -> None:
    rows, groups = scattered(seed, 800, 300)
    exact = exact_pairs(rows, groups, 0.95)
    found = clustered_pairs(rows, groups, 0.95, seed=seed, leaf=64)
    assert found.cut_short == 0
    assert as_set(found) == as_set(exact)
    assert len(exact.first) > 100


def test_one_probe_loses_pairs_and_says_so() -> None:
    """What in-cluster search without further probes does; the test of the test above."""
    rows, groups = scattered(1, 800, 300)
    found = clustered_pairs(rows, groups, 0.95, leaf=16, most_probes=1)
    assert found.cut_short > 0
    assert as_set(found) < as_set(exact_pairs(rows, groups, 0.95))


def test_zero_vectors_are_equal_to_nothing() -> None:
    rows = np.zeros((10, 8), np.float16)
    groups = np.arange(10)
    assert len(exact_pairs(rows, groups, 0.9).first) == 0
    assert len(clustered_pairs(rows, groups, 0.9).first) == 0


def test_no_vectors_and_one_vector() -> None:
    for count in (0, 1):
        rows = np.ones((count, 4), np.float16) / 2
        assert len(exact_pairs(rows, np.arange(count), 0.9).first) == 0
        assert len(clustered_pairs(rows, np.arange(count), 0.9).first) == 0


def test_the_same_seed_gives_the_same_pairs() -> None:
    rows, groups = scattered(2, 300, 100)
    a, b = (clustered_pairs(rows, groups, 0.9, seed=3) for _ in range(2))
    assert np.array_equal(a.first, b.first)
    assert np.array_equal(a.cosine, b.cosine)


def test_a_cosine_does_not_depend_on_what_else_is_there() -> None:
    """A matrix product of another shape rounds otherwise; a stored cosine must not: one more video would touch every part."""
    rows, _ = scattered(4, 300, 150)
    groups = np.arange(300)
    everything = exact_pairs(rows, groups, 0.9)
    known = dict(
        zip(zip(everything.first.tolist(), everything.second.tolist(), strict=True), everything.cosine, strict=True)
    )
    for count in (290, 271):
        for block in (13, 4096):
            fewer = exact_pairs(rows[:count], groups[:count], 0.9, block=block)
            assert len(fewer.first) > 20
            for i, j, cosine in zip(fewer.first.tolist(), fewer.second.tolist(), fewer.cosine, strict=True):
                assert known[i, j] == cosine


def clouds(seed: int, sizes: tuple[int, ...], width: int = 384) -> np.ndarray:
    """float16 [N, width] of length 1: round clouds, each of its own spread; every fifth row a near copy of another."""
    rng = np.random.default_rng(seed)
    rows = np.concatenate(
        [
            rng.normal(size=width) + rng.uniform(0.5, 1.1) * rng.normal(size=(size, width))
            for size in sizes
        ]
    )  # fmt: skip
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    copies, source = np.arange(0, len(rows), 5), rng.integers(0, len(rows), -(-len(rows) // 5))
    cosine = rng.normal(0.95, 0.003, (len(copies), 1)).clip(0, 1)  # crowded at the threshold
    other = rng.normal(size=(len(copies), width))
    other -= (other * rows[source]).sum(axis=1, keepdims=True) * rows[source]
    rows[copies] = cosine * rows[source] + np.sqrt(1 - cosine**2) * other / np.linalg.norm(other, axis=1, keepdims=True)
    return rows.astype(np.float16)


@pytest.mark.parametrize("coarse_from", [10**9, 400])
def test_wide_vectors_lose_no_pair_in_cells_of_either_kind(monkeypatch: pytest.MonkeyPatch, coarse_from: int) -> None:
    """Projected, split finely, or coarsely and then finely: the pairs that everything with everything gives."""
    monkeypatch.setattr(cells, "MANY", coarse_from)
    monkeypatch.setattr(cells, "COARSE", 12)
    rows = clouds(0, (1500, 600, 300, *[20] * 30))
    groups = np.random.default_rng(0).integers(0, 1500, len(rows))
    exact = exact_pairs(rows, groups, 0.95)
    found = clustered_pairs(rows, groups, 0.95, leaf=8)
    assert as_set(found) == as_set(exact)
    assert np.array_equal(found.cosine, exact.cosine)
    assert 200 < len(exact.first) < 400
    assert len(as_set(exact) - as_set(clustered_pairs(rows, groups, 0.95, leaf=8, reach=0.4))) <= 1, "the default reach"

    fresh = np.zeros(len(rows), bool)
    fresh[::7] = True
    of_new = {(i, j) for i, j in as_set(exact) if fresh[i] or fresh[j]}
    assert as_set(clustered_pairs(rows, groups, 0.95, leaf=8, fresh=fresh)) == of_new


def test_a_split_spares_comparisons_and_leaves_clouds_whole_at_first() -> None:
    """The cells of a corpus hold a small part of all pairs; a coarse split joins again what it cut through."""
    points, share = project(clouds(1, (4000, 1000, *[50] * 40)), 0, 4096)
    radius = float(np.sqrt(share * 0.102))
    work = sum(cell.comparisons(None) for cell in cells.Cells(points, radius, leaf=64, reach=0.4))
    assert work < 0.25 * len(points) ** 2 / 2

    home, visitor = np.repeat([0, 1, 2], 100), np.concatenate([np.arange(60), np.arange(100, 160), [299]])
    visited = np.concatenate([np.ones(60, np.int64), np.zeros(60, np.int64), [0]])
    home, visitor, visited, groups = cells._joined(home, visitor, visited, 3)
    assert groups == 2
    assert home.tolist() == [0] * 200 + [1] * 100
    assert (visitor.tolist(), visited.tolist()) == ([299], [0])


def test_the_share_of_a_distance_that_few_directions_hold() -> None:
    """The bound against the exact distribution, and both against drawn differences."""
    from scipy.stats import beta

    for wide in (192, 256, 384, 768, 1408):
        for missed in (1e-3, 1e-5):
            exact = beta.ppf(1 - missed, 32, (wide - 64) / 2)
            assert exact <= kept_share(wide, 64, missed) <= 1.12 * exact  # 1.10 is the worst of these
    rng = np.random.default_rng(0)
    differences = rng.normal(size=(20_000, 384)).astype(np.float32)
    differences /= np.linalg.norm(differences, axis=1, keepdims=True)
    shares = (project(differences, 0, 4096)[0] ** 2).sum(axis=1)
    assert shares.max() < kept_share(384, 64)
    assert (shares > kept_share(384, 64, 1e-2)).mean() < 1e-2
    assert project(differences[:, :128], 0, 4096)[1] == kept_share(64, 64) == 1.0


@pytest.mark.alone
def test_memory_is_that_of_the_tiles_however_large_a_cell() -> None:
    """One round cloud that is compared whole: no matrix of all with all, and no float copy of its vectors."""
    rows = clouds(2, (4_000,))
    clustered_pairs(rows[:64], np.arange(64), 0.95)  # whatever is imported is imported now
    tracemalloc.start()
    found = clustered_pairs(rows, np.arange(len(rows)), 0.95, leaf=10**9, block=128)
    _, peak = tracemalloc.get_traced_memory()
    points, tiles = len(rows) * (64 + 66) * 4, 2 * 2**20
    assert peak < points + tiles < 0.8 * rows.size * 4
    assert len(found.first) > 250
