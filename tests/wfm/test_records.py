"""Records: there and back, and refusal of what is not theirs."""

import pytest

from wfm.errors import DataError
from wfm.records import Caption, Clip, Video, clip_id_of

CLIP = Clip(
    clip_id="c", clip_sha256="s", video_id="v", source="/a b.mp4", session_id="x", start_seconds=0.0, end_seconds=1.5,
    start_pts=0, end_pts=18432, time_base="1/12288", num_frames=36, fps=24.0, width=128, height=96,
    path="clips/c.mp4", transcode="copy",
)  # fmt: skip


def test_there_and_back() -> None:
    rows = [CLIP, CLIP]
    assert Clip.from_table(Clip.to_table(rows)) == rows
    assert Video.from_table(Video.to_table([])) == []


def test_another_record_is_refused() -> None:
    with pytest.raises(DataError, match="expected a table of Caption, got one of Clip"):
        Caption.from_table(Clip.to_table([CLIP]))


def test_newer_schema_is_refused_with_advice() -> None:
    table = Clip.to_table([CLIP])
    newer = table.replace_schema_metadata({b"wfm": b"Clip/99"})
    with pytest.raises(DataError, match=r"version 99.*upgrade wfm"):
        Clip.from_table(newer)


def test_missing_column_is_named() -> None:
    with pytest.raises(DataError, match="lacks the columns source"):
        Clip.from_table(Clip.to_table([CLIP]).drop_columns(["source"]))


def test_clip_id_depends_on_each_part() -> None:
    ids = {clip_id_of("v", 0, 1), clip_id_of("w", 0, 1), clip_id_of("v", 1, 1), clip_id_of("v", 0, 2)}
    assert len(ids) == 4


def test_a_column_that_came_later_has_its_default_in_older_tables() -> None:
    table = Clip.to_table([CLIP]).drop_columns(["view"])  # refused before: no data set outlived a new column
    (row,) = Clip.from_table(table)
    assert row.view == ""
