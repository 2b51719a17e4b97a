"""Every dropped clip has a kept neighbour, sessions are never deduplicated against themselves, and order decides nothing."""

import dataclasses
import random
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wfm.curation.dedup.dedup import DedupConfig, find_duplicates
from wfm.curation.dedup.earlier import EarlierRun
from wfm.curation.dedup.keepers import choose_keepers, connected, quality_order
from wfm.curation.dedup.trial import Tables, trials, would_go
from wfm.curation.rows import EMBEDDING_WIDTH as WIDTH
from wfm.curation.rows import DuplicatePair, DuplicateRow, Embedding, Score
from wfm.errors import ConfigError, DataError
from wfm.records import Clip

Row = Callable[..., Clip]


def vector(angle: float, plane: int) -> list[float]:
    """Length 1, at an angle [degrees] inside one of 128 planes that are square to each other."""
    found = np.zeros(WIDTH)
    found[2 * plane], found[2 * plane + 1] = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    return found.astype(np.float16).tolist()


def embedded(clips: list[Clip], vectors: list[list[float]]) -> pa.Table:
    rows = [
        Embedding(
            clip_id=clip.clip_id,
            clip_sha256=clip.clip_sha256,
            session_id=clip.session_id,
            model="dct3d-v1",
            flat=not any(numbers),
            embedding=numbers,
        )
        for clip, numbers in zip(clips, vectors, strict=True)
    ]
    return Embedding.to_table(rows)


def find(clips: list[Clip], vectors: list[list[float]], **config: object) -> dict[str, DuplicateRow]:
    rows, _, _ = find_duplicates(clips, [], embedded(clips, vectors), DedupConfig(**config))  # type: ignore[arg-type]
    return {row.clip_id: row for row in rows}


def test_near_vectors_of_two_sessions_are_duplicates_and_the_labelled_one_is_kept(make_row: Row) -> None:
    clips = [make_row("a"), make_row("b", action_path="actions/b.parquet"), make_row("c")]
    rows = find(clips, [vector(0, 0), vector(5, 0), vector(0, 1)])
    assert rows["a"].duplicate_of == "b"
    assert rows["a"].tier == "embedding"
    assert rows["a"].cosine == pytest.approx(np.cos(np.radians(5)), abs=1e-3)
    assert rows["b"].duplicate_of == rows["c"].duplicate_of == ""
    assert rows["a"].component == rows["b"].component == "a"
    assert rows["c"].component == "c"
    assert rows["b"].quality_rank == 0


def test_views_of_one_session_are_never_duplicates(make_row: Row) -> None:
    clips = [make_row(name, session_id="one", clip_sha256="same bytes") for name in "ab"]
    rows = find(clips, [vector(0, 0), vector(0, 0)])
    assert not any(row.duplicate_of for row in rows.values())


def test_equal_bytes_come_before_embeddings_and_need_none(make_row: Row) -> None:
    clips = [make_row(name, clip_sha256="same bytes") for name in "abc"]
    rows = find(clips, [[0.0] * WIDTH] * 3)
    assert [rows[name].duplicate_of for name in "abc"] == ["", "a", "a"]
    assert rows["b"].tier == "bytes"
    assert {row.component for row in rows.values()} == {"a"}


def test_flat_clips_are_counted_and_not_compared(make_row: Row) -> None:
    clips = [make_row(name) for name in "ab"]
    rows, pairs, counts = find_duplicates(clips, [], embedded(clips, [[0.0] * WIDTH] * 2), DedupConfig())
    assert not pairs
    assert counts["flat_not_compared"] == 2
    assert [row.duplicate_of for row in rows] == ["", ""]


def test_a_chain_loses_only_its_middle(make_row: Row) -> None:
    """A~B~C with A unlike C: the rule "like any earlier row" would drop C for B, which is dropped itself."""
    clips = [make_row("a", width=300), make_row("b", width=200), make_row("c", width=100)]
    rows = find(clips, [vector(0, 0), vector(15, 0), vector(30, 0)])
    assert [rows[name].duplicate_of for name in "abc"] == ["", "a", ""]
    assert {row.component for row in rows.values()} == {"a"}, "the split must still keep the chain together"


def test_an_embedding_of_other_bytes_is_refused(make_row: Row) -> None:
    table = embedded([make_row("a")], [vector(0, 0)])
    with pytest.raises(DataError, match="not made from the bytes"):
        find_duplicates([make_row("a", clip_sha256="newer")], [], table, DedupConfig())
    with pytest.raises(DataError, match="not made from the bytes"):
        find_duplicates([make_row("b")], [], table, DedupConfig())


def test_a_clip_without_embedding_is_kept_and_counted(make_row: Row) -> None:
    clips = [make_row("a"), make_row("b")]
    rows, _, counts = find_duplicates(clips, [], embedded(clips[:1], [vector(0, 0)]), DedupConfig())
    assert counts["without_embedding"] == 1
    assert len(rows) == 2


