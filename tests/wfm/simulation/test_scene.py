import numpy as np
import pytest

from wfm.simulation.scene import ACTOR_COLOR, ARENA_RADIUS, FLOOR_HALF, MAX_OBJECTS, SHAPES, draw_scene, floor_texture

SCENES = [draw_scene(np.random.default_rng([3, i])) for i in range(120)]


def test_objects_have_distinct_colours_and_only_the_actor_is_red() -> None:
    for scene in SCENES:
        colors = [item.color for item in scene.objects]
        assert len(set(colors)) == len(colors)
        assert [i for i, color in enumerate(colors) if color == ACTOR_COLOR] == [0]
        assert [item.motion == "actor" for item in scene.objects] == [True] + [False] * (len(colors) - 1)


def test_every_count_shape_and_motion_occurs() -> None:
    assert {len(scene.objects) for scene in SCENES} == set(range(2, MAX_OBJECTS + 1))
    items = [item for scene in SCENES for item in scene.objects]
    assert {item.shape for item in items} == set(SHAPES)
    assert {item.motion for item in items} == {"actor", "rests", "rolls", "slides"}


def test_objects_start_apart_and_inside() -> None:
    for scene in SCENES:
        places = np.array([item.position[:2] for item in scene.objects])
        assert np.hypot(*places.T).max() < ARENA_RADIUS - 0.3
        gaps = np.linalg.norm(places[:, None] - places[None], axis=-1) + 9 * np.eye(len(places))
        assert gaps.min() > 0.75


def test_a_rolling_object_touches_the_floor_without_slipping() -> None:
    rolling = [item for scene in SCENES for item in scene.objects if item.motion == "rolls"]
    for item in rolling:
        at_floor = np.cross(item.angular_velocity, [0, 0, -item.position[2]]) + np.array(item.velocity)
        assert np.abs(at_floor).max() < 1e-9


@pytest.mark.parametrize("floor", ["plain", "tiled", "round"])
def test_floors_are_soft_and_brighter_towards_positive_x(floor: str) -> None:
    scene = next(scene for scene in SCENES if scene.floor == floor)
    picture = floor_texture(scene, 128).astype(float).mean(axis=-1)
    metre = 128 / (2 * FLOOR_HALF)
    middle, reach = 64, int(3 * metre)
    assert picture[:, middle : middle + reach].mean() > picture[:, middle - reach : middle].mean() + 5
    spectrum = np.abs(np.fft.fft2(picture - picture.mean())) ** 2
    low = np.minimum(np.arange(128), 128 - np.arange(128)) <= 16
    assert spectrum[np.ix_(low, low)].sum() / spectrum.sum() > 0.95
