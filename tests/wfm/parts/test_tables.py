"""Global steps write one file a part, so that a part whose rows did not change keeps its bytes."""

import hashlib
from pathlib import Path

import pyarrow.parquet as pq

from wfm.curation.rows import DuplicatePair
from wfm.parts.tables import parts_of, write_parts


def pair(name: str) -> DuplicatePair:
    return DuplicatePair(clip_id=name, other_id="z", cosine=1.0)


def digests(out: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (out / "pairs.parquet").iterdir()}


def test_rows_go_to_their_parts_and_empty_parts_have_a_table(tmp_path: Path) -> None:
    rows = [pair("a1"), pair("b1"), pair("a2")]
    write_parts(rows, lambda row: row.clip_id[0], DuplicatePair, tmp_path, "pairs", "abc")
    found = {
        path.stem: pq.read_table(path).column("clip_id").to_pylist() for path in (tmp_path / "pairs.parquet").iterdir()
    }
    assert found == {"a": ["a1", "a2"], "b": ["b1"], "c": []}
    assert DuplicatePair.from_table(pq.read_table(tmp_path / "pairs.parquet")) == [rows[0], rows[2], rows[1]]


def test_a_row_elsewhere_leaves_a_parts_bytes_alone(tmp_path: Path) -> None:
    for name, rows in {"before": ["a1", "b1"], "after": ["a1", "b1", "b2"]}.items():
        write_parts(map(pair, rows), lambda row: row.clip_id[0], DuplicatePair, tmp_path / name, "pairs", "ab")
    before, after = digests(tmp_path / "before"), digests(tmp_path / "after")
    assert before["a.parquet"] == after["a.parquet"]
    assert before["b.parquet"] != after["b.parquet"]


def test_parts_of_turns_the_table_round() -> None:
    assert parts_of({"a": [pair("1"), pair("2")], "b": [pair("3")]}, lambda row: row.clip_id) == {
        "1": "a",
        "2": "a",
        "3": "b",
    }
