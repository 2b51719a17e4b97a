"""One world as plain data: which objects lie where, how they start to move, what floor and walls they have.

Worlds are simple on purpose: few, large, saturated objects on pale floors, so that a small model can learn them. The light,
and the brightness of floor and walls, always point the same way in the world: a picture tells where +x is.
"""

from dataclasses import dataclass

import numpy as np

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (225, 35, 35),
    "green": (30, 170, 50),
    "blue": (40, 70, 230),
    "yellow": (240, 210, 25),
    "magenta": (220, 45, 200),
    "cyan": (20, 195, 215),
}
"""Object colours, sRGB 0..255. No two objects of a world share one."""

ACTOR_COLOR = "red"
"""The actor, which obeys the action, is always of this colour and nothing else is."""

SHAPES = ("box", "sphere", "cylinder", "capsule")
MAX_OBJECTS = 4
ARENA_RADIUS = 2.0
"""Invisible walls keep objects within this distance of the centre [m]."""

_RADII = {"medium": 0.53, "large": 0.67}
FLOOR_HALF = 7.0
"""Half the side of the square floor [m]; walls stand on its edge."""

_FLOORS = ("plain", "tiled", "round")
FLOOR_TONES = {"grey": (150, 150, 155), "sand": (185, 165, 130), "slate": (115, 130, 150), "rose": (175, 145, 145)}


@dataclass(frozen=True)
class SceneObject:
    """An object and its state at the first frame. Metres, seconds, world frame, z up."""

    name: str
    color: str
    shape: str
    size: str
    motion: str
    "actor | rests | rolls | slides"
    radius: float
    dimensions: tuple[float, float, float]
    "MuJoCo geom sizes: box half sides; sphere radius; cylinder and capsule radius and half length."
    position: tuple[float, float, float]
    quaternion: tuple[float, float, float, float]
    velocity: tuple[float, float, float]
    angular_velocity: tuple[float, float, float]
    "World frame [rad/s]."
    friction: float


@dataclass(frozen=True)
class Scene:
    """Objects (the actor first), floor and walls."""

    objects: tuple[SceneObject, ...]
    floor: str
    floor_tone: str
    tiles: int
    "Pairs of tiles along a side, for a tiled floor."
    wall_rgb: tuple[int, int, int]

    @property
    def background(self) -> str:
        """The floor in words, such as ``tiled grey floor``."""
        return f"{self.floor} {self.floor_tone} floor"


def draw_scene(rng: np.random.Generator) -> Scene:
    """A random world of 2 to 4 objects."""
    count = int(rng.integers(2, MAX_OBJECTS + 1))
    others = [color for color in COLORS if color != ACTOR_COLOR]
    colors = [ACTOR_COLOR, *(str(c) for c in rng.permutation(others)[: count - 1])]
    places = _places(rng, count)
    objects = tuple(_draw_object(rng, i, color, places[i]) for i, color in enumerate(colors))
    shade = rng.integers(-15, 16, size=3)
    wall = tuple(int(v) for v in np.clip(np.array([165, 180, 200]) + shade, 0, 255))
    return Scene(
        objects=objects,
        floor=str(rng.choice(_FLOORS, p=(0.1, 0.8, 0.1))),
        floor_tone=str(rng.choice(list(FLOOR_TONES))),
        tiles=int(rng.choice((1, 1, 1, 2))),
        wall_rgb=(wall[0], wall[1], wall[2]),
    )


def _places(rng: np.random.Generator, count: int) -> list[tuple[float, float]]:
    """Centres, the actor's near the middle, at least 1.25 m apart; the spread of attempts is bounded."""
    places = [tuple(rng.uniform(-0.4, 0.4, size=2))]
    distance = 1.25
    while len(places) < count:
        for _ in range(50):
            angle, radius = rng.uniform(0, 2 * np.pi), rng.uniform(0.9, 1.4)
            place = (radius * np.cos(angle), radius * np.sin(angle))
            if all(np.hypot(place[0] - x, place[1] - y) >= distance for x, y in places):
                places.append(place)
                break
        else:
            distance *= 0.95
    return [(float(x), float(y)) for x, y in places]


