import numpy as np

from wfm.simulation.camera import FOV_Y_DEGREES, LOOK_AT, View, draw_views, pose_at, project

VIEW = View(index=0, azimuth_offset=30.0, elevation_offset=5.0, distance=5.0)


def test_a_pose_is_a_rotation_that_looks_at_the_centre() -> None:
    pose = pose_at(VIEW, 17.0, 33.0)
    np.testing.assert_allclose(pose.rotation.T @ pose.rotation, np.eye(3), atol=1e-12)
    assert np.linalg.det(pose.rotation) > 0
    towards = (np.array(LOOK_AT) - pose.position) / VIEW.distance
    np.testing.assert_allclose(-pose.rotation[:, 2], towards, atol=1e-12)
    assert pose.rotation[2, 1] > 0  # up is up
    assert abs(pose.rotation[2, 0]) < 1e-12  # the horizon is level


def test_azimuth_and_elevation_are_where_they_say() -> None:
    away = pose_at(VIEW, 60.0, 25.0).position - np.array(LOOK_AT)
    assert np.degrees(np.arctan2(away[1], away[0])) - 90.0 < 1e-9
    np.testing.assert_allclose(np.degrees(np.arcsin(away[2] / 5.0)), 30.0)


def test_projection_of_known_points() -> None:
    pose = pose_at(VIEW, 0.0, 20.0)
    edge = VIEW.distance * np.tan(np.radians(FOV_Y_DEGREES) / 2)
    centre = np.array(LOOK_AT)
    points = np.stack(
        [
            centre,
            centre + edge * pose.rotation[:, 0],
            centre + edge * pose.rotation[:, 1],
            pose.position + pose.rotation[:, 2],
        ]
    )
    found = project(pose, points)
    np.testing.assert_allclose(found[:3], [[0.5, 0.5], [1.0, 0.5], [0.5, 0.0]], atol=1e-12)
    assert np.isnan(found[3]).all()  # behind the camera


def test_views_stand_apart() -> None:
    for seed in range(20):
        for count in (2, 3):
            angles = np.radians([view.azimuth_offset for view in draw_views(np.random.default_rng(seed), count)])
            apart = np.degrees(np.abs(np.angle(np.exp(1j * (angles[:, None] - angles[None])))))
            assert (apart + 999 * np.eye(count)).min() > 20
