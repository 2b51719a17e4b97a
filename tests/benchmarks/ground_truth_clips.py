"""Scores of clips against what the clips are known to be: for each thing that can be said of a clip, precision and recall.

`measured` makes and scores clips, `clip_rows` judges them by `TABLE`: the same for `ground_truth` (the whole table) and the
tests. Limits are the selection's defaults where it has one, else the tag's, else the one that stands in the row's name.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from wfm.curation.measure.measurements import Measures
from wfm.curation.measure.score import ScoreClip, ScoreConfig
from wfm.curation.rows import Score
from wfm.curation.select.select import Scored, SelectConfig, filters
from wfm.records import Clip
from wfm.simulation.ground_truth import ShotScore
from wfm.simulation.ground_truth_kinds import KINDS, write_clip

ALL_KINDS = tuple(kind for kinds in KINDS.values() for kind in kinds)
FRAMES, FPS = 36, 24
LIMITS = SelectConfig()


@dataclasses.dataclass(frozen=True)
class Seen:
    """A clip's kind, as made, and what was measured."""

    kind: str
    seed: int
    score: Score
    measures: Measures


@dataclasses.dataclass(frozen=True)
class ClipRow:
    """How well one thing is told; ``wrong`` names the clips that are missed or found in error."""

    name: str
    clips: int
    score: ShotScore
    wrong: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Question:
    """What is asked of clips. ``told`` is the system's answer, ``true`` the kinds of which it is true, ``open`` those of which
    it is neither true nor false: they are not asked."""

    told: Callable[[Seen], bool]
    true: frozenset[str]
    open: frozenset[str] = frozenset()


def measured(
    folder: Path, seeds: Iterable[int], kinds: Sequence[str] = ALL_KINDS, config: ScoreConfig | None = None
) -> list[Seen]:
    """Clips of each kind and seed, written and scored."""
    config = config or ScoreConfig(measures=True)
    return [_seen(write_clip(folder / f"{k}-{s}.mp4", k, s, FRAMES), k, s, config) for k in kinds for s in seeds]


def _seen(path: Path, kind: str, seed: int, config: ScoreConfig) -> Seen:
    rows: list[Measures] = []
    (score,) = ScoreClip(config, lambda _: path, rows)(_clip())
    return Seen(kind, seed, score, rows[0])


def _clip() -> Clip:
    return Clip(
        clip_id="a", clip_sha256="b", video_id="v", source="s", session_id="s", start_seconds=0,
        end_seconds=FRAMES / FPS, start_pts=0, end_pts=FRAMES, time_base=f"1/{FPS}", num_frames=FRAMES, fps=FPS,
        width=192, height=108, path="a.mp4", transcode="copy",
    )  # fmt: skip


def clip_rows(seen: Sequence[Seen], questions: "dict[str, Question] | None" = None) -> list[ClipRow]:
    """The table, a row a question."""
    return [_row(name, question, seen) for name, question in (questions or TABLE).items()]


def _row(name: str, question: Question, seen: Sequence[Seen]) -> ClipRow:
    asked = [one for one in seen if one.kind not in question.open]
    found, true = ([bool(f(one)) for one in asked] for f in (question.told, lambda one: one.kind in question.true))
    hits = sum(f and t for f, t in zip(found, true, strict=True))
    wrong = [f"{one.kind}-{one.seed}" for one, f, t in zip(asked, found, true, strict=True) if f != t]
    return ClipRow(name, len(asked), ShotScore(hits, sum(found), sum(true)), tuple(wrong))


def _over(limit: float | None, value: float | None) -> bool:
    assert limit is not None
    assert value is not None
    return value > limit


def _tag(name: str) -> Callable[[Seen], bool]:
    return lambda one: name in one.measures.camera_tags.split()


def _type(name: str) -> Callable[[Seen], bool]:
    return lambda one: one.measures.video_type == name


DIM = frozenset({"black", "under"})
GONE = DIM | {"over"}
"""Kinds of which hardly anything can be seen."""
CAMERA = frozenset(KINDS["camera"])
STILL = frozenset({"static", "fixed", "slideshow", "screen"})
"""Kinds whose camera rests for certain."""
ELSEWHERE = frozenset(ALL_KINDS) - CAMERA - STILL
"""Kinds whose camera wanders as it likes."""

