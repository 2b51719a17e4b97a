from dataclasses import replace

import numpy as np
import pytest

from wfm.simulation.config import SimulationConfig
from wfm.simulation.scene import ARENA_RADIUS
from wfm.simulation.session import Shot, plan_session
from wfm.simulation.world import World

CONFIG = SimulationConfig()


@pytest.fixture(scope="module")
def world() -> World:
    return World(64, CONFIG.fps)


def play(world: World, shot: Shot) -> np.ndarray:
    """Centres [T, N, 3] over a shot."""
    world.load(shot.scene)
    places = [world.positions()]
    for k in range(1, shot.num_frames):
        world.advance(shot.commands.actions[k - 1, 2:], shot.commands.actor[k])
        places.append(world.positions())
    return np.array(places)


def test_the_actor_goes_where_it_is_told(world: World) -> None:
    for index in range(4):  # every shape of actor, lying ones too
        for shot in plan_session(CONFIG, index).shots:
            path = play(world, shot)[:, 0]
            np.testing.assert_allclose(path[:, :2], shot.commands.actor, atol=1e-12)
            np.testing.assert_allclose(path[:, 2], shot.scene.objects[0].position[2], atol=1e-12)


def test_a_scene_leaves_nothing_behind(world: World) -> None:
    shots = plan_session(CONFIG, 0).shots
    first = play(world, shots[0])
    for other in shots[1:]:
        play(world, other)
    assert np.array_equal(first, play(world, shots[0]))
    assert np.array_equal(first, play(World(64, CONFIG.fps), shots[0]))


def test_motion_is_calm_and_stays_in_the_arena(world: World) -> None:
    for index in range(10):
        for shot in plan_session(CONFIG, index).shots:
            path = play(world, shot)
            assert np.hypot(path[..., 0], path[..., 1]).max() < ARENA_RADIUS
            assert path[..., 2].min() > 0.2
            assert path[..., 2].max() < 1.2
            assert np.linalg.norm(np.diff(path, axis=0), axis=-1).max() * CONFIG.fps < 4.0


def test_rolling_and_sliding_objects_move_and_resting_ones_do_not_until_pushed(world: World) -> None:
    moved: dict[str, list[float]] = {"rests": [], "rolls": [], "slides": []}
    for index in range(10):
        for shot in plan_session(CONFIG, index).shots:
            path = play(world, shot)
            for i, item in enumerate(shot.scene.objects[1:], start=1):
                moved[item.motion].append(float(np.linalg.norm(path[6, i, :2] - path[0, i, :2])))
    assert min(np.median(moved["rolls"]), np.median(moved["slides"])) > 0.1
    assert np.median(moved["rests"]) < 0.01


def test_the_actor_pushes_what_is_in_its_way(world: World) -> None:
    shot = next(
        shot
        for index in range(20)
        for shot in plan_session(CONFIG, index).shots
        if len(shot.scene.objects) == 2 and shot.scene.objects[1].motion == "rests"
    )
    actor, other = shot.scene.objects
    scene = replace(
        shot.scene,
        objects=(
            replace(actor, position=(0.0, 0.0, actor.position[2])),
            replace(other, position=(1.2, 0.0, other.position[2])),
        ),
    )
    world.load(scene)
    for k in range(1, 25):
        world.advance(np.array([0.7, 0.0]), np.array([0.7 * k / CONFIG.fps, 0.0]))
    pushed = world.positions()
    assert pushed[1, 0] > 1.3
    assert pushed[0, 0] == pytest.approx(0.7)


def test_an_empty_slot_touches_nothing(world: World) -> None:
    shots = [shot for index in range(8) for shot in plan_session(CONFIG, index).shots]
    four = next(shot for shot in shots if len(shot.scene.objects) == 4)
    two = next(shot for shot in shots if len(shot.scene.objects) == 2)
    play(world, four)
    world.load(two.scene)
    for geom in world.geoms[2:]:
        assert world.model.geom_contype[geom] == world.model.geom_conaffinity[geom] == 0
        assert world.model.geom_rgba[geom, 3] == 0
