import itertools

import numpy as np

from wfm.simulation.config import SimulationConfig
from wfm.simulation.session import Session, _generator, plan_session

CONFIG = SimulationConfig()


def same(a: Session, b: Session) -> bool:
    return a.views == b.views and all(
        x.kind == y.kind and x.scene == y.scene and np.array_equal(x.commands.actions, y.commands.actions)
        for x, y in zip(a.shots, b.shots, strict=True)
    )


def test_a_session_depends_on_seed_and_index_alone() -> None:
    assert same(plan_session(CONFIG, 3), plan_session(CONFIG, 3))
    assert same(plan_session(CONFIG, 3), plan_session(CONFIG.override(["sessions=400", "workers=9"]), 3))
    assert not same(plan_session(CONFIG, 3), plan_session(CONFIG.override(["seed=1"]), 3))
    assert not same(plan_session(CONFIG, 3), plan_session(CONFIG, 9))


def test_a_seed_of_more_than_32_bits_makes_sessions_of_its_own() -> None:
    # Before: session 0 of the larger seed was drawn as session 1 of seed 7.
    drawn = [_generator(seed, index).random() for seed, index in ((7, 0), (7, 1), (7 + 2**32, 0), (7 + 2**32, 1))]
    assert len(set(drawn)) == 4
    assert drawn[1] == np.random.default_rng([7, 1]).random()
    assert np.random.default_rng([7 + 2**32, 0]).random() == drawn[1]


def test_six_sessions_hold_every_kind_of_copy_and_junk() -> None:
    sessions = [plan_session(CONFIG, i) for i in range(6)]
    kinds = [shot.kind for session in sessions for shot in session.shots]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"world": 24, "text": 1, "frozen": 1, "black": 1}
    assert sum(session.exact_duplicate_of is not None for session in sessions) == 1
    assert sum(session.reencoded_duplicate_of is not None for session in sessions) == 1
    assert sum(session.has_static_video for session in sessions) == 1


def test_zero_means_never() -> None:
    names = ("exact_duplicate", "reencoded_duplicate", "static_video", "frozen_shot", "black_shot", "text_shot")
    clean = CONFIG.override([f"{name}_every=0" for name in names])
    for i in range(6):
        session = plan_session(clean, i)
        assert {shot.kind for shot in session.shots} == {"world"}
        assert (session.exact_duplicate_of, session.reencoded_duplicate_of, session.has_static_video) == (
            None,
            None,
            False,
        )


def test_neighbouring_shots_stand_on_different_floors() -> None:
    for i in range(12):
        tones = [shot.scene.floor_tone for shot in plan_session(CONFIG, i).shots]
        assert all(a != b for a, b in itertools.pairwise(tones))


def test_lengths_and_shares_follow_the_config() -> None:
    shots = [shot for i in range(40) for shot in plan_session(CONFIG, i).shots]
    world = [shot for shot in shots if shot.kind == "world"]
    low, high = (seconds * CONFIG.fps for seconds in CONFIG.seconds_per_shot)
    assert all(low - 1 <= shot.num_frames <= high + 1 for shot in world)
    assert len({shot.num_frames for shot in world}) > 10
    static = np.mean([shot.commands.camera == "static" for shot in world])
    assert abs(static - CONFIG.static_camera_share) < 0.03
    only_static = plan_session(CONFIG.override(["static_camera_share=1", "constant_rate_share=0"]), 0)
    assert all(shot.commands.camera == "static" for shot in only_static.shots)


def test_nothing_moves_in_frozen_and_black_shots() -> None:
    still = [s for i in range(6) for s in plan_session(CONFIG, i).shots if s.kind in ("frozen", "black")]
    assert len(still) == 2
    for shot in still:
        assert not shot.commands.actions.any()
        assert np.ptp(shot.commands.azimuth) == 0
