"""The public table: whole, typed, and never a caption beside the wrong clip."""

import dataclasses
from collections.abc import Callable

import pytest

from wfm.curation.dataset.clip_table import MORE, MORE_COLUMNS, SCORES, ClipRow, clip_row, join
from wfm.curation.rows import AestheticRow, CategoryRow, Score, Selection
from wfm.errors import DataError
from wfm.records import Caption, Clip

Row = Callable[..., Clip]
PUBLIC = {
    *("clip_id", "clip_sha256", "video_id", "source", "start_seconds", "end_seconds", "kept", "reason", "duplicate_of"),
    *("caption", "caption_source", "shard"),
}


def chosen(clip: Clip, reason: str = "") -> Selection:
    return Selection(
        clip_id=clip.clip_id,
        kept=not reason,
        reason=reason,
        duplicate_of="",
        duplicate_tier="",
        duplicate_cosine=0.0,
        split="" if reason else "train",
        group=clip.clip_id,
    )


def caption(clip: Clip) -> Caption:
    return Caption(clip_id=clip.clip_id, clip_sha256=clip.clip_sha256, caption="A box.", caption_source="measured")


def test_the_promised_columns_are_there() -> None:
    columns = {field.name: field.type for field in dataclasses.fields(ClipRow)}
    assert set(columns) >= PUBLIC | set(SCORES)
    for table, record in MORE.items():
        for field in dataclasses.fields(record):
            if field.name in MORE_COLUMNS[table]:
                plain = str(getattr(field.type, "__name__", field.type)).removesuffix(" | None")
                assert str(columns.get(field.name)) == f"{plain} | None", f"{table}.{field.name}"


def test_tables_that_need_not_be_there(make_row: Row) -> None:
    clip, older = make_row("a"), make_row("b")
    judged = AestheticRow(clip_id="a", clip_sha256=clip.clip_sha256, aesthetic=5.5)
    kind = CategoryRow(clip_id="a", category="snow", category_cosine=0.4, category_margin=0.1)
    rows = [
        clip_row(known, "")
        for known in join(
            [clip, older], [chosen(clip), chosen(older)], [], [], more={"aesthetic": [judged], "categories": [kind]}
        )
    ]
    assert (rows[0].aesthetic, rows[0].category, rows[0].cluster, rows[0].flow) == (5.5, "snow", None, None)
    assert (rows[1].aesthetic, rows[1].category) == (None, None)
    assert ClipRow.from_table(ClipRow.to_table(rows)) == rows
    wrong = dataclasses.replace(judged, clip_sha256="older")
    with pytest.raises(DataError, match="aesthetic score of clip 'a' was made from other bytes: rerun embed_clips"):
        join([clip], [chosen(clip)], [], [], more={"aesthetic": [wrong]})


def test_rows_carry_everything_that_is_known(make_row: Row, make_score: Callable[..., Score]) -> None:
    clip = make_row("a", action_path="actions/a.parquet")
    (known,) = join([clip], [chosen(clip)], [make_score(clip, motion=0.25)], [caption(clip)])
    row = clip_row(known, "shards/train/ab-00000.tar")
    assert (row.clip_id, row.kept, row.split, row.caption, row.motion) == ("a", True, "train", "A box.", 0.25)
    assert row.has_actions
    assert ClipRow.from_table(ClipRow.to_table([row])) == [row]


def test_an_unscored_clip_has_null_scores_in_the_table(make_row: Row) -> None:
    clip = make_row("a")
    (known,) = join([clip], [chosen(clip, "unscored")], [], [])
    table = ClipRow.to_table([clip_row(known, "")])
    assert table.column("motion").null_count == 1
    assert table.column("caption").to_pylist() == [""]
    assert ClipRow.from_table(table)[0].sharpness is None


def test_rows_come_in_order_of_clip_id(make_row: Row) -> None:
    clips = [make_row(name) for name in "cab"]
    assert [known.clip.clip_id for known in join(clips, map(chosen, clips), [], [])] == ["a", "b", "c"]


def test_a_caption_or_score_of_other_bytes_is_refused(make_row: Row, make_score: Callable[..., Score]) -> None:
    clip, older = make_row("a"), make_row("a", clip_sha256="older")
    with pytest.raises(DataError, match="caption of clip 'a' was made from other bytes: rerun caption_clips"):
        join([clip], [chosen(clip)], [], [caption(older)])
    with pytest.raises(DataError, match="score"):
        join([clip], [chosen(clip)], [make_score(older)], [])
    with pytest.raises(DataError, match="no row in the selection"):
        join([clip], [], [], [])
