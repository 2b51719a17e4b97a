"""One reason for each refusal, keepers that are really kept, and splits that nothing straddles."""

import itertools
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wfm.curation.dedup.keepers import connected
from wfm.curation.rows import SPLITS, AestheticRow, DuplicatePair, DuplicateRow, Score, Selection
from wfm.curation.select.select import (
    SelectConfig,
    SplitRatio,
    apportion,
    counts_of,
    select_clips,
    split_groups,
)
from wfm.errors import ConfigError, DataError
from wfm.records import Clip

Row = Callable[..., Clip]
ScoreOf = Callable[..., Score]


def decide(
    clips: Sequence[Clip],
    scores: Sequence[Score],
    pairs: Sequence[tuple[str, str]] = (),
    *,
    ranked: Sequence[str] = (),
    config: SelectConfig | None = None,
) -> dict[str, Selection]:
    """Selections by clip id; quality in order of ``ranked``, else of clip id."""
    order = list(ranked) or sorted(clip.clip_id for clip in clips)
    components = connected((clip.clip_id for clip in clips), pairs)
    duplicates = [
        DuplicateRow(
            clip_id=clip.clip_id,
            component=components[clip.clip_id],
            quality_rank=order.index(clip.clip_id),
            duplicate_of="",
            tier="",
            cosine=0.0,
        )
        for clip in clips
    ]
    found = [DuplicatePair(clip_id=a, other_id=b, cosine=0.97) for a, b in pairs]
    rows = select_clips(clips, scores, duplicates, found, config or SelectConfig())
    return {row.clip_id: row for row in rows}


@pytest.mark.parametrize(
    ("reason", "score"),
    [
        ("black", {"black_share": 0.9}),
        ("static", {"static_share": 1.0}),
        ("text_overlay", {"text_score": 0.1}),
        ("mark_overlay", {"text_score": 0.012, "moving_share": 0.5}),
        ("", {"text_score": 0.012, "moving_share": 0.25}),
        ("blurred", {"sharpness": 0.2}),
        ("low_contrast", {"contrast": 0.001}),
        ("", {}),
    ],
)
def test_each_fault_has_its_reason(make_row: Row, make_score: ScoreOf, reason: str, score: dict[str, float]) -> None:
    clip = make_row("a")
    row = decide([clip], [make_score(clip, **score)])["a"]
    assert row.reason == reason
    assert row.kept == (reason == "")
    assert bool(row.split) == row.kept


@pytest.mark.parametrize(
    ("field", "score"),
    [
        ("maximum_black_share", {"black_share": 1.0}),
        ("maximum_static_share", {"static_share": 1.0}),
        ("maximum_text_score", {"text_score": 1.0, "moving_share": 0.0}),
        ("maximum_mark_score", {"text_score": 0.012, "moving_share": 1.0}),
        ("minimum_sharpness", {"sharpness": 0.0}),
        ("minimum_contrast", {"contrast": 0.0}),
    ],
)
def test_a_threshold_of_none_is_off(make_row: Row, make_score: ScoreOf, field: str, score: dict[str, float]) -> None:
    clip = make_row("a")
    assert decide([clip], [make_score(clip, **score)], config=SelectConfig.parse({field: None}))["a"].kept


def test_minimum_motion_is_off_until_it_is_set(make_row: Row, make_score: ScoreOf) -> None:
    clip = make_row("a")
    score = make_score(clip, motion=0.001)
    assert decide([clip], [score])["a"].kept
    assert decide([clip], [score], config=SelectConfig(minimum_motion=0.01))["a"].reason == "low_motion"


def test_short_and_unscored_clips(make_row: Row, make_score: ScoreOf) -> None:
    short, unscored = make_row("a", num_frames=32), make_row("b")
    rows = decide([short, unscored], [make_score(short)])
    assert rows["a"].reason == "too_short"
    assert rows["b"].reason == "unscored"


def test_the_first_filter_gives_the_only_reason(make_row: Row, make_score: ScoreOf) -> None:
    clip = make_row("a")
    row = decide([clip], [make_score(clip, black_share=1.0, static_share=1.0, contrast=0.0, sharpness=0.0)])["a"]
    assert row.reason == "black"


