"""Numbers and texts of metas from outside become values that tables hold, or an error of ours, in no time."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from wfm.curation.exchange.cosmos_metas import from_meta
from wfm.curation.source.sidecars import check_actions, read_attributes
from wfm.curation.source.untrusted_rows import rate_of
from wfm.errors import DataError

FOREIGN: dict[str, Any] = {
    "span_uuid": "6a5f6c9e-0d4b-4f43-9a55-0d4e2f9b3c11", "source_video": "s3://b/a.mp4", "duration_span": [0.0, 2.0],
    "num_frames": 48,"framerate": "24000/1001", "width": 64, "height": 48, "width_source": 64, "height_source": 48,
    "framerate_source": 24, "windows": [{"start_frame": 0, "end_frame": 47, "qwen_caption": "A street."}],
}  # fmt: skip
OURS: dict[str, Any] = {
    "clip_id": "a" * 64, "clip_sha256": "b" * 64, "video_id": "c" * 64, "session_id": "s", "start_seconds": 0.0,
    "end_seconds": 2.0, "kept": True, "split": "train", "source": "a.mp4", "num_frames": 48, "fps": 24.0,
    "width": 64, "height": 48,
}  # fmt: skip


def written(path: Path, meta: Any) -> Path:
    path.write_text(json.dumps(meta))
    return path


def test_rates() -> None:
    for text, rate in (
        ("24000/1001", 24000 / 1001),
        ("29.97", 29.97),
        (25, 25.0),
        (23.976, 23.976),
        ("1e2", 100.0),
        ("30/1", 30.0),
    ):
        assert rate_of(text) == rate
    started = time.monotonic()
    wrong = (
        *("1e30000000", "1e-30000000", "1/0", "0", "-5", "nan", "inf", "9" * 10**6),
        *("1e99", "24000/1e30000000", None, True, [25], ""),
    )
    for value in (*wrong, float("inf"), float("nan"), 10**400):
        with pytest.raises(ValueError):
            rate_of(value)
    assert time.monotonic() - started < 1  # the old code had not read 1e30000000 after a minute


WRONG: list[dict[str, Any]] = [
    *({"framerate": value} for value in ("1e30000000", float("inf"), 10**300, None, {})),
    *({"num_frames": value} for value in (float("inf"), float("nan"), 10**400, -1, "48", 2**40, 4.5)),
    *({"width": value} for value in (1e308, -1, [64])),
    *(
        {"duration_span": value}
        for value in ([0, 1e308], [0, float("inf")], [1, 0], [0], 3, ["0", "1e30000000"], [0, 10**400])
    ),
    *({"windows": value} for value in ([3], "x", [{"start_frame": 0, "end_frame": 10**400}], [{"start_frame": "0"}])),
    *({"source_video": value} for value in ("x" * 10**6, "\ud800", 5)),
    {"span_uuid": "x"},
    {"framerate_source": "1e30000000"},
]
WRONG_OURS: list[dict[str, Any]] = [
    *({"session_id": value} for value in ("x" * 10**6, 5, "\ud800", None, {})),
    *({"clip_id": value} for value in ("../../x", "a" * 63, 5, "A" * 64)),
    *({"video_id": value} for value in ("..", "")),
    *({"fps": value} for value in (float("nan"), float("inf"), "24", 10**400, [])),
    *({"num_frames": value} for value in (10**30, 4.5, True, "4")),
    *({"rights": value} for value in ({"licence": 5}, {"lisense": "x"}, [], {"source": "x" * 10**6})),
    *({"windows": value} for value in ([{"start_frame": 10**30}], [{"colour": 1}], [3], [{"caption": None}])),
]


@pytest.mark.parametrize("changed", WRONG, ids=lambda changed: repr(changed)[:50])
def test_metas_of_theirs(tmp_path: Path, changed: dict[str, Any]) -> None:
    assert from_meta(written(tmp_path / "good.json", FOREIGN)).row.fps == 24000 / 1001
    with pytest.raises(DataError, match="no clip as cosmos-curate writes it") as raised:
        from_meta(written(tmp_path / "a.json", {**FOREIGN, **changed}))
    assert len(str(raised.value)) < 1000 + len(str(tmp_path))


@pytest.mark.parametrize("changed", WRONG_OURS, ids=lambda changed: repr(changed)[:50])
def test_metas_of_ours(tmp_path: Path, changed: dict[str, Any]) -> None:
    assert from_meta(written(tmp_path / "good.json", {"wfm": OURS})).row.session_id == "s"
    with pytest.raises(DataError, match="no clip as cosmos-curate writes it"):
        from_meta(written(tmp_path / "a.json", {"wfm": {**OURS, **changed}}))


@pytest.mark.parametrize("text", ["[" * 10**5, "[]", "", "1" * 5000, '{"wfm": {"clip_id": NaN}}', " " * (2**24 + 1)])
def test_what_is_no_meta(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError):
        from_meta(tmp_path / "a.json")


@pytest.mark.parametrize(
    "shot",
    [
        {"start_seconds": 0, "end_seconds": 10**400},  # the old code: OverflowError
        {"start_seconds": 0, "end_seconds": 1, "caption": "x" * 10**6},  # of the old code every clip held it
        {"start_seconds": "nan", "end_seconds": 1},
        {"start_seconds": [0], "end_seconds": 1},
        [],
        3,
    ],
    ids=lambda shot: repr(shot)[:50],
)
def test_shots_that_no_table_holds(tmp_path: Path, shot: Any) -> None:
    with pytest.raises(DataError):
        read_attributes(written(tmp_path / "a.json", {"shots": [shot]}))
    (tmp_path / "b.json").write_bytes(b'{"shots": [' + b"[]," * 6_000_000 + b"[]]}")
    with pytest.raises(DataError, match="larger than"):
        read_attributes(tmp_path / "b.json")


def test_actions_that_unpack_to_gigabytes(tmp_path: Path) -> None:
    """278 KiB of Parquet that unpack to 100 GB: the old code held 2,936 MiB and asked for 4 GB more where a limit of 6 GiB
    ended it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = 100_000
    times = pa.array([float(number) for number in range(rows)])
    note = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * 10**6]))
    table = {"pts_seconds": times, "action": pa.array([[0.0]] * rows, pa.list_(pa.float32()))}
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({**table, "note": note}), path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 2**20
    with pytest.raises(DataError, match=r"the texts of 'note' unpack to 100,000,000,000 bytes"):
        check_actions(path)
    constant = pa.array([0.0] * 11_000_000)
    pq.write_table(pa.table({"pts_seconds": constant, "action": constant}), path, compression="zstd")
    with pytest.raises(DataError, match=r"claims 11,000,000 rows|unpacks to"):
        check_actions(path)
