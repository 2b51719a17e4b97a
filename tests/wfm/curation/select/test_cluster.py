"""Clusters come out as they were planted, under names that their captions have and others have not."""

import numpy as np
import pytest

from wfm.curation.select.cluster import (
    UNNAMED,
    ClusterConfig,
    assign,
    cluster_rows,
    find_clusters,
    name_clusters,
    words_of,
)
from wfm.curation.select.kept_clips import KeptClips
from wfm.errors import ConfigError, DataError

KINDS = ("a dog runs in the snow", "a red car turns", "waves on a beach", "hands that knead dough")


def planted(spread: float = 0.25) -> tuple[np.ndarray, list[str], np.ndarray]:
    """400 vectors in 4 groups of 160, 120, 80 and 40, their captions, their group; mixed."""
    rng = np.random.default_rng(1)
    truth = rng.permutation(np.repeat(np.arange(4), (160, 120, 80, 40)))
    centres = rng.standard_normal((4, 32))
    x = (
        centres[truth] / np.linalg.norm(centres[truth], axis=1, keepdims=True)
        + spread * rng.standard_normal((400, 32)) / 6
    )
    return x.astype(np.float32), [f"{KINDS[group]} at {row} o'clock" for row, group in enumerate(truth)], truth


def test_planted_groups_are_found_and_named() -> None:
    x, captions, truth = planted()
    found = find_clusters(x, captions, ClusterConfig(clusters=4))
    assert (found.labels == truth).all(), "largest first, so the numbers are the planted ones"
    for name, kind in zip(found.names, KINDS, strict=True):
        assert set(name.split(", ")) <= set(words_of(kind))
        assert name != UNNAMED
    ids = [f"c{row}" for row in range(401)]
    kept = KeptClips(ids, ["", *captions], ["train"] * 401, np.concatenate([np.zeros((1, 32), np.float32), x]))
    again, rows = cluster_rows(kept, ClusterConfig(clusters=4))
    assert (again.labels == found.labels).all()
    assert [row.clip_id for row in rows] == ids[1:], "what cannot be compared has no row"
    assert rows[7].cluster == truth[7]
    labels, cosines = assign(x, found.centres)
    assert (labels == found.labels).all()
    np.testing.assert_allclose(cosines, found.cosines, atol=1e-6)


def test_the_same_seed_gives_the_same() -> None:
    x, captions, _ = planted(2.0)
    first, second = (find_clusters(x, captions, ClusterConfig(clusters=9, seed=3)) for _ in range(2))
    assert (first.labels == second.labels).all()
    assert first.names == second.names
    assert len(set(first.names)) == len(first.names)


def test_a_rare_word_names_nothing() -> None:
    labels = np.repeat([0, 1], 500)
    captions = ["a lake"] * 499 + ["a lake zebra"] + ["a road"] * 500
    names = name_clusters(labels, captions, ClusterConfig())
    assert names == ("lake", "road")
    assert name_clusters(labels, ["same words"] * 1000, ClusterConfig()) == (f"{UNNAMED} 0", f"{UNNAMED} 1")


def test_copies_and_more_clusters_than_kinds() -> None:
    x = np.repeat(np.eye(3, dtype=np.float32), 10, axis=0)
    found = find_clusters(x, ["x"] * 30, ClusterConfig(clusters=7))
    assert len(found.names) == 3, "clusters that nobody is in are none"
    assert sorted(np.bincount(found.labels)) == [10, 10, 10]
    assert len(find_clusters(x[:1], ["x"], ClusterConfig()).names) == 1


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ConfigError, match="clusters = 31"):
        find_clusters(np.ones((30, 4)), ["x"] * 30, ClusterConfig(clusters=31))
    with pytest.raises(DataError, match="2 captions for 3"):
        find_clusters(np.ones((3, 4)), ["x"] * 2, ClusterConfig())
    with pytest.raises(DataError, match="nothing to cluster"):
        find_clusters(np.ones((0, 4)), [], ClusterConfig())
