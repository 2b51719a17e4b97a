"""Samples: members in order, facts as JSON, the clip's own bytes; and the card adds up."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wfm.curation.clip_table import Known, clip_row
from wfm.curation.dataset import describe, sample_members
from wfm.curation.rows import Score, Selection
from wfm.errors import DataError
from wfm.records import Caption, Clip

Row = Callable[..., Clip]
VIDEO = b"not decoded here"


def known(make_row: Row, make_score: Callable[..., Score], name: str = "a", reason: str = "", **facts: Any) -> Known:
    clip = make_row(name, clip_sha256=hashlib.sha256(VIDEO).hexdigest(), **facts)
    selection = Selection(
        clip_id=name,
        kept=not reason,
        reason=reason,
        duplicate_of="",
        duplicate_tier="",
        duplicate_cosine=0.0,
        split="" if reason else "train",
        group=clip.session_id,
    )
    text = Caption(clip_id=name, clip_sha256=clip.clip_sha256, caption="Ein Würfel.", caption_source="measured")
    return Known(clip, selection, make_score(clip), text)


@pytest.fixture
def fetch(tmp_path: Path) -> Callable[[str], Path]:
    def get(path: str) -> Path:
        target = tmp_path / path.replace("/", "-")
        target.write_bytes(VIDEO if path.endswith(".mp4") else b"PAR1 actions")
        return target

    return get


def test_members_of_a_sample(make_row: Row, make_score: Callable[..., Score], fetch: Callable[[str], Path]) -> None:
    members = sample_members(known(make_row, make_score, action_path="actions/a.parquet"), fetch)
    assert list(members) == ["mp4", "json", "txt", "actions.parquet"]
    assert members["mp4"] == VIDEO
    assert members["txt"].decode() == "Ein Würfel."
    facts = json.loads(members["json"])
    assert facts["split"] == "train"
    assert facts["scores"]["motion"] == 0.2
    assert {"fps", "session_id", "video_id", "source", "start_seconds", "caption", "schema_version"} <= set(facts)


def test_a_clip_without_actions_has_no_such_member(
    make_row: Row, make_score: Callable[..., Score], fetch: Callable[[str], Path]
) -> None:
    assert list(sample_members(known(make_row, make_score), fetch)) == ["mp4", "json", "txt"]


def test_other_bytes_than_the_row_says_are_refused(
    make_row: Row, make_score: Callable[..., Score], tmp_path: Path
) -> None:
    (tmp_path / "x").write_bytes(b"another clip")
    with pytest.raises(DataError, match="sha256 differs"):
        sample_members(known(make_row, make_score), lambda _: tmp_path / "x")


def test_the_card_adds_up(make_row: Row, make_score: Callable[..., Score]) -> None:
    items = [known(make_row, make_score, name, reason) for name, reason in [("a", ""), ("b", "static"), ("c", "")]]
    rows = [clip_row(item, "").__dict__ for item in items]
    card = describe(rows, Counter({"ok": 2, "truncated": 1}), {"train": [1024], "val": [], "test": []})
    assert card["videos"] == {"total": 3, "ok": 2}
    assert card["videos_not_used"] == {"truncated": 1}
    assert card["clips"]["total"] == 3 == card["clips"]["kept"] + sum(card["clips_refused"].values())
    assert card["splits"]["train"] == {
        "clips": 2,
        "sessions": 2,
        "groups": 2,
        "frames": 96,
        "seconds": 4.0,
        "shards": 1,
        "bytes": 1024,
    }
    assert card["splits"]["val"]["clips"] == 0
    assert card["scores_kept"]["sharpness"]["p50"] == 50.0
    assert json.loads(json.dumps(card, allow_nan=False)) == card
