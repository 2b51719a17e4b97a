"""Mixture weights: a pure function whose mean over epochs is the weight, and tables that are refused."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wfm.data.mixture import epoch_rows, read_mixture
from wfm.errors import DataError

IDS = [f"{k:04x}" for k in range(40)]


def test_samples_stand_as_often_as_their_weights_say() -> None:
    weights = {name: (0.0, 0.3, 1.0, 2.7)[k % 4] for k, name in enumerate(IDS)}
    counts = np.stack([np.bincount(epoch_rows(IDS, weights, epoch, 5), minlength=40) for epoch in range(400)])
    assert (counts[:, 0::4] == 0).all()
    assert (counts[:, 2::4] == 1).all()
    assert set(np.unique(counts[:, 3::4])) == {2, 3}
    assert counts[:, 1::4].mean() == pytest.approx(0.3, abs=0.04)  # 4,000 draws: 5 standard errors
    assert counts[:, 3::4].mean() == pytest.approx(2.7, abs=0.04)


def test_it_depends_on_the_sample_not_on_its_place() -> None:
    weights = dict.fromkeys(IDS, 0.5)
    there = {IDS[row] for row in epoch_rows(IDS, weights, 3, 1)}
    back = IDS[::-1]
    assert {back[row] for row in epoch_rows(back, weights, 3, 1)} == there
    assert {IDS[row] for row in epoch_rows(IDS, weights, 4, 1)} != there
    assert {IDS[row] for row in epoch_rows(IDS, weights, 3, 2)} != there
    half = {IDS[row] for row in epoch_rows(IDS[:20], weights, 3, 1)}
    assert half == there & set(IDS[:20]), "fewer samples change nothing for those that stay"


def test_windows_of_a_clip_have_its_weight() -> None:
    rows = epoch_rows(["0001:0", "0001:24", "0002:0:mirrored"], {"0001": 1.0, "0002": 2.0}, 0, 0)
    assert rows.tolist() == [0, 1, 2, 2]
    with pytest.raises(DataError, match="0003:0"):
        epoch_rows(["0003:0"], {"0001": 1.0}, 0, 0)
    with pytest.raises(DataError, match="no sample"):
        epoch_rows(["0001"], {"0001": 0.0}, 0, 0)


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
    assert read_mixture(path) == {"a": 0.5, "b": 1.5}
