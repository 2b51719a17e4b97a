"""A camera path from a user's file, as the camera actions of a model's action spec.

Two kinds of file are told apart by their columns:

- **rates**: only the camera's columns of the spec (``camera_orbit_rate [deg/s]``, ...), one row per frame;
- **poses**: ``camera_position`` (list of 3) and ``camera_rotation`` (list of 9, world from camera, row major, looking
  along -z with y up), or flat columns ``position_x, position_y, position_z`` and ``rotation_0 .. rotation_8``; metres,
  world z up; one row per frame.

Poses are read as an orbit: the centre is the point nearest to all viewing rays, azimuth and elevation are the angles
of the camera as seen from it, and the rates are their differences times the model's frame rate. What is not the
camera's (an actor's velocity) is zero.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from wfm.actions import ActionSpec
from wfm.errors import DataError, InputError
from wfm.generation.action_files import BOOKKEEPING, Columns, as_rows, check_names, check_units_and_rate, read_columns

POSITION = ("position_x", "position_y", "position_z")
ROTATION = tuple(f"rotation_{i}" for i in range(9))


def read_camera(path: Path, spec: ActionSpec) -> np.ndarray:
    """The file as actions float32 ``[rows, A]`` in the units of ``spec``; components that are not the camera's are
    zero.

    Raises InputError for a model without camera actions, for foreign columns and units, and for a camera action that
    poses cannot give.
    """
    require_camera(path, spec)
    return camera_of(read_columns(path), spec, path)


def require_camera(source: Path | str, spec: ActionSpec) -> tuple[str, ...]:
    """The camera's names in the spec. Raises InputError for a model without camera actions."""
    camera = tuple(name for name in spec.names if name.startswith("camera_"))
    if not camera:
        raise InputError(
            f"{source}: this model has no camera actions (its actions: {', '.join(spec.names) or 'none'}); leave it out"
        )
    return camera


def camera_of(columns: Columns, spec: ActionSpec, path: Path | str) -> np.ndarray:
    """The same of a table that was read; ``path``: what errors call it."""
    camera = require_camera(path, spec)
    check_units_and_rate(path, spec, columns)
    poses = _poses(columns)
    if poses is not None:
        rates = rates_from_poses(*poses, rate_hz=spec.rate_hz)
        for name, unit in zip(spec.names, spec.units, strict=True):
            if name in camera and (name not in rates or unit != "deg/s"):
                raise InputError(
                    f"{path}: poses give {', '.join(sorted(rates))} in deg/s, the model wants {name} [{unit}]: give rates"
                )
        values = {name: rates[name] for name in camera}
    else:
        check_names(path, spec, set(columns.values) - set(BOOKKEEPING), wanted=camera)
        values = {name: columns.values[name] for name in camera}
    rows = len(next(iter(values.values())))
    return as_rows(np.stack([values.get(name, np.zeros(rows)) for name in spec.names], axis=-1), path, spec)


def rates_from_poses(positions: np.ndarray, rotations: np.ndarray, *, rate_hz: float) -> dict[str, np.ndarray]:
    """positions ``[N, 3]`` [m], rotations ``[N, 3, 3]`` (world from camera) -> orbit and elevation rates ``[N]``
    [deg/s].

    Row t is the motion from pose t to t + 1; the last row repeats the one before. Raises DataError for fewer than 2
    poses, for matrices that are not rotations, and for viewing rays that never come together (a camera that does not
    look at one place does not orbit).
    """
    if len(positions) < 2:
        raise DataError(f"{len(positions)} camera pose: at least 2 are needed to tell a motion")
    wrong = np.abs(rotations @ rotations.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2)) > 1e-3
    if wrong.any() or (np.linalg.det(rotations) < 0).any():
        raise DataError(
            f"camera_rotation of row {int(np.argmax(wrong))} is not a rotation matrix (world from camera, row major)"
        )
    offset = positions - orbit_centre(positions, -rotations[:, :, 2])
    azimuth = np.unwrap(np.arctan2(offset[:, 1], offset[:, 0]))
    elevation = np.arctan2(offset[:, 2], np.hypot(offset[:, 0], offset[:, 1]))

    def rate(angle: np.ndarray) -> np.ndarray:
        steps = np.degrees(np.diff(angle)) * rate_hz
        return np.append(steps, steps[-1])

    return {"camera_orbit_rate": rate(azimuth), "camera_elevation_rate": rate(elevation)}


def orbit_centre(positions: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """The point ``[3]`` with the least sum of squared distances to the rays from ``positions [N, 3]`` along
    ``directions [N, 3]``.

    Parallel rays (a camera at rest) leave the distance along them open; then the point on the ray at the height z = 0
    is taken.
    """
    across = np.eye(3) - directions[:, :, None] * directions[:, None, :]  # removes what lies along a ray
    total = across.sum(axis=0)
    if np.linalg.svd(total, compute_uv=False)[-1] < 1e-6 * len(positions):
        position, direction = positions.mean(axis=0), directions[0]
        if abs(direction[2]) < 1e-6:
            raise DataError(
                "the camera looks level in one direction only: no centre of an orbit can be told; give rates instead"
            )
        return position - direction * position[2] / direction[2]
    return np.linalg.solve(total, np.einsum("nij,nj->i", across, positions))


def _poses(columns: Columns) -> tuple[np.ndarray, np.ndarray] | None:
    """Positions ``[N, 3]`` and rotations ``[N, 3, 3]`` if the file holds poses."""
    values = columns.values
    shape: Callable[[str, int], bool] = lambda name, width: values[name].shape[1:] == (width,)  # noqa: E731
    if {"camera_position", "camera_rotation"} <= set(values):
        if not (shape("camera_position", 3) and shape("camera_rotation", 9)):
            raise DataError("camera_position must hold 3 and camera_rotation 9 numbers in each row")
        return values["camera_position"], values["camera_rotation"].reshape(-1, 3, 3)
    if set(POSITION + ROTATION) <= set(values):
        positions = np.stack([values[name] for name in POSITION], axis=-1)
        return positions, np.stack([values[name] for name in ROTATION], axis=-1).reshape(-1, 3, 3)
    return None
