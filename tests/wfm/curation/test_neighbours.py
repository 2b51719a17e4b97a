"""Pairs: block by block against the plain definition, and the clustered search against the exact one."""

import numpy as np
import pytest

from wfm.curation.neighbours import Pairs, clustered_pairs, exact_pairs


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
