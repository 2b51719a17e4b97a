"""The camera: it orbits the arena's centre and looks at it. Plain geometry, no renderer.

Camera axes are those of OpenGL and MuJoCo: x to the right, y up, looking along -z. A rotation turns camera coordinates
into world coordinates; its columns are the camera's axes in the world.
"""

from dataclasses import dataclass

import numpy as np

FOV_Y_DEGREES = 45.0
LOOK_AT = (0.0, 0.0, 0.3)
"""What the camera looks at [m]."""


@dataclass(frozen=True)
class View:
    """Where one camera of a session sits relative to the session's orbit."""

    index: int
    azimuth_offset: float
    "Degrees about z, against the clock seen from above."
    elevation_offset: float
    "Degrees above the base elevation."
    distance: float
    "Metres to what it looks at."


@dataclass(frozen=True)
class Pose:
    """Position [3] in metres and rotation [3, 3], world from camera."""

    position: np.ndarray
    rotation: np.ndarray


def draw_views(rng: np.random.Generator, count: int) -> tuple[View, ...]:
    """The views of a session, well apart from each other in azimuth."""
    first = float(rng.uniform(0, 360))
    gap = 360.0 / max(count, 2)
    return tuple(
        View(
            index=i,
            azimuth_offset=(first + i * gap * float(rng.uniform(0.6, 0.9))) % 360.0,
            elevation_offset=float(rng.uniform(-4, 6)),
            distance=float(rng.uniform(5.4, 6.0)),
        )
        for i in range(count)
    )


def pose_at(view: View, azimuth: float, elevation: float) -> Pose:
    """Where the camera of ``view`` is when the base orbit stands at ``azimuth`` and ``elevation`` [deg]."""
    turn, tilt = np.radians(azimuth + view.azimuth_offset), np.radians(elevation + view.elevation_offset)
    outward = np.array([np.cos(tilt) * np.cos(turn), np.cos(tilt) * np.sin(turn), np.sin(tilt)])
    right = np.array([-np.sin(turn), np.cos(turn), 0.0])
    rotation = np.stack([right, np.cross(outward, right), outward], axis=1)
    return Pose(np.asarray(LOOK_AT) + view.distance * outward, rotation)


def project(pose: Pose, points: np.ndarray) -> np.ndarray:
    """World points [N, 3] -> picture coordinates [N, 2] of a square picture, x and y in 0..1 from the top left corner.

    A point behind the camera gives NaN.
    """
    local = (np.asarray(points, dtype=np.float64) - pose.position) @ pose.rotation
    depth = np.where(local[:, 2] < 0, -local[:, 2], np.nan)
    reach = depth * np.tan(np.radians(FOV_Y_DEGREES) / 2)
    return np.stack([0.5 + 0.5 * local[:, 0] / reach, 0.5 - 0.5 * local[:, 1] / reach], axis=1)
