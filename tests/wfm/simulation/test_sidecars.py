import itertools
from dataclasses import replace

import numpy as np

from wfm.simulation.config import SimulationConfig
from wfm.simulation.session import Shot, plan_session
from wfm.simulation.sidecars import camera_words, motion_words, shot_times

CONFIG = SimulationConfig()


def with_rates(orbit: list[float], camera: str, tilt: float = 0.0) -> Shot:
    shot = plan_session(CONFIG, 0).shots[0]
    actions = np.zeros((len(orbit), 4))
    actions[:, 0], actions[:, 1] = orbit, tilt
    return replace(shot, commands=replace(shot.commands, camera=camera, actions=actions))


def test_the_camera_is_told_by_its_rate() -> None:
    assert camera_words(with_rates([0, 0], "static")) == "is static"
    assert camera_words(with_rates([55, 55], "constant")) == "orbits fast to the right"
    assert camera_words(with_rates([-25, -25], "constant", tilt=3.0)) == "orbits slowly to the left while tilting"
    assert camera_words(with_rates([25, -25], "changing")) == "orbits and changes its speed"


def test_motion_words_follow_the_shot() -> None:
    shot = plan_session(CONFIG, 0).shots[0]
    still = replace(shot, commands=replace(shot.commands, actions=np.zeros((4, 4))))
    assert motion_words(replace(shot, kind="frozen"), 1) == "rests"
    assert motion_words(still, 0) == "rests"
    assert motion_words(shot, 1) == shot.scene.objects[1].motion


def test_shots_follow_each_other_without_a_gap() -> None:
    session = plan_session(CONFIG, 1)
    times = shot_times(session, CONFIG.fps)
    assert times[0][0] == 0.0
    assert all(a[1] == b[0] for a, b in itertools.pairwise(times))
    assert times[-1][1] * CONFIG.fps == sum(shot.num_frames for shot in session.shots)
