"""The three sidecars of a simulated video: actions (an input), attributes (for captions), truth (for evaluation only)."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from wfm.simulation.actions import action_spec
from wfm.simulation.camera import FOV_Y_DEGREES, View, pose_at, project
from wfm.simulation.config import SimulationConfig
from wfm.simulation.scene import COLORS
from wfm.simulation.session import Session, Shot
from wfm.simulation.write import SCHEMA_VERSION, write_json, write_table

ACTION_SCHEMA = pa.schema(
    [
        ("pts_seconds", pa.float64()),
        ("action", pa.list_(pa.float32())),
        ("camera_position", pa.list_(pa.float64())),
        ("camera_rotation", pa.list_(pa.float64())),
        ("fov_y_degrees", pa.float64()),
    ]
)
_OBJECT = pa.struct(
    [
        ("name", pa.string()),
        ("color", pa.string()),
        ("rgb", pa.list_(pa.int64())),
        ("position", pa.list_(pa.float64())),
        ("pixel", pa.list_(pa.float64())),
        ("visible_pixels", pa.int64()),
        ("radius", pa.float64()),
    ]
)
TRUTH_SCHEMA = pa.schema(
    [
        ("pts_seconds", pa.float64()),
        ("shot", pa.int64()),
        ("orbit_rate", pa.float64()),
        ("camera_yaw_degrees", pa.float64()),
        ("objects", pa.list_(_OBJECT)),
    ]
)


class Sidecars:
    """Rows of one view's video, collected frame by frame."""

    def __init__(self, config: SimulationConfig, session: Session, view: View) -> None:
        self.config, self.session, self.view = config, session, view
        self._actions: list[dict[str, Any]] = []
        self._truth: list[dict[str, Any]] = []

    def add(self, number: int, shot: Shot, k: int, positions: np.ndarray, visible: np.ndarray) -> None:
        """Frame ``k`` of shot ``number``: centres [N, 3] (metres) and visible pixels of each slot. A black shot has none."""
        commands = shot.commands
        pts = len(self._actions) / self.config.fps
        pose = pose_at(self.view, commands.azimuth[k], commands.elevation[k])
        self._actions.append(
            {
                "pts_seconds": pts,
                "action": commands.actions[k].astype(np.float32),
                "camera_position": pose.position,
                "camera_rotation": pose.rotation.reshape(-1),
                "fov_y_degrees": FOV_Y_DEGREES,
            }
        )
        pixels = project(pose, positions) if len(positions) else np.zeros((0, 2))
        objects = [
            {
                "name": item.name,
                "color": item.color,
                "rgb": list(COLORS[item.color]),
                "position": positions[i],
                "pixel": pixels[i],
                "visible_pixels": int(visible[i]),
                "radius": item.radius,
            }
            for i, item in enumerate(shot.scene.objects[: len(positions)])
        ]
        self._truth.append(
            {
                "pts_seconds": pts,
                "shot": number,
                "orbit_rate": float(commands.actions[k, 0]),
                "camera_yaw_degrees": float(commands.azimuth[k] + self.view.azimuth_offset),
                "objects": objects,
            }
        )

    def write(self, out: Path, name: str) -> None:
        """``actions/``, ``attributes/`` and ``truth/`` of video ``name`` under ``out``."""
        identity = {"schema_version": SCHEMA_VERSION, "session_id": self.session.name, "view": self.view.index}
        spec = action_spec(self.config).resolved()
        write_table(
            out / "actions" / f"{name}.parquet",
            pa.Table.from_pylist(self._actions, schema=ACTION_SCHEMA),
            {**identity, "action_spec": spec, "camera_axes": "x right, y up, looking along -z; world from camera"},
        )
        write_table(
            out / "truth" / f"{name}.parquet",
            pa.Table.from_pylist(self._truth, schema=TRUTH_SCHEMA),
            {**identity, "visible_pixels": "counted in a segmentation render of every frame"},
        )
        write_json(out / "attributes" / f"{name}.json", {**identity, "shots": self._attributes()})

    def _attributes(self) -> list[dict[str, Any]]:
        return [
            {
                "start_seconds": start,
                "end_seconds": end,
                "objects": []
                if shot.kind == "black"
                else [
                    {"color": item.color, "shape": item.shape, "size": item.size, "motion": motion_words(shot, i)}
                    for i, item in enumerate(shot.scene.objects)
                ],
                "camera": camera_words(shot),
                "background": "black" if shot.kind == "black" else shot.scene.background,
            }
            for shot, (start, end) in zip(self.session.shots, shot_times(self.session, self.config.fps), strict=True)
        ]


def shot_times(session: Session, fps: int) -> list[tuple[float, float]]:
    """Start and end of each shot [s]; the next shot's first frame stands at the end."""
    edges = np.concatenate([[0], np.cumsum([shot.num_frames for shot in session.shots])]) / fps
    return [(float(a), float(b)) for a, b in pairwise(edges)]


def motion_words(shot: Shot, index: int) -> str:
    """``is driven around``, ``rests``, ``rolls``, ``slides``."""
    if shot.kind == "frozen":
        return "rests"
    if index == 0:
        return "is driven around" if np.abs(shot.commands.actions[:, 2:]).any() else "rests"
    return shot.scene.objects[index].motion


def camera_words(shot: Shot) -> str:
    """The camera's way in words, such as ``orbits left at a steady rate``."""
    rates = shot.commands.actions[:, 0]
    tilts = bool(shot.commands.actions[:, 1].any())
    if not rates.any():
        return "tilts only" if tilts else "is static"
    if shot.commands.camera == "constant":
        # Moving against the clock seen from above, the camera goes to its own right.
        speed = "fast" if abs(rates[0]) > 40 else "slowly"
        words = f"orbits {speed} to the {'right' if rates[0] > 0 else 'left'}"
    else:
        words = "orbits and changes its speed"
    return words + (" while tilting" if tilts else "")
