"""Samples: members in order, facts as JSON, the clip's own bytes; and the card adds up."""

import dataclasses
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from wfm.artifacts import Store
from wfm.curation.dataset.clip_table import ClipFacts, clip_row, join
from wfm.curation.dataset.column_words import PUBLIC, columns_of
from wfm.curation.dataset.dataset import _with_windows, sample_members, write_caption_windows
from wfm.curation.dataset.dataset_card import Card, Distinct, Spread
from wfm.curation.dataset.dataset_readme import readme
from wfm.curation.rows import CaptionWindow, Score, Selection
from wfm.curation.source.rights import UNKNOWN, with_rights
from wfm.errors import DataError
from wfm.records import Caption, Clip, Video

Row = Callable[..., Clip]
VIDEO = b"not decoded here"


def known(
    make_row: Row, make_score: Callable[..., Score], name: str = "a", reason: str = "", **facts: Any
) -> ClipFacts:
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
    return ClipFacts(clip, selection, make_score(clip), text)


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


def card_of(items: list[ClipFacts], rights: dict[str, tuple[str, str]] | None = None) -> Card:
    card = Card()
    for status in ("ok", "ok", "truncated"):
        card.add_video(status, {"source": "/in/a.mp4", "view": "", "licence": "CC-BY-4.0", "consent": UNKNOWN})
    card.add_shard("train", 1024)
    card.add_clips([clip_row(item, "shards/train/overflow/x-0.tar").__dict__ for item in items], rights or {})
    return card


def test_the_card_adds_up(make_row: Row, make_score: Callable[..., Score]) -> None:
    items = [known(make_row, make_score, name, reason) for name, reason in [("a", ""), ("b", "static"), ("c", "")]]
    card = card_of(items, {items[0].clip.video_id: ("CC-BY-4.0", UNKNOWN)}).values()
    assert card["videos"] == {"total": 3, "ok": 2, "simulated": 0}
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
    assert card["bins"] == {"overflow": 2}
    assert sum(right["clips"] for right in card["rights"]) == 2
    assert card["scores_kept"]["sharpness"]["p50"] == 50.0
    assert not card["estimated"]
    assert json.loads(json.dumps(card, allow_nan=False)) == card


def test_the_card_does_not_grow_with_the_corpus() -> None:
    """cosmos-curate's summary.json has a key for every video; ours holds at most twice the limit of anything."""
    distinct, spread = Distinct(limit=500), Spread(limit=500)
    rng = np.random.default_rng(0)
    values = rng.normal(size=20_000)
    for number, value in enumerate(values):
        distinct.add(f"session {number % 10_000}")
        spread.add(hashlib.sha256(str(number).encode()).hexdigest(), float(value))
        assert len(distinct._hashes) <= 1000
        assert len(spread._values) <= 1000
    assert distinct.estimated
    assert spread.estimated
    assert abs(distinct.count - 10_000) < 3 * 10_000 / np.sqrt(500)  # three standard errors (13 %); 10 % here
    found = spread.values()
    assert (found["min"], found["max"]) == (round(values.min(), 6), round(values.max(), 6))  # exact however many
    assert abs(found["p50"] - np.median(values)) < 0.15


def test_exact_up_to_the_limit() -> None:
    distinct = Distinct(limit=500)
    for number in range(900):
        distinct.add(str(number % 450))
    assert (distinct.count, distinct.estimated) == (450, False)


def test_the_page_says_what_is_unknown(make_row: Row, make_score: Callable[..., Score]) -> None:
    card = card_of([known(make_row, make_score)]).values()
    page = readme(card, [("a|b.mp4", "ab" * 32, "CC-BY-4.0", UNKNOWN, "A. Uthor", "https://x")])
    assert "For 2 of 2 videos licence or consent is unknown" in page
    assert "| a\\|b.mp4 | abababababababab | CC-BY-4.0 | A. Uthor | https://x |" in page
    assert "The other 1 videos: columns of `videos.parquet`." in page
    assert "| truncated | 1 |" in page
    assert "rights holder" not in readme(card, [("a.mp4", "ab" * 32, *[UNKNOWN] * 4)]), (
        "a table of unknowns says nothing"
    )


def test_the_page_counts_videos_and_spans_that_gave_nothing(make_row: Row, make_score: Callable[..., Score]) -> None:
    """They were in no figure of the page before: a video without a clip counted as used, a span too short was not there."""
    items = [known(make_row, make_score, "a"), known(make_row, make_score, "b", "static")]
    card = card_of(items)
    rows = [clip_row(item, "").__dict__ for item in items]
    short = {"step": "split", "source": "/in/c.mp4", "reason": "below_minimum_length: 0.5 s, at least 2 s are asked"}
    skips = [{**short, "video_id": name, "start_seconds": 0.0, "end_seconds": 0.5} for name in ("c", "c", "other")]
    card.add_outcome([items[0].clip.video_id, items[1].clip.video_id, "c", "d"], rows, skips)
    values = card.values()
    assert values["videos_without_clips"] == {"below_minimum_length": 1, "no_span": 1, "static": 1}
    assert values["spans_not_cut"] == {"below_minimum_length": {"spans": 3, "seconds": 1.5}}
    page = readme(values, [])
    assert (
        "Of 3 files 1 were not used and 3 gave no clip; of 5 spans 3 were not cut and 1 were refused as clips" in page
    )
    assert "| below\\_minimum\\_length | 3 | 0.00 |" in page


