"""Scores against generated video whose faults are known: precision and recall of each, in one table."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from wfm.curation.measures import Measures
from wfm.curation.rows import Score
from wfm.curation.score import ScoreClip, ScoreConfig
from wfm.curation.select import SelectConfig
from wfm.records import Clip
from wfm.simulation.ground_truth import copies, scene, with_text, write_film

FRAMES, SEEDS = 36, 3
LIMITS = SelectConfig()


@dataclasses.dataclass(frozen=True)
class Seen:
    """A clip's kind, as made, and what was measured."""

    kind: str
    score: Score
    measures: Measures


def made(kind: str, seed: int) -> np.ndarray:
    """uint8 [T, H, W, 3] of one kind."""
    if kind in ("static", "black", "shaky"):
        return scene(seed, FRAMES, kind=kind)  # type: ignore[arg-type]
    if kind == "slideshow":
        return np.concatenate([np.repeat(scene(seed * 10 + k, 1), FRAMES // 3, axis=0) for k in range(3)])
    frames = scene(seed, FRAMES)
    if kind == "text":
        return with_text(frames, "SUBSCRIBE NOW")
    if kind == "corner":
        return with_text(frames, "LOGO TV", corner=True)
    if kind == "letterbox":
        return copies(frames, seed)["letterbox"]
    if kind == "pillarbox":
        return np.pad(frames, ((0, 0), (0, 0), (24, 24), (0, 0)))
    if kind == "frozen":
        frames[8:30] = frames[8]
    if kind == "over":
        frames = np.clip(frames.astype(int) + 190, 0, 255).astype(np.uint8)
    return frames


KINDS = (
    "moving", "static", "black", "shaky", "slideshow", "text", "corner", "letterbox", "pillarbox", "frozen", "over",
)  # fmt: skip


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> list[Seen]:
    folder = tmp_path_factory.mktemp("kinds")
    return [measured(folder, kind, seed) for kind in KINDS for seed in range(SEEDS)]


def measured(folder: Path, kind: str, seed: int) -> Seen:
    path = write_film(folder / f"{kind}{seed}.mp4", made(kind, seed))
    clip = Clip(
        clip_id="a", clip_sha256="b", video_id="v", source="s", session_id="s", start_seconds=0, end_seconds=1.5,
        start_pts=0, end_pts=FRAMES, time_base="1/24", num_frames=FRAMES, fps=24, width=192, height=108, path="a.mp4",
        transcode="copy",
    )  # fmt: skip
    rows: list[Measures] = []
    (score,) = ScoreClip(ScoreConfig(measures=True), lambda _: path, rows)(clip)
    return Seen(kind, score, rows[0])


def over(limit: float | None, value: float) -> bool:
    assert limit is not None
    return value > limit


TABLE: dict[str, tuple[set[str], Callable[[Seen], bool]]] = {
    # what is found: (kinds of which it is true, how it is told)
    "static": ({"static", "black"}, lambda s: over(LIMITS.maximum_static_share, s.score.static_share)),
    "black": ({"black"}, lambda s: over(LIMITS.maximum_black_share, s.score.black_share)),
    "shaky": ({"shaky"}, lambda s: "shake" in s.measures.camera_tags.split()),
    "text": ({"text", "corner"}, lambda s: over(LIMITS.maximum_text_score, s.score.text_score)),
    "letterbox": ({"letterbox"}, lambda s: s.measures.border_kind == "letterbox"),
    "pillarbox": ({"pillarbox"}, lambda s: s.measures.border_kind == "pillarbox"),
    "any border": ({"letterbox", "pillarbox"}, lambda s: s.measures.border_share > 0),
    "frozen": ({"frozen", "slideshow"}, lambda s: s.measures.longest_freeze > 0.3),
    "slideshow": ({"slideshow"}, lambda s: s.measures.video_type == "slideshow"),
    "still": ({"static", "black"}, lambda s: s.measures.video_type == "still"),
    "over-exposed": ({"over"}, lambda s: s.measures.over_share > 0.5),
    "under-exposed": ({"black"}, lambda s: s.measures.under_share > 0.5),
}


NEITHER = {
    "frozen": {"static", "black"},  # frozen but for the camera's noise, of which an encoder keeps what it likes
    "still": {"over"},  # nine tenths of it are white: hardly anything is left that could move
}
"""Kinds of which a row says neither that it is true nor that it is false."""


@pytest.mark.parametrize("name", TABLE)
def test_precision_and_recall_on_generated_video(name: str, seen: list[Seen]) -> None:
    """All 1 over 3 clips of each of 11 kinds, which is what is held; a fault in one clip fails."""
    kinds, told = TABLE[name]
    judged = [s for s in seen if s.kind not in NEITHER.get(name, ())]
    found = {(s.kind, i) for i, s in enumerate(judged) if told(s)}
    true = {(s.kind, i) for i, s in enumerate(judged) if s.kind in kinds}
    assert true
    precision = len(found & true) / max(len(found), 1)
    recall = len(found & true) / len(true)
    assert (precision, recall) == (1.0, 1.0), (name, sorted(found - true), sorted(true - found))


def test_borders_are_measured_to_a_line(seen: list[Seen]) -> None:
    bar = 12 / 132  # copies() adds 12 lines above and below 108
    for one in seen:
        if one.kind == "letterbox":
            edges = one.measures
            assert (edges.border_top, edges.border_bottom) == pytest.approx((bar, bar), abs=1.01 / 132)
            assert (edges.border_left, edges.border_right) == (0, 0)
            assert edges.under_share < 0.1, "what lies in the borders is not under-exposed"
