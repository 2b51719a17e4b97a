"""Mixture weights: drawn as often as they say, by sample and not by place, the same after a kill; tables that are refused."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wfm.data.mixture import Mixture, read_mixture
from wfm.data.order import BatchOrder, one_shape
from wfm.errors import ConfigError, DataError

IDS = [f"{k:04x}" for k in range(40)]


def drawn(order: BatchOrder, batches: int, state=None):
    state = order.start() if state is None else state
    found = []
    for _ in range(batches):
        step, state = order.next(state)
        found += zip(step.batch.rows.tolist(), step.batch.epochs.tolist(), step.batch.seeds.tolist(), strict=True)
    return found, state


def test_batches_are_drawn_in_the_shares_of_the_categories() -> None:
    """30 clips of sand, 10 of snow; snow is to be a half."""
    mixture = Mixture(
        {clip: 2.0 if k < 10 else 2 / 3 for k, clip in enumerate(IDS)},
        {clip: "snow" if k < 10 else "sand" for k, clip in enumerate(IDS)},
    )
    windows = [f"{clip}:{start}" for clip in IDS for start in (0, 8)]
    assert mixture.shares(windows) == pytest.approx({"snow": 0.5, "sand": 0.5})
    found, _ = drawn(one_shape(windows, 8, 1, mixture.of_samples(windows)), 1000)
    snow = sum(row < 20 for row, _, _ in found) / len(found)
    assert snow == pytest.approx(0.5, abs=0.005)  # 8,000 draws: within one of each sample's weight
    of_each = Counter(row for row, _, _ in found)
    assert all(of_each[row] == pytest.approx(200, abs=2) for row in range(20)), "2 an epoch, of 100"
    assert len({seed for _, _, seed in found}) == len(found), "a sample that stands twice has two noises"


def test_a_killed_run_goes_on_with_the_very_next_sample() -> None:
    weights = tuple(float(w) for w in np.random.default_rng(0).gamma(1.0, 1.0, 40))
    order = one_shape(IDS, 6, 3, weights)
    unbroken, _ = drawn(order, 60)
    for at in (1, 7, 23):
        _, state = drawn(order, at)
        saved = json.loads(json.dumps(order.save(state)))
        again = one_shape(IDS, 6, 3, weights)
        rest, _ = drawn(again, 60 - at, again.restore(saved))
        assert rest == unbroken[6 * at :]
    other = one_shape(IDS, 6, 3, weights[::-1])
    for one, two in ((order, other), (order, one_shape(IDS, 6, 3)), (one_shape(IDS, 6, 3), order)):
        with pytest.raises(ConfigError, match="weights"):
            two.restore(one.save(one.start()))


def test_windows_of_a_clip_have_its_weight() -> None:
    mixture = Mixture({"0001": 1.0, "0002": 2.0, "0003": 1.0}, dict.fromkeys(["0001", "0002", "0003"], "x"))
    assert mixture.of_samples(["0001:0", "0001:24", "0002:0:mirrored"]) == (0.75, 0.75, 1.5)
    with pytest.raises(DataError, match="0004:0"):
        mixture.of_samples(["0004:0"])
    with pytest.raises(DataError, match="all 1 samples are 0"):
        Mixture({"0001": 0.0}, {"0001": "x"}).of_samples(["0001"])


def test_a_category_without_a_sample_is_an_error_unless_nobody_wants_it() -> None:
    weights, categories = {"a": 1.0, "b": 1.0, "c": 0.0}, {"a": "sand", "b": "snow", "c": "ice"}
    with pytest.raises(DataError, match=r"nothing to train on of 'snow' \(1 clips\)"):
        Mixture(weights, categories).of_samples(["a:0"])
    assert Mixture({**weights, "b": 0.0}, categories).of_samples(["a:0"]) == (1.0,)


def test_tables_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "mixture.parquet"
    for ids, weights, words in (
        (["a", "a"], [1.0, 1.0], "two weights"),
        (["a", "b"], [1.0, -0.5], "'b'"),
        (["a", "b"], [1.0, float("nan")], "'b'"),
        (["a", "b"], [1.0, None], "'b'"),
    ):
        pq.write_table(pa.table({"clip_id": ids, "weight": weights}), path)
        with pytest.raises(DataError, match=words):
            read_mixture(path)
    pq.write_table(pa.table({"clip_id": ["a"]}), path)
    with pytest.raises(DataError, match="weight"):
        read_mixture(path)
    path.write_bytes(b"no table")
    with pytest.raises(DataError, match="not a table"):
        read_mixture(path)
    pq.write_table(pa.table({"clip_id": ["a", "b"], "weight": [0.5, 1.5], "category": ["x", "y"]}), path)
    found = read_mixture(path)
    assert (found.weights, found.categories) == ({"a": 0.5, "b": 1.5}, {"a": "x", "b": "y"})
    first = found.sha256
    pq.write_table(pa.table({"weight": [1.5, 0.5], "clip_id": ["b", "a"], "category": ["y", "x"]}), path)
    assert read_mixture(path).sha256 == first
