"""What the simulated corpus is made of. Torch-free and MuJoCo-free: keys are computed from it."""

from typing import Self

import pydantic

from wfm.config import Config, Seed, how
from wfm.data.x264 import Speed


class SimulationConfig(Config):
    """A corpus of long mp4 files, as a careless archive would hold them: worlds, cuts, copies and junk."""

    seed: Seed = 0
    "Seed of the corpus; session i draws from (seed, i) alone, so more sessions never change the first ones."
    sessions: int = pydantic.Field(40, ge=1)
    "Recording sessions; every view of a session sees the same worlds at the same moments."
    views: int = pydantic.Field(2, ge=1, le=8)
    "Synchronous cameras a session: one mp4 each, the same orbit from another side."
    shots_per_video: int = pydantic.Field(4, ge=1, le=64)
    "World shots a video, joined by hard cuts; junk shots come on top."
    seconds_per_shot: tuple[float, float] = (3.0, 5.0)
    "Shortest and longest shot [s]."
    size: int = pydantic.Field(128, ge=32, le=1024, multiple_of=2)
    "Width and height of a frame [pixels]."
    fps: int = pydantic.Field(24, ge=1, le=120)
    "Frames a second [Hz]."
    static_camera_share: float = pydantic.Field(0.15, ge=0.0, le=1.0)
    "Share of world shots in which the camera rests."
    constant_rate_share: float = pydantic.Field(0.4, ge=0.0, le=1.0)
    "Share of world shots in which the camera holds one orbit rate; the rest change it at random moments."
    orbit_rate_range: tuple[float, float] = (20.0, 60.0)
    "Smallest and largest orbit rate of a moving camera, of either sign [deg/s]."
    actor_speed_range: tuple[float, float] = (0.5, 1.2)
    "Slowest and fastest commanded speed of the actor [m/s]."
    junk_seconds: tuple[float, float] = (1.5, 2.5)
    "Shortest and longest junk shot (black, frozen, text) [s]."
    exact_duplicate_every: int = pydantic.Field(6, ge=0)
    "One session in so many has a video whose bytes are there again under another name; 0: never."
    reencoded_duplicate_every: int = pydantic.Field(6, ge=0)
    "One session in so many has a video that is there again at another size, codec and quality; 0: never."
    static_video_every: int = pydantic.Field(6, ge=0)
    "One session in so many leaves a video in which nothing moves; 0: never."
    frozen_shot_every: int = pydantic.Field(6, ge=0)
    "One session in so many has a shot whose picture freezes; 0: never."
    black_shot_every: int = pydantic.Field(6, ge=0)
    "One session in so many has a black shot; 0: never."
    text_shot_every: int = pydantic.Field(6, ge=0)
    "One session in so many has a shot with burned-in text; 0: never."
    crf: int = pydantic.Field(18, ge=0, le=51)
    "Constant rate factor of x264; lower is better."
    preset: Speed = "veryfast"
    "Speed preset of x264."
    workers: int = how(2, ge=1)
    "Processes that simulate, one session at a time each."

    @pydantic.model_validator(mode="after")
    def _sane(self) -> Self:
        for name in ("seconds_per_shot", "orbit_rate_range", "actor_speed_range", "junk_seconds"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} = ({low}, {high}): give a positive low end that is not above the high end")
        if self.static_camera_share + self.constant_rate_share > 1.0:
            raise ValueError("static_camera_share + constant_rate_share must not exceed 1")
        return self
