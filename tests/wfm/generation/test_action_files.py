import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wfm.actions import ActionSpec
from wfm.errors import DataError, InputError
from wfm.generation.action_files import read_actions

SPEC = ActionSpec(
    names=("orbit", "lift"), units=("deg/s", "m/s"), frame="camera", rate_hz=24.0, mean=(0, 0), scale=(30, 1)
)
WANTED = np.array([[1, 10], [2, 20], [3, 30]], dtype=np.float32)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_csv_in_any_column_order_with_units(tmp_path) -> None:
    path = write(tmp_path / "a.csv", "lift [m/s],orbit [deg/s],frame\n10,1,0\n20,2,1\n30,3,2\n")
    assert np.array_equal(read_actions(path, SPEC), WANTED)
    assert read_actions(path, SPEC).dtype == np.float32


def test_json_as_rows_and_as_columns(tmp_path) -> None:
    rows = [{"orbit": float(a), "lift": float(b)} for a, b in WANTED]
    columns = {"orbit": [1, 2, 3], "lift": [10, 20, 30], "units": {"orbit": "deg/s"}, "rate_hz": 24}
    for name, content in (("r.json", rows), ("c.json", columns)):
        assert np.array_equal(read_actions(write(tmp_path / name, json.dumps(content)), SPEC), WANTED)


def test_parquet_by_column_and_as_sidecar(tmp_path) -> None:
    pq.write_table(pa.table({"orbit": [1.0, 2, 3], "lift": [10.0, 20, 30]}), tmp_path / "a.parquet")
    assert np.array_equal(read_actions(tmp_path / "a.parquet", SPEC), WANTED)
    note = {b"wfm": json.dumps({"schema_version": 1, "action_spec": SPEC.resolved()}).encode()}
    table = pa.table({"pts_seconds": np.arange(3) / 24, "action": [row.tolist() for row in WANTED]})
    pq.write_table(table.replace_schema_metadata(note), tmp_path / "s.parquet")
    assert np.array_equal(read_actions(tmp_path / "s.parquet", SPEC), WANTED)
    other = SPEC.model_copy(update={"units": ("rad/s", "m/s")})
    with pytest.raises(InputError, match=r"'units'.*rad/s"):
        read_actions(tmp_path / "s.parquet", other)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("orbit\n1\n", r"lacks lift \[m/s\]"),
        ("orbit,lift,spin\n1,2,3\n", "does not know: spin.*orbit \\[deg/s\\], lift \\[m/s\\]"),
        ("orbit [rad/s],lift\n1,2\n", "'rad/s', the model takes 'deg/s'"),
        ("pts_seconds,orbit,lift\n0,1,2\n0.1,1,2\n0.2,1,2\n", "10 rows/s, the model takes 24"),
    ],
)
def test_what_the_spec_does_not_say_is_refused(tmp_path, text, words) -> None:
    with pytest.raises(InputError, match=words):
        read_actions(write(tmp_path / "a.csv", text), SPEC)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "orbit,lift\n1,x\n", "not a table of numbers"),
        ("a.csv", "orbit,lift\n", "at least one row"),
        ("a.csv", "orbit,lift\n1\n", "line 2 has 1 fields"),
        ("a.csv", "orbit,orbit\n1,2\n", "twice"),
        ("a.csv", "orbit,lift\n1,nan\n", "'lift'.*row 0"),
        ("a.csv", "pts_seconds,orbit,lift\n0,1,2\n0,1,2\n", "does not rise"),
        ("a.json", "[{}, 3]", "one object per row"),
        ("a.json", '[{"orbit": 1}, {"lift": 1}]', "same names"),
        ("a.json", '{"orbit": [1, 2], "lift": [1]}', "one length"),
        ("a.json", "{", "not a table"),
        ("a.parquet", "no parquet", "not a table"),
    ],
)
def test_broken_files_say_what_is_broken(tmp_path, name, text, words) -> None:
    with pytest.raises(DataError, match=words):
        read_actions(write(tmp_path / name, text), SPEC)


def test_missing_and_unknown_files(tmp_path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_actions(tmp_path / "none.csv", SPEC)
    with pytest.raises(InputError, match=r"\.csv, \.json, \.parquet"):
        read_actions(write(tmp_path / "a.txt", "1"), SPEC)


def test_a_model_without_actions_takes_none(tmp_path) -> None:
    with pytest.raises(InputError, match="takes no actions"):
        read_actions(write(tmp_path / "a.csv", "orbit\n1\n"), ActionSpec.null())
