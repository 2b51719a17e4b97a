from dataclasses import replace

import numpy as np
import pytest

from wfm.simulation.camera import View, pose_at, project
from wfm.simulation.config import SimulationConfig
from wfm.simulation.render import Renderer, renderer_for
from wfm.simulation.scene import COLORS, Scene
from wfm.simulation.session import plan_session

CONFIG = SimulationConfig(size=96)
VIEW = View(index=0, azimuth_offset=0.0, elevation_offset=0.0, distance=5.5)
SCENES = [shot.scene for index in range(3) for shot in plan_session(CONFIG, index).shots if shot.kind == "world"]


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return renderer_for(CONFIG.size, CONFIG.fps)


def draw(
    renderer: Renderer, scene: Scene, azimuth: float = 0.0, elevation: float = 35.0
) -> tuple[np.ndarray, np.ndarray]:
    renderer.world.load(scene)
    renderer.load(scene)
    renderer.update()
    return renderer.frame(pose_at(VIEW, azimuth, elevation))


def painted(picture: np.ndarray, color: str) -> np.ndarray:
    """Mask of pixels whose hue is that of ``color``: objects are saturated, floors are pale."""
    unit = np.array(COLORS[color]) / np.linalg.norm(COLORS[color])
    values = picture.astype(float)
    return values @ unit > 0.97 * np.linalg.norm(values, axis=-1).clip(1)


@pytest.mark.parametrize("azimuth", [0.0, 100.0, 230.0])
def test_objects_are_drawn_where_projection_says(renderer: Renderer, azimuth: float) -> None:
    for scene in SCENES:
        for item in scene.objects:  # one at a time: none hides another
            alone = replace(scene, objects=(item,))
            picture, visible = draw(renderer, alone, azimuth)
            x, y = project(pose_at(VIEW, azimuth, 35.0), renderer.world.positions())[0] * CONFIG.size
            rows, columns = np.nonzero(painted(picture, item.color))
            assert visible[0] > 100
            assert abs(columns.mean() - x) < 3
            assert abs(rows.mean() - y) < 3


def test_visible_pixels_are_the_pixels_of_that_colour(renderer: Renderer) -> None:
    for scene in SCENES:
        picture, visible = draw(renderer, scene)
        for i, item in enumerate(scene.objects):
            assert painted(picture, item.color).sum() == pytest.approx(visible[i], rel=0.12, abs=12)
        assert not visible[len(scene.objects) :].any()


def test_a_hidden_object_has_no_pixels(renderer: Renderer) -> None:
    small, large = SCENES[0].objects[:2]
    front = replace(
        large, shape="box", dimensions=(0.9, 0.9, 0.9), position=(1.3, 0.0, 0.9), quaternion=(1.0, 0.0, 0.0, 0.0)
    )
    behind = replace(small, shape="sphere", dimensions=(0.3, 0.0, 0.0), position=(-0.6, 0.0, 0.3))
    _, visible = draw(renderer, replace(SCENES[0], objects=(behind, front)), elevation=5.0)
    assert visible[0] == 0
    assert visible[1] > 500


def test_pictures_do_not_depend_on_what_was_drawn_before(renderer: Renderer) -> None:
    first, _ = draw(renderer, SCENES[0])
    for scene in SCENES[1:]:
        assert not np.array_equal(draw(renderer, scene)[0], first)
    assert np.array_equal(draw(renderer, SCENES[0])[0], first)


def test_the_camera_turns_the_picture_about_the_centre(renderer: Renderer) -> None:
    scene = replace(SCENES[0], objects=SCENES[0].objects[:1])
    scene = replace(scene, objects=(replace(scene.objects[0], position=(0.0, 1.2, scene.objects[0].position[2])),))
    # Seen from +x, +y lies to the right; seen from -x, to the left.
    for azimuth, right in ((0.0, True), (180.0, False)):
        columns = np.nonzero(painted(draw(renderer, scene, azimuth)[0], scene.objects[0].color))[1]
        assert (columns.mean() > CONFIG.size / 2) == right


def test_floor_and_walls_tell_the_way_to_positive_x(renderer: Renderer) -> None:
    for scene in SCENES:
        towards, away = (draw(renderer, scene, azimuth, 20.0)[0].astype(float) for azimuth in (180.0, 0.0))
        assert towards[:8].mean() > away[:8].mean() + 15  # the wall on the far side


def test_one_renderer_serves_a_process(renderer: Renderer) -> None:
    assert renderer_for(CONFIG.size, CONFIG.fps) is renderer