def test_an_aesthetic_limit_needs_a_head_and_refuses_what_it_could_not_judge(
    make_row: Row, make_score: ScoreOf
) -> None:
    clips = [make_row(name) for name in "abc"]
    scores = [make_score(clip) for clip in clips]
    own = [DuplicateRow(clip_id=n, component=n, quality_rank=0, duplicate_of="", tier="", cosine=0.0) for n in "abc"]
    judged = [
        AestheticRow(clip_id=clip.clip_id, clip_sha256=clip.clip_sha256, aesthetic=value)
        for clip, value in zip(clips, (5.5, 3.0, None), strict=True)
    ]
    config = SelectConfig(minimum_aesthetic=4.0)
    rows = select_clips(clips, scores, own, [], config, aesthetic=judged)
    assert [row.reason for row in rows] == ["", "low_aesthetic", "low_aesthetic"]
    assert all(row.kept for row in select_clips(clips, scores, own, [], SelectConfig(), aesthetic=judged))
    with pytest.raises(ConfigError, match=r"minimum_aesthetic = 4\.0.*embed_clips\.aesthetic\.head"):
        select_clips(clips, scores, own, [], config)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_video_session_or_pair_is_in_two_splits(make_row: Row, make_score: ScoreOf, data: st.DataObject) -> None:
    """Whatever videos, sessions and duplicates there are, and whatever is refused."""
    count = data.draw(st.integers(1, 25))
    number = st.integers(0, 8)
    clips = [
        make_row(f"{k:02d}", video_id=f"v{data.draw(number)}", session_id=f"s{data.draw(number)}") for k in range(count)
    ]
    ids = st.integers(0, count - 1)
    pairs = {tuple(sorted(pair)) for pair in data.draw(st.lists(st.tuples(ids, ids), max_size=8)) if pair[0] != pair[1]}
    scores = [make_score(clip, black_share=data.draw(st.sampled_from([0.0, 0.0, 1.0]))) for clip in clips]
    named = [(clips[a].clip_id, clips[b].clip_id) for a, b in sorted(pairs)]
    config = SelectConfig(drop_duplicates=data.draw(st.booleans()), split=SplitRatio(seed=data.draw(number)))
    rows = decide(clips, scores, named, config=config)
    kept = [clip for clip in clips if rows[clip.clip_id].kept]
    for unit in (lambda clip: clip.video_id, lambda clip: clip.session_id):
        for value in {unit(clip) for clip in kept}:
            assert len({rows[clip.clip_id].split for clip in kept if unit(clip) == value}) == 1
    for a, b in named:
        if rows[a].kept and rows[b].kept:
            assert rows[a].split == rows[b].split


def test_duplicates_of_a_kept_clip_go(make_row: Row, make_score: ScoreOf) -> None:
    clips = [make_row(name) for name in "abc"]
    rows = decide(clips, [make_score(clip) for clip in clips], [("a", "b")])
    assert (rows["b"].reason, rows["b"].duplicate_of, rows["b"].duplicate_tier) == ("duplicate", "a", "embedding")
    assert rows["a"].kept
    assert rows["c"].kept


def test_a_copy_is_kept_when_the_better_one_is_refused_for_something_else(make_row: Row, make_score: ScoreOf) -> None:
    clips = [make_row(name) for name in "ab"]
    scores = [make_score(clips[0], text_score=0.5), make_score(clips[1])]
    rows = decide(clips, scores, [("a", "b")])
    assert rows["a"].reason == "text_overlay"
    assert rows["b"].kept, "nothing may be lost because its keeper was"


def test_duplicates_stay_when_they_are_asked_to(make_row: Row, make_score: ScoreOf) -> None:
    clips = [make_row(name) for name in "ab"]
    scores = [make_score(clip) for clip in clips]
    rows = decide(clips, scores, [("a", "b")], config=SelectConfig(drop_duplicates=False))
    assert rows["a"].kept
    assert rows["b"].kept
    assert rows["a"].split == rows["b"].split


def test_a_score_of_other_bytes_or_a_missing_row_is_refused(make_row: Row, make_score: ScoreOf) -> None:
    clip = make_row("a")
    with pytest.raises(DataError, match="other bytes"):
        decide([clip], [make_score(make_row("a", clip_sha256="older"))])
    with pytest.raises(DataError, match="lacks 1 clips"):
        select_clips([clip], [], [], [], SelectConfig())


def world(make_row: Row, sessions: int) -> list[Clip]:
    return [make_row(f"{s:03d}{k}", session_id=f"session {s}") for s in range(sessions) for k in range(3)]


