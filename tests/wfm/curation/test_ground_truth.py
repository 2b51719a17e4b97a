"""The table that the tests hold: shots found against films whose joins are known; and the films are what they claim to be."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from wfm.curation.shots import Mixed, ShotConfig, Span, Timeline, look, spans
from wfm.data.decode import open_video, read_frames
from wfm.data.probe import probe
from wfm.simulation import ground_truth as gt

SEEDS = (101, 102, 103, 104)  # no threshold was set on these


def cuts_of(path: Path, config: ShotConfig) -> list[int]:
    """Where each cut lies; a gradual one counts by its middle."""
    with open_video(path) as video:
        cuts = look(video, config)[1]
    return [cut if isinstance(cut, int) else (cut.first + cut.last) // 2 for cut in cuts]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[Path, gt.Film]]]:
    folder = tmp_path_factory.mktemp("films")
    made: dict[str, list[tuple[Path, gt.Film]]] = {}
    for join in ("cut", "dissolve", "fade"):
        for seed in SEEDS:
            film = gt.film(seed, [join] * 5)
            path = gt.write_film(folder / f"{join}-{seed}.mp4", film.frames)
            made.setdefault(join, []).append((path, film))
    return made


def score(films: list[tuple[Path, gt.Film]], config: ShotConfig) -> gt.ShotScore:
    total = gt.ShotScore()
    for path, film in films:
        total += gt.shot_score(cuts_of(path, config), film.transitions)
    return total


@pytest.mark.parametrize("detector", ["adaptive", "content"])
def test_hard_cuts(films: dict[str, list[tuple[Path, gt.Film]]], detector: str) -> None:
    found = score(films["cut"], ShotConfig(detector=detector))
    assert found.true == 20
    assert found.f1 >= 0.95, found


@pytest.mark.parametrize(("join", "floor"), [("dissolve", 0.95), ("fade", 0.95)])
def test_gradual_joins(films: dict[str, list[tuple[Path, gt.Film]]], join: str, floor: float) -> None:
    """All 20 of each found on these seeds, none false."""
    plain, gradual = (score(films[join], ShotConfig(gradual=on)) for on in (False, True))
    assert gradual.f1 >= floor, gradual
    assert gradual.precision >= 0.95, gradual
    assert gradual.recall > plain.recall + 0.3, "a detector of hard cuts does not see them"


def test_hard_cuts_stay_hard_when_gradual_ones_are_looked_for(films: dict[str, list[tuple[Path, gt.Film]]]) -> None:
    path, film = films["cut"][0]
    assert cuts_of(path, ShotConfig(gradual=True)) == [join.first for join in film.transitions]


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