def _draw_object(rng: np.random.Generator, index: int, color: str, place: tuple[float, float]) -> SceneObject:
    shape, size = str(rng.choice(SHAPES)), str(rng.choice(list(_RADII)))
    speed, heading = float(rng.uniform(0.5, 1.3)), float(rng.uniform(0, 2 * np.pi))
    pick = float(rng.uniform())
    if index == 0:
        motion = "actor"
    elif pick < 0.35:
        motion = "rests"
    else:
        motion = "slides" if shape == "box" else "rolls"
    direction = np.array([np.cos(heading), np.sin(heading), 0.0])
    radius = _RADII[size]
    lying = shape == "capsule" or (shape == "cylinder" and motion == "rolls")
    dimensions = _dimensions(shape, radius, lying)
    height = dimensions[2] if shape == "box" else dimensions[1] if shape == "cylinder" and not lying else dimensions[0]
    quaternion = _quaternion(shape, lying, direction, float(rng.uniform(0, np.pi / 2)))
    velocity = direction * (speed if motion in ("rolls", "slides") else 0.0)
    spin = np.cross([0.0, 0.0, 1.0], velocity) / height if motion == "rolls" else np.zeros(3)
    return SceneObject(
        name="actor" if index == 0 else f"object_{index}",
        color=color,
        shape=shape,
        size=size,
        motion=motion,
        radius=radius,
        dimensions=dimensions,
        position=(place[0], place[1], float(height)),
        quaternion=quaternion,
        velocity=(float(velocity[0]), float(velocity[1]), float(velocity[2])),
        angular_velocity=(float(spin[0]), float(spin[1]), float(spin[2])),
        friction=0.02 if motion == "slides" else 0.6,
    )


def _dimensions(shape: str, radius: float, lying: bool) -> tuple[float, float, float]:
    if shape == "box":
        half = 0.85 * radius
        return (half, half, half)
    if shape == "sphere":
        return (radius, 0.0, 0.0)
    if shape == "cylinder":
        return (0.85 * radius, (0.8 if lying else 0.9) * radius, 0.0)
    return (0.65 * radius, 0.6 * radius, 0.0)


def _quaternion(shape: str, lying: bool, direction: np.ndarray, yaw: float) -> tuple[float, float, float, float]:
    """Upright and turned by ``yaw``, or lying with its axis level and square to ``direction``."""
    if not lying:
        angle = yaw if shape == "box" else 0.0
        return (float(np.cos(angle / 2)), 0.0, 0.0, float(np.sin(angle / 2)))
    half = np.sqrt(0.5)
    # The axis is (-dy, dx, 0); z turned onto it turns by 90 degrees about z x axis = (-dx, -dy, 0).
    return (float(half), float(-half * direction[0]), float(-half * direction[1]), 0.0)


def floor_texture(scene: Scene, pixels: int) -> np.ndarray:
    """The floor's picture, uint8 [pixels, pixels, 3]; rows run along y, columns along x, from the negative end.

    Large and soft on purpose: two tones in quarters, tiles or a disc, blurred edges, brighter towards +x. What turns must
    show that it turns, and a small model must be able to draw it.
    """
    half = FLOOR_HALF
    axis = (np.arange(pixels) + 0.5) / pixels * 2 * half - half
    x, y = np.meshgrid(axis, axis)
    if scene.floor == "tiled":
        period = 2 * half / (2 * scene.tiles)
        wave = np.sin(np.pi * x / period) * np.sin(np.pi * y / period)
        pattern = np.clip(9.0 * wave, -1, 1)
    elif scene.floor == "round":
        pattern = np.clip((2.6 - np.hypot(x, y)) / 0.2, -1, 1)
    else:
        pattern = np.zeros_like(x)
    light = 1.0 + 0.32 * pattern + 0.05 * np.clip(x, -3, 3)
    warmth = 0.07 * np.clip(y, -3, 3)
    tone = np.array(FLOOR_TONES[scene.floor_tone], dtype=np.float64)
    picture = tone * light[..., None] * np.stack([1 + warmth, np.ones_like(x), 1 - warmth], axis=-1)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)
