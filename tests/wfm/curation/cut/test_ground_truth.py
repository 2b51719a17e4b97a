"""The table of joins that the tests hold, and the films are what they claim to be.

The same rows for more seeds, scores and duplicates too: ``python -m tests.benchmarks.ground_truth``.
"""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.ground_truth_shots import DETECTORS, ShotRow, WrittenFilm, cuts_of, films, shot_row
from wfm.curation.cut.shot_detection import Mixed, ShotConfig
from wfm.curation.cut.shots import Span, spans
from wfm.curation.cut.shots_gradual import GradualShots
from wfm.curation.cut.timeline import Timeline
from wfm.data.decode import read_frames
from wfm.data.probe import probe
from wfm.simulation import ground_truth as gt

SEEDS = (101, 102, 103)  # no threshold was set on these


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[WrittenFilm]]:
    return films(tmp_path_factory.mktemp("films"), SEEDS)


def row(written: dict[str, list[WrittenFilm]], detector: str, kind: str) -> ShotRow:
    return shot_row(detector, DETECTORS[detector], kind, written[kind])


@pytest.mark.parametrize("detector", ["adaptive", "content", "adaptive+gradual"])
def test_hard_cuts(written: dict[str, list[WrittenFilm]], detector: str) -> None:
    """All 15 found, none false; no frame is lost to a mixture that is not there."""
    found = row(written, detector, "cut")
    assert found.score.true == 15
    assert found.score.f1 >= 0.95, found
    assert found.lost == 0


@pytest.mark.parametrize("join", ["dissolve", "fade"])
def test_gradual_joins(written: dict[str, list[WrittenFilm]], join: str) -> None:
    """All 15 of each found, none false; 0.95 of the mixed frames stay out of every shot."""
    plain, gradual = row(written, "adaptive", join), row(written, "adaptive+gradual", join)
    assert gradual.score.true == 15
    assert gradual.score.f1 >= 0.95, gradual
    assert gradual.score.recall > plain.score.recall + 0.3, "a detector of hard cuts does not see them"
    assert gradual.mixed >= 0.9, gradual
    assert gradual.lost <= 0.05, gradual


@pytest.mark.long
@pytest.mark.parametrize(("join", "hits", "found"), [("cut", 6, 6), ("dissolve", 5, 5), ("fade", 4, 5)])
def test_the_network_on_the_same_films(tmp_path: Path, join: str, hits: int, found: int) -> None:
    """TransNetV2 as its package ships it, 6 joins of each kind. It was trained on films of the real world; of these, it misses
    some slow joins, which the arithmetic finds (F1 1 on the same 6)."""
    made = films(tmp_path, SEEDS[:2], joins=3)
    network = row(made, "transnetv2", join).score
    assert network.hits >= hits, network
    assert network.found <= found, network
    assert row(made, "adaptive+gradual", join).score.f1 == 1


def shown(view: Callable[[int], tuple[float, float, float]], frames: int = 60) -> np.ndarray:
    """``view(frame)`` -> (left, upper, width) of what is shown of one picture, uint8 [T, 72, 128, 3]."""
    from PIL import Image

    world = Image.fromarray(gt.texture(np.random.default_rng(8), 360, 640))
    boxes = [(x, y, x + wide, y + wide * 9 / 16) for x, y, wide in map(view, range(frames))]
    return np.stack([np.asarray(world.resize((128, 72), Image.Resampling.BILINEAR, box=box)) for box in boxes])


def passing(frames: np.ndarray, width: int, speed: int) -> np.ndarray:
    """Something plain goes by before the camera."""
    frames = frames.copy()
    for k, frame in enumerate(frames):
        frame[:, max(0, k * speed - width) : max(0, k * speed)] = (90, 120, 60)
    return frames


def turned_up(frames: np.ndarray) -> np.ndarray:
    """A lamp is."""
    light = 0.2 + 0.8 / (1 + np.exp(15 - np.arange(len(frames)) / 2))
    return (frames * light[:, None, None, None]).astype(np.uint8)


@pytest.mark.parametrize(
    "frames",
    [
        shown(lambda k: (7 * k, 40, 160)),
        shown(lambda k: (20 + 2 * k, 40 + 2 * k, 192)),
        shown(lambda k: (4 * k, 2 * k, 640 - 8 * k)),
        passing(shown(lambda k: (100, 60, 192)), 100, 6),
        passing(shown(lambda k: (100, 60, 192)), 400, 12),
        turned_up(shown(lambda k: (100, 60, 192))),
    ],
    ids=["quick pan", "pan", "zoom", "a passer-by", "a wall of a van", "a lamp turned up"],
)  # fmt: skip
def test_what_changes_by_and_by_is_no_dissolve(frames: np.ndarray) -> None:
    finder = GradualShots(ShotConfig().gradual_ratio)
    for frame in frames:
        finder.push(frame)
    assert finder.finish() == []