def test_quality_order(make_row: Row, make_score: Callable[..., Score]) -> None:
    best = make_row("z", action_path="x")
    large = make_row("y", width=256)
    long = make_row("x", num_frames=90)
    sharp, soft, unscored = make_row("w"), make_row("v"), make_row("u")
    scores = [make_score(sharp, sharpness=60.0), make_score(soft, sharpness=20.0)]
    assert quality_order([unscored, soft, sharp, long, large, best], scores) == [
        best,
        large,
        long,
        sharp,
        soft,
        unscored,
    ]


@pytest.mark.parametrize("search", [{}, {"exact_up_to": 0}])
def test_brute_force_agrees_and_order_of_the_input_decides_nothing(make_row: Row, search: dict[str, int]) -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(150, WIDTH))
    base[50:] = base[rng.integers(0, 50, 100)] + 0.2 * rng.normal(size=(100, WIDTH)) * rng.uniform(0, 1, (100, 1))
    base /= np.linalg.norm(base, axis=1, keepdims=True)
    numbers = base.astype(np.float16)
    clips = [make_row(f"{i:03d}", session_id=f"s{i % 40}", width=100 + int(rng.integers(50))) for i in range(150)]
    rows = find(clips, numbers.tolist(), **search)
    cosine = numbers.astype(np.float32) @ numbers.astype(np.float32).T
    near = [
        [j for j in range(150) if cosine[i, j] >= 0.95 and clips[i].session_id != clips[j].session_id]
        for i in range(150)
    ]
    kept = {row.clip_id for row in rows.values() if not row.duplicate_of}
    assert 30 < len(kept) < 140
    for i, clip in enumerate(clips):
        neighbours = {clips[j].clip_id for j in near[i]}
        row = rows[clip.clip_id]
        if row.duplicate_of:
            assert row.duplicate_of in kept & neighbours, "a dropped clip has a kept neighbour"
        better = {name for name in neighbours & kept if rows[name].quality_rank < row.quality_rank}
        assert bool(better) == bool(row.duplicate_of), "and only such a clip is dropped"
    order = list(range(150))
    random.Random(1).shuffle(order)
    again = find([clips[i] for i in order], [numbers[i].tolist() for i in order], **search)
    assert again == rows


def test_too_many_pairs_are_an_error_with_advice(make_row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wfm.curation.dedup.dedup.MOST_PAIRS", 2)
    clips = [make_row(name) for name in "abc"]
    with pytest.raises(DataError, match="threshold"):
        find(clips, [vector(0, 0)] * 3)


@settings(max_examples=60, deadline=None)
@given(
    links=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=25),
    refused=st.sets(st.integers(0, 11), max_size=6),
)
def test_keepers_cover_whatever_may_not_be_kept(links: list[tuple[int, int]], refused: set[int]) -> None:
    clips = [_clip(f"{i:02d}") for i in range(12)]
    pairs = [
        DuplicatePair(clip_id=f"{a:02d}", other_id=f"{b:02d}", cosine=0.96)
        for a, b in {(a, b) for a, b in links if a < b}
    ]
    barred = {f"{i:02d}" for i in refused}
    dropped = choose_keepers(clips, pairs, lambda clip: clip.clip_id not in barred)
    kept = {clip.clip_id for clip in clips} - barred - set(dropped)
    linked = {frozenset((pair.clip_id, pair.other_id)) for pair in pairs}
    assert all(repeat.of in kept and frozenset((name, repeat.of)) in linked for name, repeat in dropped.items())
    assert not any(len(link & kept) == 2 for link in linked), "no two kept clips repeat each other"


def test_connected_takes_the_smallest_name() -> None:
    assert connected("dcba", [("d", "c"), ("c", "a")]) == {"d": "a", "c": "a", "b": "b", "a": "a"}


def _clip(name: str) -> Clip:
    return Clip(
        clip_id=name,
        clip_sha256=name,
        video_id=name,
        source="",
        session_id=name,
        start_seconds=0,
        end_seconds=1,
        start_pts=0,
        end_pts=1,
        time_base="1/24",
        num_frames=24,
        fps=24,
        width=1,
        height=1,
        path="",
        transcode="copy",
    )


