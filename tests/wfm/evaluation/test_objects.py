import numpy as np
import pytest

from wfm.evaluation.config import ObjectsConfig
from wfm.evaluation.objects import hue_distance, hue_of, look_for, objects_report, to_hsv, tracks

RED, GREEN, SIZE, T = (220, 30, 30), (30, 200, 40), 48, 6
CONFIG = ObjectsConfig(placed_within_px=6.0)


def disc(frame: np.ndarray, centre: tuple[float, float], rgb: tuple[int, int, int], radius: float = 5) -> None:
    y, x = np.mgrid[:SIZE, :SIZE]
    frame[(x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= radius**2] = rgb


def video(red: list[tuple[float, float] | None], green: list[tuple[float, float] | None]) -> np.ndarray:
    out = np.full((T, SIZE, SIZE, 3), 120, np.uint8)
    for frame, a, b in zip(out, red, green, strict=True):
        if a:
            disc(frame, a, RED)
        if b:
            disc(frame, b, GREEN)
    return out


def known(places: dict[str, list[tuple[float, float] | None]]) -> list[list[dict]]:
    rgb = {"red": RED, "green": GREEN, "grey": (128, 128, 130), "other_red": (200, 40, 20)}
    return [
        [
            {
                "name": name,
                "rgb": list(rgb[name]),
                "pixel": [(p[0] + 0.5) / SIZE, (p[1] + 0.5) / SIZE],
                "visible_pixels": 80,
            }
            for name, path in places.items()
            if (p := path[t]) is not None
        ]
        for t in range(T)
    ]


RED_PATH = [(10.0 + 2 * t, 20.0) for t in range(T)]
GREEN_PATH = [(36.0, 30.0)] * T


def report(prediction: np.ndarray, truth: np.ndarray, world: list):
    return objects_report(
        {"truth": truth[None], "model": prediction[None]}, [world], ["s"], CONFIG, resamples=200, seed=0
    )


def test_the_truth_is_found_where_it_is():
    truth = video(RED_PATH, GREEN_PATH)
    found = report(truth, truth, known({"red": RED_PATH, "green": GREEN_PATH}))
    assert found.tracks == 2
    scores = found.videos["model"]
    assert scores.permanence_rate.mean == scores.placed_rate.mean == 1.0
    assert scores.position_error_px.mean < 0.05


def test_a_known_shift_is_a_known_error_and_a_gone_object_is_not_permanent():
    truth = video(RED_PATH, GREEN_PATH)
    shifted = video([(x + 3, y + 4) for x, y in RED_PATH], [None] * T)
    scores = report(shifted, truth, known({"red": RED_PATH, "green": GREEN_PATH})).videos["model"]
    assert scores.permanence_rate.mean == pytest.approx(0.5)
    assert scores.placed_rate.mean == pytest.approx(0.5)
    assert scores.position_error_px.mean == pytest.approx(5.0, abs=0.1)


def test_an_object_far_from_its_place_is_found_but_not_placed():
    truth = video(RED_PATH, GREEN_PATH)
    far = video([(x, y + 15) for x, y in RED_PATH], GREEN_PATH)
    scores = report(far, truth, known({"red": RED_PATH, "green": GREEN_PATH})).videos["model"]
    assert scores.permanence_rate.mean == 1.0
    assert scores.placed_rate.mean == pytest.approx(0.5)


def test_out_of_sight_frames_do_not_count():
    path = [*RED_PATH[:3], None, None, None]
    truth = video(path, GREEN_PATH)
    found = report(video(RED_PATH, GREEN_PATH), truth, known({"red": path, "green": GREEN_PATH}))
    assert found.by_horizon["model"] == [1.0] * T
    assert found.videos["model"].permanence_rate.mean == 1.0
    gone = report(video([None] * T, GREEN_PATH), truth, known({"red": path, "green": GREEN_PATH}))
    assert gone.by_horizon["model"] == [0.5, 0.5, 0.5, 1.0, 1.0, 1.0]


def test_what_cannot_be_told_apart_is_left_out_and_counted():
    world = known({"red": RED_PATH, "other_red": GREEN_PATH, "grey": GREEN_PATH})
    found, skipped = tracks([world, None], CONFIG)
    assert found == []
    assert skipped == {"colour_not_its_own": 2, "colour_too_grey": 1, "world_not_known": 1}


def test_no_usable_object_is_absent_with_a_reason():
    truth = video([None] * T, GREEN_PATH)  # the simulator says red is there, the picture does not show it
    found = report(truth, truth, known({"red": RED_PATH}))
    assert found.videos == {}
    assert "colour" in found.absent
    assert found.skipped == {"not_found_in_the_truth": 1}


def test_hue_goes_round_the_circle():
    assert hue_of((255, 0, 0)) == (0.0, 1.0)
    assert hue_distance(350.0, 10.0) == 20.0
    frames = video(RED_PATH, GREEN_PATH)
    assert look_for(to_hsv(frames), 355.0, CONFIG).area.min() > 60
