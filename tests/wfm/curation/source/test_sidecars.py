"""Actions and attributes are checked when they come in and cut by time."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wfm.actions import ActionSpec
from wfm.curation.source.sidecars import (
    action_spec,
    check_actions,
    check_attributes,
    cut_actions,
    overlapping_shot,
    read_actions,
    read_attributes,
)
from wfm.errors import DataError

SPEC = ActionSpec(names=("turn", "push"), units=("deg/s", "m/s"), mean=(0.0, 0.0), scale=(1.0, 1.0))


def actions_table(times: np.ndarray, spec: ActionSpec = SPEC, **header: Any) -> pa.Table:
    rows = np.stack([times, -times], axis=1).astype(np.float32)
    known = {"schema_version": 1, "action_spec": spec.resolved(), "session_id": "s", "view": 0, **header}
    return pa.table(
        {"pts_seconds": pa.array(times), "action": pa.array(rows.tolist(), pa.list_(pa.float32())), "extra": times * 2},
    ).replace_schema_metadata({b"wfm": json.dumps(known).encode()})


def save(table: pa.Table, path: Path) -> Path:
    pq.write_table(table, path)
    return path


def test_a_whole_table_tells_its_recording(tmp_path: Path) -> None:
    path = save(actions_table(np.arange(48) / 24), tmp_path / "a.parquet")
    assert check_actions(path) == {"session_id": "s", "view": "0"}
    assert action_spec(read_actions(path), "a") == SPEC


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (actions_table(np.array([0.0, 0.2, 0.1])), "finite and rising"),
        (actions_table(np.array([0.0, np.nan])), "finite and rising"),
        (actions_table(np.array([])), "no rows"),
        (actions_table(np.arange(3) / 24, ActionSpec()), "2\\] wide, the action spec has 0 names"),
        (actions_table(np.arange(3) / 24, schema_version=9), "schema version 9 is newer"),
        (actions_table(np.arange(3) / 24, action_spec={"nmaes": []}), "action_spec is missing or wrong"),
        (actions_table(np.arange(3) / 24).replace_schema_metadata({}), "schema metadata 'wfm'"),
        (actions_table(np.arange(3) / 24).drop_columns(["action"]), "lacks the columns action"),
        (actions_table(np.array([0.0, 1e39])), "not finite"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path: Path, table: pa.Table, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_actions(save(table, tmp_path / "a.parquet"))


@pytest.mark.parametrize(
    ("times", "actions"),
    [
        (["0", "1"], [[1.0], [2.0]]),
        ([0, 1], [[1.0], [2.0]]),
        ([[0.0], [1.0]], [[1.0], [2.0]]),
        ([0.0, 1.0], [1.0, 2.0]),
        ([0.0, 1.0], ["a", "b"]),
        ([0.0, 1.0], [["a"], ["b"]]),
        ([0.0, 1.0], [[[1.0]], [[2.0]]]),
        ([0.0, 1.0], [[1.0], None]),
        ([0.0, None], [[1.0], [2.0]]),
    ],
)
def test_columns_of_another_type_are_refused(tmp_path: Path, times: list[object], actions: list[object]) -> None:
    metadata = actions_table(np.arange(2) / 24).schema.metadata
    table = pa.table({"pts_seconds": times, "action": actions}).replace_schema_metadata(metadata)
    with pytest.raises(DataError, match=r"actions 'a\.parquet'"):
        check_actions(save(table, tmp_path / "a.parquet"))


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"text")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        check_actions(tmp_path / "a.parquet")


def test_actions_are_cut_to_the_frames_of_the_span() -> None:
    times = np.arange(100) / 24
    clip = cut_actions(actions_table(times), 30 / 24, 70 / 24, 1 / 24)
    assert clip is not None
    np.testing.assert_allclose(clip["pts_seconds"].to_numpy(), np.arange(40) / 24, atol=1e-12)
    np.testing.assert_allclose([row[0] for row in clip["action"].to_pylist()], times[30:70], rtol=1e-6)
    np.testing.assert_allclose(clip["extra"].to_numpy(), times[30:70] * 2)
    assert action_spec(clip, "clip") == SPEC


def test_rounded_times_still_find_their_frames() -> None:
    clip = cut_actions(actions_table(np.round(np.arange(100) / 24, 3)), 30 / 24, 70 / 24, 1 / 24)
    assert clip is not None
    assert clip.num_rows == 40
    assert clip["pts_seconds"][0].as_py() >= 0.0


@pytest.mark.parametrize(("first", "last"), [(0, 20), (0, 60), (40, 100), (200, 300)])
def test_actions_that_do_not_cover_the_span_are_told(first: int, last: int) -> None:
    assert cut_actions(actions_table(np.arange(first, last) / 24), 30 / 24, 70 / 24, 1 / 24) is None


def test_attributes_of_the_shot_that_is_shown_most(tmp_path: Path) -> None:
    shots = [
        {"start_seconds": 0.0, "end_seconds": 3.0, "camera": "still"},
        {"start_seconds": 3.0, "end_seconds": 6.0, "camera": "turns"},
    ]
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"schema_version": 1, "session_id": "s", "view": "left", "shots": shots}))
    assert check_attributes(path) == {"session_id": "s", "view": "left"}
    attributes = read_attributes(path)
    shown = json.loads(overlapping_shot(attributes, 2.0, 6.0))
    assert (shown["camera"], shown["overlap_fraction"]) == ("turns", 0.75)
    assert json.loads(overlapping_shot(attributes, 0.0, 3.0))["overlap_fraction"] == 1.0
    assert overlapping_shot(attributes, 7.0, 8.0) == ""


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"shots": [{"start_seconds": 2, "end_seconds": 1}]}', '{"shots": [{}]}', '{"schema_version": 2}',
     "[" * 100_000, '{"shots": [], "light": NaN}', '{"session_id": "\\ud800"}', '{"view": "' + 1001 * "x" + '"}'],
)  # fmt: skip
def test_wrong_attributes_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=r"attributes 'a\.json'"):
        check_attributes(tmp_path / "a.json")