def _unit_rows(seed: int, count: int, noise: float = 0.25) -> np.ndarray:
    """float16 [count, WIDTH]: half of them near others."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, WIDTH))
    half = count // 2
    rows[half:] = rows[rng.integers(0, half, count - half)]
    rows[half:] += noise * rng.normal(size=(count - half, WIDTH)) * rng.uniform(0, 2, (count - half, 1))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000), threshold=st.sampled_from([0.9, 0.95, 0.99]), order=st.randoms(use_true_random=False)
)
def test_every_dropped_clip_has_a_kept_neighbour(seed: int, threshold: float, order: random.Random) -> None:
    """The guarantee, through the whole step, whatever the vectors, the sessions, the threshold and the order."""
    numbers, sessions = _unit_rows(seed, 24), np.random.default_rng(seed).integers(0, 12, 24)
    clips = [dataclasses.replace(_clip(f"{i:02d}"), session_id=f"s{sessions[i]}") for i in range(24)]
    shuffled = list(range(24))
    order.shuffle(shuffled)
    table = embedded([clips[i] for i in shuffled], [numbers[i].tolist() for i in shuffled])
    config = DedupConfig(threshold=threshold, exact_up_to=24 * (seed % 2), leaf=4, reach=1.0)
    rows, pairs, _ = find_duplicates([clips[i] for i in shuffled], [], table, config)
    exact = (numbers.astype(np.float64) @ numbers.astype(np.float64).T).round(9)
    near = (exact >= threshold) & (sessions[:, None] != sessions[None])
    stored = {(int(pair.clip_id), int(pair.other_id)): pair.cosine for pair in pairs}
    assert set(stored) == {(int(i), int(j)) for i, j in np.argwhere(np.triu(near))}
    kept = {int(row.clip_id) for row in rows if not row.duplicate_of}
    for row in rows:
        if row.duplicate_of:
            a, b = sorted((int(row.clip_id), int(row.duplicate_of)))
            assert int(row.duplicate_of) in kept
            assert row.cosine == stored[a, b], "the pair that a clip goes for can be looked up"
    assert not near[np.ix_(sorted(kept), sorted(kept))].any()


def test_new_clips_against_an_index_give_what_one_run_over_all_gives() -> None:
    """Rivals cluster everything again for every batch. Here the pairs of before stay and only new rows are compared."""
    clips = [_clip(f"{i:03d}") for i in range(120)]
    numbers = _unit_rows(3, 120)
    new = np.random.default_rng(0).permutation(120)[:30]
    old = sorted(set(range(120)) - set(new.tolist()))
    for config in (DedupConfig(), DedupConfig(exact_up_to=0, leaf=16, reach=1.0)):
        rows, pairs, _ = find_duplicates(clips, [], embedded(clips, numbers.tolist()), config)
        before = [clips[i] for i in old]
        _, first, _ = find_duplicates(before, [], embedded(before, [numbers[i].tolist() for i in old]), config)
        index = EarlierRun(pairs=first, clips={clip.clip_id: clip.clip_sha256 for clip in before})
        again, both, counts = find_duplicates(clips, [], embedded(clips, numbers.tolist()), config, earlier=index)
        assert again == rows
        assert both == pairs
        assert counts["compared_before"] == 90
        assert 0 < len(first) < len(pairs)


def test_a_clip_whose_bytes_changed_is_new_to_the_index() -> None:
    clips = [_clip(name) for name in "abc"]
    index = EarlierRun(
        pairs=[DuplicatePair(clip_id="a", other_id="b", cosine=1.0)], clips={"a": "older bytes", "b": "b"}
    )
    table = embedded(clips, [vector(0, 0), vector(0, 1), vector(0, 1)])
    rows, pairs, counts = find_duplicates(clips, [], table, DedupConfig(), earlier=index)
    assert [(pair.clip_id, pair.other_id) for pair in pairs] == [("b", "c")]
    assert counts["compared_before"] == 1
    assert [row.duplicate_of for row in rows] == ["", "", "b"]


def test_at_the_threshold_counts_and_just_below_does_not() -> None:
    """One rule, ``>=``, decided in float64 from the stored halves: counting and dropping cannot disagree."""
    clips = [_clip(name) for name in "ab"]
    numbers = [vector(0, 0), vector(18, 0)]
    exact = round(float(np.array(numbers[0]) @ np.array(numbers[1])), 9)
    for threshold, expected in ((exact, "a"), (exact + 1e-9, "")):
        rows, pairs, counts = find_duplicates(clips, [], embedded(clips, numbers), DedupConfig(threshold=threshold))
        assert rows[1].duplicate_of == expected
        assert counts["duplicates"] == len(pairs) == bool(expected)


def test_plan_tells_what_would_go_and_why() -> None:
    clips = [_clip(name) for name in "abc"]
    rows, _, _ = find_duplicates(clips, [], embedded(clips, [vector(0, 0), vector(5, 0), vector(0, 1)]), DedupConfig())
    (line,) = would_go(rows, clips)
    assert (line.clip_id, line.duplicate_of, line.tier, line.seconds) == ("b", "a", "embedding", 1.0)


def test_each_threshold_of_a_trial_is_a_run_of_its_own() -> None:
    clips, numbers = [_clip(f"{i:03d}") for i in range(120)], _unit_rows(5, 120, noise=0.3).tolist()
    clips[7] = dataclasses.replace(clips[7], clip_sha256="002")  # the bytes of another
    table = embedded(clips, numbers)
    gone = []
    for trial in trials(Tables(clips, [], table, None), DedupConfig(), (0.99, 0.9, 0.95)):
        rows, pairs, counts = find_duplicates(clips, [], table, DedupConfig(threshold=trial.threshold))
        assert list(trial.gone) == would_go(rows, clips)
        assert (trial.pairs, trial.by_tier()["bytes"]) == (len(pairs), counts["duplicates_by_bytes"])
        assert trial.groups == len({row.component for row in rows if row.component != row.clip_id})
        gone.append(len(trial.gone))
    assert gone[0] < gone[2] < gone[1]
    with pytest.raises(ConfigError, match="thresholds"):
        trials(Tables(clips, [], table, None), DedupConfig(), [95])
