"""The physics: one MuJoCo model for the life of a process, whose shapes, sizes and places change from scene to scene.

Building a model (and a renderer for it) costs more than a whole shot, so slots are reused: slot 0 is the actor on two slide
joints, the others are free bodies. What a scene leaves unused is transparent and touches nothing.
"""

from typing import Any

import numpy as np

from wfm.simulation.backend import load_mujoco
from wfm.simulation.scene import ARENA_RADIUS, COLORS, FLOOR_HALF, MAX_OBJECTS, Scene, SceneObject

TEXTURE_PIXELS = 256
_MASS = 1.0
_LONGEST_STEP = 1.0 / 240.0
_FASTEST, _FASTEST_RISE = 2.0, 0.3
"""Speed limit of free bodies, and that of going up [m/s]."""
_WALLS = {"+x": (1.3, 1.3, 1.25), "-x": (0.6, 0.6, 0.65), "+y": (1.2, 1.0, 0.75), "-y": (0.75, 1.0, 1.25)}
"""Walls of the room and the tint of each: the same in every world, so that a picture tells where +x is."""


def model_xml(size: int) -> str:
    """MJCF of the room with empty slots; ``size`` is the picture's side [pixels]."""
    fence = "".join(
        f'<geom type="plane" size="1 1 1" rgba="0 0 0 0" contype="1" conaffinity="0" priority="1" friction="0.02"'
        f' solref="-25 -1" solimp="0.9 0.9 0.001" pos="{-ARENA_RADIUS * np.cos(a):.6f} {-ARENA_RADIUS * np.sin(a):.6f} 0"'
        f' zaxis="{np.cos(a):.6f} {np.sin(a):.6f} 0"/>'
        for a in np.arange(8) * np.pi / 4
    )
    walls = ""
    for name in _WALLS:
        sign, along_x = (1 if name[0] == "+" else -1), name[1] == "x"
        place = f"{sign * FLOOR_HALF} 0 3" if along_x else f"0 {sign * FLOOR_HALF} 3"
        box = f"0.1 {FLOOR_HALF} 3" if along_x else f"{FLOOR_HALF} 0.1 3"
        walls += f'<geom name="wall{name}" type="box" pos="{place}" size="{box}" contype="0" conaffinity="0"/>'
    free = "".join(
        f'<body name="slot{i}" pos="0 0 1"><freejoint/><geom name="slot{i}" type="sphere" size="0.5" mass="1"/></body>'
        for i in range(1, MAX_OBJECTS)
    )
    return f"""<mujoco>
  <option integrator="implicitfast" cone="elliptic"><flag midphase="disable"/></option>
  <visual>
    <global offwidth="{size}" offheight="{size}" fovy="45"/>
    <quality offsamples="0" shadowsize="0" numslices="24" numstacks="16"/>
    <headlight ambient="0.5 0.5 0.5" diffuse="0.12 0.12 0.12" specular="0 0 0"/>
    <map znear="0.01" zfar="20"/>
  </visual>
  <asset>
    <texture name="floor" type="2d" builtin="flat" rgb1="1 1 1" width="{TEXTURE_PIXELS}" height="{TEXTURE_PIXELS}"/>
    <material name="floor" texture="floor" texrepeat="1 1" specular="0" shininess="0" reflectance="0"/>
    <material name="plain" specular="0.1" shininess="0.1" reflectance="0"/>
  </asset>
  <default><geom material="plain" condim="4"/></default>
  <worldbody>
    <light directional="true" castshadow="false" pos="3 2 6" dir="-0.55 -0.3 -0.8" diffuse="0.5 0.5 0.5" specular="0.1 0.1 0.1"
      ambient="0 0 0"/>
    <geom name="floor" type="plane" size="{FLOOR_HALF} {FLOOR_HALF} 1" material="floor" contype="1" conaffinity="0"
      friction="0.01 0.001 0.0001"/>
    {fence}{walls}
    <body name="slot0" pos="0 0 1"><joint type="slide" axis="1 0 0"/><joint type="slide" axis="0 1 0"/>
      <geom name="slot0" type="sphere" size="0.5" mass="1"/></body>
    {free}
  </worldbody>
</mujoco>"""


