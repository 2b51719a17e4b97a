"""What is commanded at each frame: camera rates and the actor's velocity, all piecewise constant.

An action at frame t acts between frames t and t + 1, and state follows it exactly: azimuth[t+1] - azimuth[t] equals
orbit_rate[t] / fps, and the actor moves by velocity[t] / fps.
"""

from dataclasses import dataclass

import numpy as np

from wfm.actions import ActionSpec
from wfm.simulation.config import SimulationConfig

ACTION_NAMES = ("camera_orbit_rate", "camera_elevation_rate", "actor_velocity_x", "actor_velocity_y")
ACTOR_REACH = 0.75
"""The actor's centre stays within this distance of the arena's [m]."""
ELEVATION_RANGE = (24.0, 42.0)
"""Where a session's base elevation may go [deg]; views add a few degrees."""


@dataclass(frozen=True)
class Commands:
    """The actions of one shot, and the base camera path and actor path that follow from them."""

    camera: str
    "static | constant | changing"
    actions: np.ndarray
    "float64 [T, 4], columns as ACTION_NAMES."
    azimuth: np.ndarray
    "Base azimuth, unwrapped [T], degrees."
    elevation: np.ndarray
    "Base elevation above the floor [T], degrees."
    actor: np.ndarray
    "Position of the actor [T, 2], metres."


def action_spec(config: SimulationConfig) -> ActionSpec:
    """The action spec of simulated video."""
    return ActionSpec(
        names=ACTION_NAMES,
        units=("deg/s", "deg/s", "m/s", "m/s"),
        frame="camera orbit about the arena centre; actor in the world frame",
        rate_hz=float(config.fps),
        mean=(0.0, 0.0, 0.0, 0.0),
        scale=(30.0, 3.0, 0.6, 0.6),
    )


def draw_commands(
    rng: np.random.Generator, config: SimulationConfig, num_frames: int, start: tuple[float, float], pick: float
) -> Commands:
    """Draw a shot's actions; the actor starts at ``start`` [m], and ``pick`` in 0..1 chooses the camera by its share."""
    if pick < config.static_camera_share:
        camera = "static"
    elif pick < config.static_camera_share + config.constant_rate_share:
        camera = "constant"
    else:
        camera = "changing"
    orbit = _orbit_rates(rng, config, camera, num_frames)
    elevation_rate, elevation = _elevations(rng, config, camera, num_frames)
    velocity, actor = _actor_path(rng, config, num_frames, np.array(start))
    azimuth = float(rng.uniform(-180, 180)) + _integrate(orbit, config.fps)
    actions = np.concatenate([orbit[:, None], elevation_rate[:, None], velocity], axis=1)
    return Commands(camera, actions, azimuth, elevation, actor)


def _integrate(rates: np.ndarray, fps: int) -> np.ndarray:
    """State at each frame from rates [T] that act after it; 0 at the first frame."""
    steps = np.concatenate([np.zeros_like(rates[:1]), np.cumsum(rates[:-1], axis=0)])
    return steps / fps


def _segments(
    rng: np.random.Generator, config: SimulationConfig, num_frames: int, low: float, high: float
) -> list[int]:
    """Lengths in frames, each between ``low`` and ``high`` seconds, that fill the shot; the first starts anywhere."""
    lengths: list[int] = []
    while sum(lengths) < num_frames:
        lengths.append(max(1, int(rng.uniform(low, high) * config.fps)))
    lengths[-1] -= sum(lengths) - num_frames
    return lengths


def _signed_rate(rng: np.random.Generator, config: SimulationConfig) -> float:
    return float(rng.uniform(*config.orbit_rate_range) * rng.choice([-1.0, 1.0]))


def _orbit_rates(rng: np.random.Generator, config: SimulationConfig, camera: str, num_frames: int) -> np.ndarray:
    if camera == "static":
        return np.zeros(num_frames)
    if camera == "constant":
        return np.full(num_frames, _signed_rate(rng, config))
    lengths = _segments(rng, config, num_frames, 0.4, 1.4)
    rates = [0.0 if rng.uniform() < 0.2 else _signed_rate(rng, config) for _ in lengths]
    if not any(rates):  # a short shot of rests only: not what it is called
        rates[-1] = _signed_rate(rng, config)
    return np.repeat(rates, lengths)


def _elevations(
    rng: np.random.Generator, config: SimulationConfig, camera: str, num_frames: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rates [T] and elevation [T]; a third of the moving shots tilt, turning round at the ends of the range."""
    low, high = ELEVATION_RANGE
    here = float(rng.uniform(low + 3, high - 3))
    rates = np.zeros(num_frames)
    if camera != "static" and rng.uniform() < 0.33:
        lengths = [num_frames] if camera == "constant" else _segments(rng, config, num_frames, 0.5, 1.5)
        frame, now = 0, here
        for length in lengths:
            rate = float(rng.uniform(2.0, 6.0) * rng.choice([-1.0, 1.0]))
            room = (high - now) if rate > 0 else (now - low)
            if abs(rate) * length / config.fps > room:
                rate = -rate
                room = (high - now) if rate > 0 else (now - low)
                rate = float(np.sign(rate)) * min(abs(rate), room * config.fps / length)
            rates[frame : frame + length] = rate
            now += rate * length / config.fps
            frame += length
    return rates, here + _integrate(rates, config.fps)


def _actor_path(
    rng: np.random.Generator, config: SimulationConfig, num_frames: int, start: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Velocity [T, 2] and position [T, 2]; each piece of the way ends within reach of the centre."""
    velocity = np.zeros((num_frames, 2))
    here, frame = start.astype(np.float64), 0
    for length in _segments(rng, config, num_frames, 0.6, 1.6):
        seconds = length / config.fps
        chosen = np.zeros(2)
        if rng.uniform() >= 0.15:
            for _ in range(40):
                heading, speed = rng.uniform(0, 2 * np.pi), rng.uniform(*config.actor_speed_range)
                trial = speed * np.array([np.cos(heading), np.sin(heading)])
                if np.hypot(*(here + trial * seconds)) <= ACTOR_REACH:
                    chosen = trial
                    break
        velocity[frame : frame + length] = chosen
        here = here + chosen * seconds
        frame += length
    return velocity, start + _integrate(velocity, config.fps)