def test_sessions_and_duplicates_never_straddle_a_split(make_row: Row, make_score: ScoreOf) -> None:
    clips = world(make_row, 30)
    pairs = [("0000", "0071"), ("0072", "0250"), ("0100", "0111")]
    rows = decide(clips, [make_score(clip) for clip in clips], pairs)
    sides: dict[str, set[str]] = {}
    for clip in clips:
        if rows[clip.clip_id].kept:
            sides.setdefault(clip.session_id, set()).add(rows[clip.clip_id].split)
    assert all(len(found) == 1 for found in sides.values())
    assert sides["session 0"] == sides["session 7"] == sides["session 25"], "over two steps"
    assert sides["session 10"] == sides["session 11"]
    assert rows["0001"].group == rows["0252"].group


@pytest.mark.parametrize("sessions", [3, 4, 7, 10, 40])
def test_every_split_has_a_group_from_three_on(make_row: Row, make_score: ScoreOf, sessions: int) -> None:
    clips = world(make_row, sessions)
    counts, skipped = counts_of(decide(clips, [make_score(clip) for clip in clips]).values())
    assert skipped == {}
    assert counts["groups"] == sessions
    assert counts["outputs"] == 3 * sessions == sum(counts[f"clips_{split}"] for split in SPLITS)
    assert all(counts[f"clips_{split}"] >= 3 for split in SPLITS)


def test_groups_without_a_kept_clip_take_no_place(make_row: Row, make_score: ScoreOf) -> None:
    clips = world(make_row, 13)
    bad = {f"session {s}" for s in range(10)}
    scores = [make_score(clip, black_share=1.0 if clip.session_id in bad else 0.0) for clip in clips]
    counts, skipped = counts_of(decide(clips, scores).values())
    assert all(counts[f"clips_{split}"] == 3 for split in SPLITS)
    assert skipped == {"black": 30}


@pytest.mark.parametrize("sessions", [5, 20, 61])
def test_one_more_session_moves_at_most_one_group_across_each_border(make_row: Row, sessions: int) -> None:
    for new in range(12):
        clips = world(make_row, sessions)
        more = [*clips, make_row("new", session_id=f"another {new}")]
        before, after = (_sides(rows, SplitRatio()) for rows in (clips, more))
        moved = [session for session, side in before.items() if after[session] != side]
        assert len(moved) <= 2
        crossings = Counter(frozenset((before[session], after[session])) for session in moved)
        assert all(count == 1 for count in crossings.values())


def test_a_new_clip_of_a_known_session_moves_nothing(make_row: Row) -> None:
    clips = world(make_row, 12)
    assert _sides(clips, SplitRatio()) == _sides([*clips, make_row("new", session_id="session 3")], SplitRatio())


def test_another_seed_splits_otherwise(make_row: Row) -> None:
    clips = world(make_row, 30)
    assert _sides(clips, SplitRatio()) != _sides(clips, SplitRatio(seed=1))


def _sides(clips: Sequence[Clip], ratio: SplitRatio) -> dict[str, str]:
    groups = {clip.clip_id: clip.session_id for clip in clips}
    return split_groups(clips, groups, set(groups), ratio)


@pytest.mark.parametrize("shares", [(0.8, 0.1, 0.1), (0.98, 0.01, 0.01), (0.1, 0.1, 0.8), (1.0, 1.0, 1.0)])
def test_apportion_fills_every_share_and_borders_move_by_one(shares: tuple[float, float, float]) -> None:
    rows = [apportion(total, shares) for total in range(3, 400)]
    for total, numbers in enumerate(rows, start=3):
        assert sum(numbers) == total
        assert min(numbers) >= 1
        assert all(abs(n - total * s / sum(shares)) <= 2 for n, s in zip(numbers, shares, strict=True))
    for a, b in itertools.pairwise(rows):
        assert b[0] - a[0] in (0, 1)
        assert b[0] + b[1] - a[0] - a[1] in (0, 1)


def test_apportion_of_few_items_and_of_shares_of_zero() -> None:
    assert apportion(0, (0.8, 0.1, 0.1)) == [0, 0, 0]
    assert apportion(1, (0.8, 0.1, 0.1)) == [1, 0, 0]
    assert apportion(2, (0.8, 0.1, 0.1)) == [1, 0, 1]
    assert apportion(10, (0.5, 0.0, 0.5)) == [5, 0, 5]
    with pytest.raises(DataError, match="above 0"):
        apportion(3, (0.0, 0.0, 0.0))


def test_the_table_keeps_its_rows(make_row: Row, make_score: ScoreOf) -> None:
    clip = make_row("a")
    rows = list(decide([clip], [make_score(clip)]).values())
    assert Selection.from_table(Selection.to_table(rows)) == rows