CAMERA_TABLE = {
    **{name: Question(_tag(name), frozenset({name}), ELSEWHERE) for name in KINDS["camera"] if name != "fixed"},
    "static camera": Question(_tag("static"), STILL, ELSEWHERE),
    "shake": Question(_tag("shake"), frozenset({"shaky"}), GONE | {"frozen", "doubled", "animation", "blurred"}),
}
"""Frozen and doubled frames are a camera that jerks; of drawn and blurred ones little can be followed."""

PICTURE_TABLE = {
    "static": Question(
        lambda s: _over(LIMITS.maximum_static_share, s.score.static_share),
        frozenset({"static", "black"}),
        frozenset({"under", "over"}),
    ),
    "black": Question(
        lambda s: _over(LIMITS.maximum_black_share, s.score.black_share), frozenset({"black"}), frozenset({"under"})
    ),
    "blurred": Question(lambda s: s.score.sharpness < (LIMITS.minimum_sharpness or 0), frozenset({"blurred"}), GONE),
    "under-exposed > 0.5": Question(lambda s: s.measures.under_share > 0.5, DIM),
    "over-exposed > 0.5": Question(lambda s: s.measures.over_share > 0.5, frozenset({"over"}), frozenset({"screen"})),
    "compressed: blockiness > 0.75": Question(
        lambda s: s.measures.blockiness > 0.75, frozenset({"blocky"}), DIM | {"screen"}
    ),
    **{
        name: Question(lambda s, name=name: s.measures.border_kind == name, frozenset({name}))  # type: ignore[misc]
        for name in ("letterbox", "pillarbox", "windowbox")
    },
    "any border": Question(lambda s: s.measures.border_share > 0, frozenset({"letterbox", "pillarbox", "windowbox"})),
    "frozen > 0.3 s": Question(
        lambda s: s.measures.longest_freeze > 0.3, frozenset({"frozen", "slideshow"}), GONE | {"static", "screen"}
    ),
    "repeated frames > 0.3": Question(
        lambda s: s.score.frozen_share > 0.3, frozenset({"frozen", "doubled", "slideshow"}), GONE | {"static", "screen"}
    ),
}
"""Of a static clip an encoder may make one that is frozen; a screen is white, has seams, and rests by turns. Seams are looked
for in a rough file of key frames: where motion carries the blocks along, they leave the grid (then 5 of 8 were found)."""

TYPE_TABLE = {
    "still": Question(_type("still"), frozenset({"static", "black"}), frozenset({"under", "over"})),
    "slideshow": Question(_type("slideshow"), frozenset({"slideshow"})),
    "screen": Question(_type("screen"), frozenset({"screen"})),
    "animation": Question(_type("animation"), frozenset({"animation"})),
    "fixed": Question(_type("fixed"), frozenset({"fixed"}), GONE),
    "moving": Question(_type("moving"), frozenset(ALL_KINDS) - GONE - STILL - {"animation"}, GONE),
}


def _text(one: Seen) -> bool:
    """What the selection's defaults refuse as text or mark."""
    rules = [rule for rule in filters(LIMITS) if rule.name in ("text_overlay", "mark_overlay")]
    return any(rule.reason(Scored(_clip(), one.score)) for rule in rules)


TEXT_TABLE = {
    "text": Question(_text, frozenset({"text"}), frozenset({"screen", "corner"})),
    "mark in a corner": Question(_text, frozenset({"corner"}), frozenset({"screen", "text"})),
}

OCR_TABLE = {
    "text, PP-OCR": Question(
        lambda s: _over(0.005, s.measures.ocr_share), frozenset({"text"}), frozenset({"screen", "corner"})
    ),
    "mark in a corner, PP-OCR": Question(
        lambda s: bool(s.measures.ocr_corner), frozenset({"corner"}), frozenset({"screen", "text"})
    ),
}
"""Asked of clips that were scored with ``text_detector="ppocr"``. A short line at the lower left stands in a corner too."""

TABLE = {**PICTURE_TABLE, **CAMERA_TABLE, **TYPE_TABLE, **TEXT_TABLE}