def test_hard_cuts_stay_hard_when_gradual_ones_are_looked_for(written: dict[str, list[WrittenFilm]]) -> None:
    film = written["cut"][0]
    assert cuts_of(film.path, ShotConfig(gradual=True)) == [join.first for join in film.transitions]


def test_mixed_frames_belong_to_no_shot() -> None:
    even = Timeline(np.arange(200), 200, Fraction(1, 24))
    kept, short = spans(even, [Mixed(50, 60), 120, Mixed(190, 200)], ShotConfig())
    assert (kept, short) == ([Span(0, 50), Span(60, 120), Span(120, 190)], [])


def test_a_film_is_a_function_of_its_seed() -> None:
    one, again, other = (gt.film(seed, ["cut", "fade"]) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.frames, again.frames)
    assert one.transitions == again.transitions
    assert one.frames.shape != other.frames.shape or (one.frames != other.frames).any()


def test_joins_lie_where_the_film_says() -> None:
    film = gt.film(5, ["cut", "dissolve", "fade"], size=(54, 96))
    cut, dissolve, fade = film.transitions
    steps = np.abs(np.diff(film.frames.astype(int), axis=0)).mean(axis=(1, 2, 3))  # steps[i]: frame i -> i + 1
    assert steps[cut.first - 1] > 3 * np.median(steps)
    middle = (dissolve.first + dissolve.last) // 2
    ends = (film.frames[dissolve.first - 1].astype(int) + film.frames[dissolve.last]) / 2
    assert np.abs(film.frames[middle] - ends).mean() < np.abs(film.frames[dissolve.first - 1] - ends).mean()
    light = film.frames.mean(axis=(1, 2, 3))
    assert light[fade.first : fade.last].min() < 0.25 * min(light[fade.first - 1], light[fade.last])
    assert steps[dissolve.first : dissolve.last - 1].max() < steps[cut.first - 1]


def test_scenes_are_what_they_are_called() -> None:
    kinds = {
        kind: gt.scene(3, 24, size=(54, 96), kind=kind).astype(int) for kind in ("moving", "static", "black", "shaky")
    }
    steps = {kind: np.abs(np.diff(frames, axis=0)).mean() for kind, frames in kinds.items()}
    assert kinds["black"].max() < 16
    assert 0 < steps["static"] < 4 < steps["shaky"]
    assert steps["static"] < steps["moving"] < steps["shaky"]


def test_text_and_copies_keep_the_rest(tmp_path: Path) -> None:
    clip = gt.scene(4, 30, size=(54, 96))
    lettered = gt.with_text(clip, "WORDS")
    share = (lettered != clip).any(axis=3).mean()
    assert 0.005 < share < 0.2
    made = gt.copies(clip, 1)
    assert tuple(made) == gt.COPY_KINDS
    np.testing.assert_array_equal(made["mirror"][:, :, ::-1], clip)
    assert len(made["trim"]) == 27
    for kind, frames in made.items():
        path = gt.write_film(tmp_path / f"{kind}.mp4", frames, kind=kind)
        assert read_frames(path)[0].shape == frames.shape
    assert (tmp_path / "re-encode.mp4").stat().st_size < gt.write_film(tmp_path / "o.mp4", clip).stat().st_size


def test_uneven_times_are_kept(tmp_path: Path) -> None:
    times = np.cumsum([20, 60] * 15).tolist()
    facts = probe(gt.write_film(tmp_path / "vfr.mkv", gt.scene(4, 30, size=(54, 96)), times=times))
    assert (facts.variable_frame_rate, facts.num_frames) == (True, 30)


@pytest.mark.parametrize(
    ("found", "hits"), [([10], 1), ([11], 1), ([12], 0), ([40], 1), ([41, 45], 1), ([10, 11], 1), ([10, 45], 2)]
)
def test_a_join_is_hit_once(found: list[int], hits: int) -> None:
    truth = (gt.Transition("cut", 10, 10), gt.Transition("dissolve", 40, 52))
    assert gt.shot_score(found, truth) == gt.ShotScore(hits, len(found), 2)