class World:
    """The room and its physics. ``load`` a scene, then ``advance`` frame by frame."""

    def __init__(self, size: int, fps: int) -> None:
        self.mujoco = load_mujoco()
        self.model = self.mujoco.MjModel.from_xml_string(model_xml(size))
        self.data = self.mujoco.MjData(self.model)
        self.substeps = max(1, int(np.ceil(1.0 / fps / _LONGEST_STEP)))
        self.model.opt.timestep = 1.0 / fps / self.substeps
        self.fps = fps
        self.scene: Scene | None = None
        self.geoms = [self.model.geom(f"slot{i}").id for i in range(MAX_OBJECTS)]
        self._bodies = [self.model.body(f"slot{i}").id for i in range(MAX_OBJECTS)]

    def load(self, scene: Scene) -> None:
        """Set the room to ``scene`` at rest time zero; nothing of an earlier scene remains."""
        self.scene = scene
        self.mujoco.mj_resetData(self.model, self.data)
        for name, tint in _WALLS.items():
            rgb = np.clip(np.array(scene.wall_rgb) * np.array(tint) / 255.0, 0, 1)
            self.model.geom(f"wall{name}").rgba = [*rgb, 1.0]
        for slot in range(MAX_OBJECTS):
            self._load_slot(slot, scene.objects[slot] if slot < len(scene.objects) else None)
        # setConst derives inverse weights from the new masses at qpos0; it leaves data at qpos0, so the state comes after.
        self.mujoco.mj_setConst(self.model, self.data)
        self.mujoco.mj_resetData(self.model, self.data)
        for slot, item in enumerate(scene.objects):
            self._place(slot, item)
        self.mujoco.mj_forward(self.model, self.data)

    def advance(self, velocity: np.ndarray, target: np.ndarray) -> None:
        """One frame on: the actor moves at ``velocity`` [2] (m/s, world) and stands at ``target`` [2] at its end."""
        for _ in range(self.substeps):
            # The actor is as strong as it needs to be: whatever it met in the last step does not slow it.
            self.data.qvel[:2] = velocity
            self.mujoco.mj_step(self.model, self.data)
            self._keep_calm()
        self.data.qpos[:2] = target
        self.data.qvel[:2] = velocity
        self.mujoco.mj_forward(self.model, self.data)

    def _keep_calm(self) -> None:
        """Hold free bodies to a speed limit: one that is squeezed between actor and fence must not shoot off."""
        assert self.scene is not None
        free = self.data.qvel[2:].reshape(-1, 6)[: len(self.scene.objects) - 1, :3]
        if np.abs(free).max() > _FASTEST_RISE:
            np.clip(free[:, 2], None, _FASTEST_RISE, out=free[:, 2])
            speed = np.sqrt((free * free).sum(axis=1, keepdims=True))
            free *= np.minimum(1.0, _FASTEST / np.maximum(speed, 1e-9))

    def positions(self) -> np.ndarray:
        """Centres of the scene's objects [N, 3], metres."""
        assert self.scene is not None
        return np.array(self.data.xpos[self._bodies[: len(self.scene.objects)]])

    def _load_slot(self, slot: int, item: SceneObject | None) -> None:
        model, geom, body = self.model, self.geoms[slot], self._bodies[slot]
        if item is None:
            model.geom_rgba[geom] = 0.0
            model.geom_contype[geom] = model.geom_conaffinity[geom] = 0
            return
        kinds: dict[str, Any] = {
            "box": self.mujoco.mjtGeom.mjGEOM_BOX,
            "sphere": self.mujoco.mjtGeom.mjGEOM_SPHERE,
            "cylinder": self.mujoco.mjtGeom.mjGEOM_CYLINDER,
            "capsule": self.mujoco.mjtGeom.mjGEOM_CAPSULE,
        }
        model.geom_type[geom] = int(kinds[item.shape])
        model.geom_size[geom] = item.dimensions
        model.geom_rbound[geom] = bounding_radius(item)
        model.geom_rgba[geom] = [*(np.array(COLORS[item.color]) / 255.0), 1.0]
        model.geom_friction[geom] = [item.friction, 0.005, 0.0005]
        # The actor (bit 4) meets objects only; objects (bit 2) meet floor and fence (bit 1), each other and the actor.
        actor = slot == 0
        model.geom_contype[geom], model.geom_conaffinity[geom] = (4, 0) if actor else (2, 1 | 2 | 4)
        model.body_mass[body] = 50.0 * _MASS if actor else _MASS
        model.body_inertia[body] = inertia(item) * (50.0 if actor else 1.0)
        if actor:
            model.body_pos[body] = [0.0, 0.0, item.position[2]]
            model.body_quat[body] = item.quaternion
            # Joint axes are the body's own: turned back, so that the joints are the world's x and y however it lies.
            turned = self._matrix(item.quaternion)
            model.jnt_axis[:2] = [turned.T @ [1.0, 0.0, 0.0], turned.T @ [0.0, 1.0, 0.0]]

    def _place(self, slot: int, item: SceneObject) -> None:
        if slot == 0:
            self.data.qpos[:2] = item.position[:2]
            return
        place, speed = 2 + 7 * (slot - 1), 2 + 6 * (slot - 1)
        self.data.qpos[place : place + 7] = [*item.position, *item.quaternion]
        # A free joint's angular velocity is in the body's own frame.
        spin = self._matrix(item.quaternion).T @ np.array(item.angular_velocity)
        self.data.qvel[speed : speed + 6] = [*item.velocity, *spin]

    def _matrix(self, quaternion: tuple[float, float, float, float]) -> np.ndarray:
        """Rotation [3, 3] of a quaternion (w, x, y, z)."""
        turned = np.zeros(9)
        self.mujoco.mju_quat2Mat(turned, np.array(quaternion))
        return turned.reshape(3, 3)


def bounding_radius(item: SceneObject) -> float:
    """Radius of the sphere about the centre that holds the object [m]."""
    a, b, c = item.dimensions
    return {
        "box": float(np.sqrt(a * a + b * b + c * c)),
        "sphere": a,
        "cylinder": float(np.hypot(a, b)),
        "capsule": a + b,
    }[item.shape]


def inertia(item: SceneObject) -> np.ndarray:
    """Principal moments [3] of a solid of mass 1 kg; a capsule is taken as the cylinder of its full length."""
    a, b, c = item.dimensions
    if item.shape == "box":
        return _MASS / 3.0 * np.array([b * b + c * c, a * a + c * c, a * a + b * b])
    if item.shape == "sphere":
        return np.full(3, 0.4 * _MASS * a * a)
    length = 2 * (b + a if item.shape == "capsule" else b)
    across = _MASS * (3 * a * a + length * length) / 12.0
    return np.array([across, across, 0.5 * _MASS * a * a])