def test_the_page_describes_every_column_and_names_the_empty_ones(
    make_row: Row, make_score: Callable[..., Score]
) -> None:
    for table, record in PUBLIC.items():
        words = columns_of(table)
        assert {field.name for field in dataclasses.fields(record)} <= set(words)
        assert [name for name, meaning in words.items() if len(meaning) < 5] == [], table
    page = readme(card_of([known(make_row, make_score)]).values(), [])
    assert "| sharpness | Variance of the Laplacian times 10,000. |" in page
    assert "| nsfw |" not in page
    assert "`nsfw`" in page.split("Empty in this data set:")[1]
    assert "`skips.parquet` is empty." in page


def test_what_was_simulated_is_said_to_be(make_row: Row, make_score: Callable[..., Score], tmp_path: Path) -> None:
    """Licence and consent of rendered worlds were called unknown."""
    videos = [Video(source=f"wfm://{'a' * 64}/videos/x.mp4", name="x.mp4"), Video(source="/in/y.mp4", name="y.mp4")]
    table = with_rights(videos, None).to_pylist()
    assert [row["licence"] for row in table] == [row["consent"] for row in table] == ["simulated", UNKNOWN]
    titles = []
    for rows in (table[:1], table, table[1:]):
        card = card_of([known(make_row, make_score)])
        card.videos.clear()
        for row in rows:
            card.add_video("ok", row)
        titles.append(readme(card.values(), []).splitlines()[0])
    assert [title.split(" for ")[0] for title in titles] == [
        "# Simulated video clips",
        "# Video clips, some simulated",
        "# Video clips",
    ]


def test_windows_a_model_captioned_are_in_the_sample_and_in_a_table(
    make_row: Row, make_score: Callable[..., Score], fetch: Callable[[str], Path], tmp_path: Path
) -> None:
    kept, refused = known(make_row, make_score, "a"), known(make_row, make_score, "b", "static")

    def said(item: ClipFacts, start: int, text: str, **changed: str) -> CaptionWindow:
        of = {"clip_id": item.clip.clip_id, "clip_sha256": item.clip.clip_sha256, **changed}
        return CaptionWindow(
            **of, start_frame=start, end_frame=start + 24, caption=text, model="vlm", prompt_sha256="p"
        )

    def part_of(rows: list[CaptionWindow], key: str) -> dict[str, str]:
        with store.part_attempt(key * 64) as part:
            pq.write_table(CaptionWindow.to_table(rows), part.path / "caption_windows.parquet")
            part.commit(stage="caption_clips", kind="part")
        return {"captions": key * 64}

    store = Store.open(tmp_path / "store")
    rows = [said(kept, 24, "It stops."), said(refused, 0, "Nothing."), said(kept, 0, "A box slides.")]
    found, schema = _with_windows(store, part_of(rows, "a"), [kept, refused])
    facts = json.loads(sample_members(found[0], fetch)["json"])
    assert [(row["start_frame"], row["caption"]) for row in facts["caption_windows"]] == [
        (0, "A box slides."),
        (24, "It stops."),
    ]
    assert "caption_windows" not in json.loads(sample_members(kept, fetch)["json"])
    write_caption_windows(found, schema, tmp_path)
    assert CaptionWindow.from_table(pq.read_table(tmp_path / "caption_windows.parquet")) == [rows[2], rows[0]]
    with pytest.raises(DataError, match="caption of clip 'a' was made from other bytes"):
        _with_windows(store, part_of([said(kept, 0, "An older clip.", clip_sha256="0")], "b"), [kept])


def test_the_embedding_is_a_member(
    make_row: Row, make_score: Callable[..., Score], fetch: Callable[[str], Path]
) -> None:
    vector = np.linspace(-1, 1, 7).astype(np.float16)
    item = dataclasses.replace(known(make_row, make_score), embedding=vector)
    members = sample_members(item, fetch)
    assert list(members) == ["mp4", "json", "txt", "emb.npy"]
    read = np.load(io.BytesIO(members["emb.npy"]), allow_pickle=False)
    assert read.dtype == np.float16
    assert np.array_equal(read, vector)
    with pytest.raises(DataError, match="embedding of clip 'a' was made from other bytes"):
        join([item.clip], [item.selection], [], [], {"a": ("0" * 64, vector)})
