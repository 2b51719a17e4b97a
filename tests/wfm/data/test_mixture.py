"""Mixture weights: drawn as often as they say, by sample and not by place, the same after a kill; tables that are refused."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wfm.data.mixture import Mixture, read_mixture
from wfm.data.plan import DataPlan, epoch_rows
from wfm.errors import ConfigError, DataError

IDS = [f"{k:04x}" for k in range(40)]


def test_samples_stand_as_often_as_their_weights_say() -> None:
    weights = [(0.0, 0.3, 1.0, 2.7)[k % 4] for k in range(40)]
    counts = np.stack([np.bincount(epoch_rows(IDS, weights, epoch, 5), minlength=40) for epoch in range(400)])
    assert (counts[:, 0::4] == 0).all()
    assert (counts[:, 2::4] == 1).all()
    assert set(np.unique(counts[:, 3::4])) == {2, 3}
    assert counts[:, 1::4].mean() == pytest.approx(0.3, abs=0.04)  # 4,000 draws: 5 standard errors
    assert counts[:, 3::4].mean() == pytest.approx(2.7, abs=0.04)


def test_it_depends_on_the_sample_not_on_its_place() -> None:
    there = {IDS[row] for row in epoch_rows(IDS, [0.5] * 40, 3, 1)}
    back = IDS[::-1]
    assert {back[row] for row in epoch_rows(back, [0.5] * 40, 3, 1)} == there
    assert {IDS[row] for row in epoch_rows(IDS, [0.5] * 40, 4, 1)} != there
    assert {IDS[row] for row in epoch_rows(IDS, [0.5] * 40, 3, 2)} != there
    half = {IDS[row] for row in epoch_rows(IDS[:20], [0.5] * 20, 3, 1)}
    assert half == there & set(IDS[:20]), "fewer samples change nothing for those that stay"


def drawn(plan: DataPlan, batches: int, state=None):
    state = plan.start() if state is None else state
    found = []
    for _ in range(batches):
        batch, state = plan.next(state)
        found += zip(batch.indices.tolist(), batch.epochs.tolist(), batch.seeds.tolist(), strict=True)
    return found, state


@pytest.mark.parametrize("streams", [1, 2])
def test_batches_are_drawn_in_the_shares_of_the_categories(streams: int) -> None:
    """30 clips of sand, 10 of snow; snow is to be a half."""
    mixture = Mixture(
        {clip: 2.0 if k < 10 else 2 / 3 for k, clip in enumerate(IDS)},
        {clip: "snow" if k < 10 else "sand" for k, clip in enumerate(IDS)},
    )
    windows = [f"{clip}:{start}" for clip in IDS for start in (0, 8)]
    assert mixture.shares(windows) == pytest.approx({"snow": 0.5, "sand": 0.5})
    plan = DataPlan(windows, batch_size=8, seed=1, streams=streams, weights=mixture.of_samples(windows))
    found, _ = drawn(plan, 1000)
    snow = sum(row < 20 for row, _, _ in found) / len(found)
    assert snow == pytest.approx(0.5, abs=0.025)  # 8,000 draws; 0.503 here
    of_each = Counter(row for row, _, _ in found)
    assert all(of_each[row] == pytest.approx(200, rel=0.05) for row in range(20)), "2 an epoch, of 100"
    assert len({seed for _, _, seed in found}) == len(found), "a sample that stands twice has two noises"


def test_a_killed_run_goes_on_with_the_very_next_sample() -> None:
    weights = tuple(float(w) for w in np.random.default_rng(0).gamma(1.0, 1.0, 40))
    plan = DataPlan(IDS, batch_size=6, seed=3, streams=2, weights=weights)
    unbroken, _ = drawn(plan, 60)
    for at in (1, 7, 23):
        _, state = drawn(plan, at)
        saved = json.loads(json.dumps(plan.save(state)))
        again = DataPlan(IDS, batch_size=6, seed=3, streams=2, weights=weights)
        rest, _ = drawn(again, 60 - at, again.restore(saved))
        assert rest == unbroken[6 * at :]
    other = DataPlan(IDS, batch_size=6, seed=3, streams=2, weights=weights[::-1])
    for one, two in ((plan, other), (plan, DataPlan(IDS, 6, 3, 2)), (DataPlan(IDS, 6, 3, 2), plan)):
        with pytest.raises(ConfigError, match="weights"):
            two.restore(one.save(one.start()))


def test_without_weights_the_order_is_what_it_was() -> None:
    found, _ = drawn(DataPlan(IDS, 4, 0), 3)
    assert [row for row, _, _ in found] == [34, 21, 24, 3, 6, 32, 14, 11, 8, 39, 17, 5]


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


def test_a_stream_needs_a_sample_an_epoch() -> None:
    with pytest.raises(ConfigError, match="too little data"):
        DataPlan(["a", "b"], 2, 0, streams=2, weights=(1.9, 0.1))
    with pytest.raises(ConfigError, match="3 weights for 2"):
        DataPlan(["a", "b"], 2, 0, weights=(1.0, 1.0, 1.0))


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
