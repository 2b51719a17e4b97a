"""A session as plain data, drawn from (seed, index) alone: its views, its shots, the junk in it and the copies of it."""

from dataclasses import dataclass, replace

import numpy as np

from wfm.simulation.actions import Commands, draw_commands
from wfm.simulation.camera import View, draw_views
from wfm.simulation.config import SimulationConfig
from wfm.simulation.scene import FLOOR_TONES, Scene, draw_scene

TEXTS = ("SUBSCRIBE NOW", "BREAKING NEWS", "SAMPLE ONLY", "DO NOT COPY", "CHAPTER TWO", "THANKS FOR WATCHING")
REENCODINGS = (("libx264", 34, 0.75), ("mpeg4", 0, 1.25), ("libvpx-vp9", 45, 0.75))
"""Codec, constant rate factor (not used by mpeg4) and scale of re-encoded copies, in turn."""

GOLDEN_RATIO = (5**0.5 - 1) / 2
"""Its multiples modulo 1 fill the unit interval more evenly than chance does."""


@dataclass(frozen=True)
class Shot:
    """One take: between two hard cuts the world and the camera path are continuous."""

    kind: str
    "world | text | frozen | black"
    scene: Scene
    commands: Commands
    text: str = ""

    @property
    def num_frames(self) -> int:
        """Frames in this shot."""
        return len(self.commands.actions)


@dataclass(frozen=True)
class Session:
    """What one session records and which copies and junk lie beside it."""

    index: int
    name: str
    views: tuple[View, ...]
    shots: tuple[Shot, ...]
    exact_duplicate_of: int | None
    "View whose file is there twice."
    reencoded_duplicate_of: int | None
    "View whose file is there again, encoded otherwise."
    reencoding: tuple[str, int, float]
    has_static_video: bool


def session_name(index: int) -> str:
    """``session_0003``: the name of its part and the start of its files' names."""
    return f"session_{index:04d}"


def plan_session(config: SimulationConfig, index: int) -> Session:
    """Session ``index``; the same for the same (config, index), whatever else is simulated."""
    rng = _generator(config.seed, index)
    views = draw_views(rng, config.views)
    shots = [_draw_shot(config, index, number, "world") for number in range(config.shots_per_video)]
    for offset, (kind, every) in enumerate(
        (("text", config.text_shot_every), ("frozen", config.frozen_shot_every), ("black", config.black_shot_every))
    ):
        if _due(index, every, offset):
            shots.insert(int(rng.integers(0, len(shots) + 1)), _draw_shot(config, index, 1000 + offset, kind))
    # Each take is somewhere else: no two in a row have the same floor.
    tones = rng.permutation(list(FLOOR_TONES))
    shots = [
        replace(shot, scene=replace(shot.scene, floor_tone=str(tones[place % len(tones)])))
        for place, shot in enumerate(shots)
    ]
    return Session(
        index=index,
        name=session_name(index),
        views=views,
        shots=tuple(shots),
        exact_duplicate_of=index % config.views if _due(index, config.exact_duplicate_every, 3) else None,
        reencoded_duplicate_of=index % config.views if _due(index, config.reencoded_duplicate_every, 4) else None,
        reencoding=REENCODINGS[(index // max(config.reencoded_duplicate_every, 1)) % len(REENCODINGS)],
        has_static_video=_due(index, config.static_video_every, 5),
    )


def _generator(seed: int, *place: int) -> np.random.Generator:
    """What is drawn at a place of a corpus. A seed of more than 32 bits would spread over two entries of the list, the second
    of which another seed's index fills; beside a spawn key it cannot."""
    if seed < 2**32:
        return np.random.default_rng([seed, *place])
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=place))


def _due(index: int, every: int, offset: int) -> bool:
    """One index in ``every``: by count and not by chance, so that a small corpus has each kind too."""
    return every > 0 and index % every == offset % every


def _draw_shot(config: SimulationConfig, index: int, number: int, kind: str) -> Shot:
    rng = _generator(config.seed, index, number + 1)
    seconds = rng.uniform(*(config.seconds_per_shot if kind == "world" else config.junk_seconds))
    num_frames = max(2, round(seconds * config.fps))
    scene = draw_scene(rng)
    actor = scene.objects[0].position
    # Spread evenly and not drawn: a small corpus keeps its shares of static and steady cameras too.
    pick = ((index * config.shots_per_video + number) * GOLDEN_RATIO) % 1.0
    commands = draw_commands(rng, config, num_frames, (actor[0], actor[1]), pick)
    if kind in ("black", "frozen"):
        commands = _at_rest(commands)
    return Shot(kind, scene, commands, str(rng.choice(TEXTS)) if kind == "text" else "")


def _at_rest(commands: Commands) -> Commands:
    """The same place with nothing moving: what a frozen or black picture can claim."""

    def hold(values: np.ndarray) -> np.ndarray:
        return np.repeat(values[:1], len(values), axis=0)

    return Commands(
        "static",
        np.zeros_like(commands.actions),
        hold(commands.azimuth),
        hold(commands.elevation),
        hold(commands.actor),
    )
