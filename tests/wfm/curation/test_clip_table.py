"""The public table: whole, typed, and never a caption beside the wrong clip."""

import dataclasses
from collections.abc import Callable

import pytest

from wfm.curation.clip_table import SCORES, ClipRow, clip_row, join
from wfm.curation.rows import Score, Selection
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
    columns = {field.name for field in dataclasses.fields(ClipRow)}
    assert columns >= PUBLIC | set(SCORES)


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
