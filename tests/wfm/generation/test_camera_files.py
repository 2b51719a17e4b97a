import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wfm.actions import ActionSpec
from wfm.errors import DataError, InputError
from wfm.generation.camera_files import orbit_centre, rates_from_poses, read_camera

SPEC = ActionSpec(
    names=("camera_orbit_rate", "camera_elevation_rate", "actor_velocity_x"),
    units=("deg/s", "deg/s", "m/s"),
    frame="camera",
    rate_hz=24.0,
    mean=(0, 0, 0),
    scale=(30, 5, 1),
)
CENTRE = np.array([0.4, -0.2, 0.3])


def orbit(azimuth: np.ndarray, elevation: np.ndarray, distance: float = 5.5) -> tuple[np.ndarray, np.ndarray]:
    """Poses of a camera on a sphere about CENTRE that looks at it (x right, y up, looking along -z)."""
    turn, tilt = np.radians(azimuth), np.radians(elevation)
    outward = np.stack([np.cos(tilt) * np.cos(turn), np.cos(tilt) * np.sin(turn), np.sin(tilt)], axis=-1)
    right = np.stack([-np.sin(turn), np.cos(turn), np.zeros_like(turn)], axis=-1)
    return CENTRE + distance * outward, np.stack([right, np.cross(outward, right), outward], axis=-1)


AZIMUTH = 170 + np.cumsum(np.full(24, 40 / 24))  # crosses 180 degrees
ELEVATION = 30 + np.cumsum(np.full(24, -4 / 24))


def test_rates_of_an_orbit_are_found_again() -> None:
    rates = rates_from_poses(*orbit(AZIMUTH, ELEVATION), rate_hz=24.0)
    assert np.allclose(rates["camera_orbit_rate"], 40.0, atol=1e-6)
    assert np.allclose(rates["camera_elevation_rate"], -4.0, atol=1e-6)


def test_the_centre_is_where_the_rays_meet() -> None:
    positions, rotations = orbit(AZIMUTH, ELEVATION)
    assert np.allclose(orbit_centre(positions, -rotations[:, :, 2]), CENTRE, atol=1e-6)


def test_a_camera_at_rest_has_no_rate() -> None:
    rates = rates_from_poses(*orbit(np.full(5, 20.0), np.full(5, 30.0)), rate_hz=24.0)
    assert np.allclose(rates["camera_orbit_rate"], 0)
    assert np.allclose(rates["camera_elevation_rate"], 0)


def test_pose_files(tmp_path) -> None:
    positions, rotations = orbit(AZIMUTH, ELEVATION)
    table = pa.table({"camera_position": positions.tolist(), "camera_rotation": rotations.reshape(-1, 9).tolist()})
    pq.write_table(table, tmp_path / "poses.parquet")
    flat = {f"position_{axis}": positions[:, i].tolist() for i, axis in enumerate("xyz")}
    flat |= {f"rotation_{i}": rotations.reshape(-1, 9)[:, i].tolist() for i in range(9)}
    (tmp_path / "poses.json").write_text(json.dumps(flat))
    for name in ("poses.parquet", "poses.json"):
        actions = read_camera(tmp_path / name, SPEC)
        assert actions.shape == (24, 3)
        assert actions.dtype == np.float32
        assert np.allclose(actions, [40.0, -4.0, 0.0], atol=1e-4)


def test_rate_files_hold_the_camera_alone(tmp_path) -> None:
    path = tmp_path / "rates.csv"
    path.write_text("camera_orbit_rate [deg/s],camera_elevation_rate\n30,1\n-30,2\n")
    assert np.array_equal(read_camera(path, SPEC), np.array([[30, 1, 0], [-30, 2, 0]], np.float32))
    path.write_text("camera_orbit_rate,camera_elevation_rate,actor_velocity_x\n30,1,1\n")
    with pytest.raises(InputError, match="does not know: actor_velocity_x"):
        read_camera(path, SPEC)
    path.write_text("camera_orbit_rate\n30\n")
    with pytest.raises(InputError, match=r"lacks camera_elevation_rate \[deg/s\]"):
        read_camera(path, SPEC)


def test_models_that_poses_cannot_serve_are_refused(tmp_path) -> None:
    positions, rotations = orbit(AZIMUTH, ELEVATION)
    table = pa.table({"camera_position": positions.tolist(), "camera_rotation": rotations.reshape(-1, 9).tolist()})
    pq.write_table(table, tmp_path / "poses.parquet")
    zoom = ActionSpec(names=("camera_zoom_rate",), units=("1/s",), frame="camera", mean=(0,), scale=(1,))
    with pytest.raises(InputError, match="wants camera_zoom_rate"):
        read_camera(tmp_path / "poses.parquet", zoom)
    arm = ActionSpec(names=("gripper",), units=("m",), frame="arm", mean=(0,), scale=(1,))
    with pytest.raises(InputError, match="no camera actions"):
        read_camera(tmp_path / "poses.parquet", arm)


def test_what_is_no_rotation_or_no_motion_is_refused() -> None:
    positions, rotations = orbit(AZIMUTH, ELEVATION)
    bent = rotations.copy()
    bent[3] *= 1.1
    with pytest.raises(DataError, match="row 3"):
        rates_from_poses(positions, bent, rate_hz=24.0)
    with pytest.raises(DataError, match="at least 2"):
        rates_from_poses(positions[:1], rotations[:1], rate_hz=24.0)
