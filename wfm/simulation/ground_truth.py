"""Video whose truth is known by construction: shots and what joins them, still, black and shaky stretches, words, copies.

    film         scenes joined by hard cuts, dissolves and fades -> frames and where each join lies
    scene        one shot: moving, static, black or shaky
    with_text    the same frames with words burned in
    copies       what happens to a clip on its way through the world: scaled, cropped, trimmed, ... and mirrored
    write_film   frames -> a file
    shot_score   found cuts against the truth -> precision, recall, F1

Everything is a function of its seed. Scenes are textured pictures with discs that move before them, under a camera that pans
and zooms, with noise: not drawn by the renderer of the demo's videos, so that no threshold can have been tuned on them.
Imports PyAV and Pillow where they are used.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

Join = Literal["cut", "dissolve", "fade"]
SceneKind = Literal["moving", "static", "black", "shaky"]

COPY_KINDS = ("re-encode", "scale", "letterbox", "crop", "trim", "mirror")
"""What `copies` makes. All but ``mirror`` hold the same footage; a mirrored clip is another one (left is not right)."""

_CRF = {"re-encode": 32}  # a copy that differs by its compression alone needs a rougher one


@dataclasses.dataclass(frozen=True)
class Transition:
    """A join between two shots. Frames ``first`` up to and without ``last`` are mixed; a hard cut has none: both name the first
    frame of the new shot."""

    kind: Join
    first: int
    last: int


@dataclasses.dataclass(frozen=True)
class Film:
    """``frames`` uint8 [T, H, W, 3] RGB, their joins in order, and the frame rate."""

    frames: np.ndarray
    transitions: tuple[Transition, ...]
    fps: int


@dataclasses.dataclass(frozen=True)
class ShotScore:
    """Counts over any number of films; they add up."""

    hits: int = 0
    found: int = 0
    true: int = 0

    def __add__(self, other: "ShotScore") -> "ShotScore":
        return ShotScore(self.hits + other.hits, self.found + other.found, self.true + other.true)

    @property
    def precision(self) -> float:
        """Share of what was found that is true; 1 when nothing was found."""
        return self.hits / self.found if self.found else 1.0

    @property
    def recall(self) -> float:
        """Share of the truth that was found; 1 when there was none."""
        return self.hits / self.true if self.true else 1.0

    @property
    def f1(self) -> float:
        """Harmonic mean of the two."""
        return 2 * self.hits / (self.found + self.true) if self.found + self.true else 1.0


def film(
    seed: int,
    joins: Sequence[Join],
    *,
    size: tuple[int, int] = (108, 192),
    fps: int = 24,
    shot_frames: tuple[int, int] = (30, 60),
    join_frames: tuple[int, int] = (10, 24),
) -> Film:
    """``len(joins) + 1`` moving scenes of ``size`` (height, width), joined as told.

    Lengths are drawn from ``shot_frames`` (whole frames of one scene alone) and ``join_frames``, both ends included.
    """
    rng = np.random.default_rng([seed, 0])
    lengths = rng.integers(shot_frames[0], shot_frames[1] + 1, len(joins) + 1)
    mixed = [0 if join == "cut" else int(rng.integers(join_frames[0], join_frames[1] + 1)) for join in joins]
    pieces: list[np.ndarray] = []
    transitions: list[Transition] = []
    at, tail = 0, np.zeros((0, *size, 3), np.uint8)
    for index, length in enumerate(lengths):
        before = mixed[index - 1] if index else 0
        after = mixed[index] if index < len(joins) else 0
        shot = scene(hash_seed(seed, index), int(length) + before + after, size=size)
        if index:
            transitions.append(Transition(joins[index - 1], at, at + before))
            pieces.append(_mixed(joins[index - 1], tail, shot[:before]))
        pieces.append(shot[before : before + length])
        at += before + int(length)
        tail = shot[before + length :]
    return Film(np.concatenate(pieces), tuple(transitions), fps)


def scene(seed: int, frames: int, *, size: tuple[int, int] = (108, 192), kind: SceneKind = "moving") -> np.ndarray:
    """One shot, uint8 [T, H, W, 3]: ``moving`` pans and zooms over a picture with discs gliding before it, ``static`` is one
    picture with a camera's noise, ``black`` the same without light, ``shaky`` the picture under a hand that trembles."""
    from PIL import Image

    rng = np.random.default_rng([seed, 1])
    height, width = size
    noise = rng.normal(0, 1.5, (4, height, width, 1)).astype(np.float32)  # four grains in turn: cheap, and never frozen
    if kind == "black":
        return np.clip(noise[np.arange(frames) % 4] * 0.5 + 2, 0, 255).astype(np.uint8).repeat(3, axis=3)
    world = Image.fromarray(texture(rng, 2 * height, 2 * width))
    boxes = _camera_path(rng, frames, size, kind)
    discs = [] if kind == "static" else _discs(rng, size)
    shot = np.empty((frames, height, width, 3), np.uint8)
    for index, box in enumerate(boxes):
        picture = np.asarray(world.resize((width, height), Image.Resampling.BILINEAR, box=tuple(box))).astype(
            np.float32
        )
        for disc in discs:
            disc.draw(picture, index)
        shot[index] = np.clip(picture + noise[index % 4], 0, 255)
    return shot


def with_text(frames: np.ndarray, text: str, *, corner: bool = False) -> np.ndarray:
    """The frames with white, dark-rimmed words: a line across the lower part, or a small mark in the upper right corner."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = frames.shape[1:3]
    font = ImageFont.load_default(max(9, height // (12 if corner else 9)))
    layer = Image.new("RGBA", (width, height))
    draw = ImageDraw.Draw(layer)
    left = width * 0.96 - draw.textlength(text, font=font) if corner else width * 0.06
    where = (left, height * (0.04 if corner else 0.8))
    draw.text(where, text, font=font, fill="white", stroke_width=1, stroke_fill="black")
    ink = np.asarray(layer).astype(np.float32)
    alpha = ink[..., 3:] / 255
    return (frames * (1 - alpha) + ink[..., :3] * alpha).astype(np.uint8)


def copies(frames: np.ndarray, seed: int, *, amount: float = 0.1) -> dict[str, np.ndarray]:
    """Each kind of `COPY_KINDS` made of one clip uint8 [T, H, W, 3]; sizes and lengths differ from the original's.

    ``amount`` is the share that a crop takes off each side's length and a trim off the clip's, in all.
    """
    from PIL import Image

    rng = np.random.default_rng([seed, 2])
    count, height, width = frames.shape[:3]
    top, left = int(rng.integers(0, int(height * amount) + 1)), int(rng.integers(0, int(width * amount) + 1))
    rows, columns = _even(height * (1 - amount)), _even(width * (1 - amount))
    begin = int(rng.integers(0, int(count * amount) + 1))
    small = (_even(width * 0.6), _even(height * 0.6))
    bar = _even(height * 0.12)
    boxed = np.zeros_like(frames, shape=(count, height + 2 * bar, width, 3))
    boxed[:, bar : bar + height] = frames
    return {
        "re-encode": frames,
        "scale": np.stack([np.asarray(Image.fromarray(f).resize(small, Image.Resampling.BICUBIC)) for f in frames]),
        "letterbox": boxed,
        "crop": frames[:, top : top + rows, left : left + columns],
        "trim": frames[begin : begin + count - int(count * amount)],
        "mirror": frames[:, :, ::-1],
    }


def write_film(
    path: Path,
    frames: np.ndarray,
    *,
    fps: int = 24,
    kind: str = "",
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    times: Iterable[int] | None = None,
) -> Path:
    """Write uint8 [T, H, W, 3] (even sides) as a video; returns ``path``. ``kind``, one of `COPY_KINDS`, picks its compression;
    ``times`` are pts in ticks of 1/1000 s for an uneven frame rate."""
    from fractions import Fraction

    import av

    ours = {"crf": str(_CRF.get(kind, 20)), "preset": "veryfast", "threads": "1"} if codec == "libx264" else {}
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        stream.options = ours | (options or {})
        ticks = None if times is None else list(times)
        if ticks is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24")
            if ticks is not None:
                frame.pts, frame.time_base = ticks[index], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def shot_score(found: Sequence[int], truth: Sequence[Transition], *, tolerance: int = 1) -> ShotScore:
    """Cuts (first frames of new shots) against joins, one to one: a cut hits a join it lies in, or within ``tolerance`` frames.

    A second cut inside the same join counts as false.
    """
    left = list(truth)
    hits = 0
    for cut in sorted(found):
        match = next((t for t in left if t.first - tolerance <= cut <= t.last + tolerance), None)
        if match is not None:
            left.remove(match)
            hits += 1
    return ShotScore(hits, len(found), len(truth))


def hash_seed(seed: int, index: int) -> int:
    """A seed of its own for each part of what one seed makes."""
    return int(np.random.SeedSequence([seed, index, 7]).generate_state(1)[0])


def texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """uint8 [H, W, 3]: soft blobs of three sizes in a palette of its own."""
    from PIL import Image

    base, spread = rng.uniform(40, 215, 3), rng.uniform(0.3, 1.0)
    total = np.zeros((height, width, 3), np.float32)
    for cell, share in ((height // 3, 0.5), (height // 12, 0.3), (height // 40, 0.2)):
        grid = rng.integers(0, 256, (height // max(2, cell) + 2, width // max(2, cell) + 2, 3), dtype=np.uint8)
        total += share * np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))
    return np.clip(base + (total - 127) * 1.4 * spread, 0, 255).astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class _Disc:
    centre: np.ndarray  # (x, y) at frame 0 [pixels]
    velocity: np.ndarray  # [pixels a frame]
    radius: float
    colour: np.ndarray

    def draw(self, picture: np.ndarray, index: int) -> None:
        """Paint onto float [H, W, 3]; what leaves at one side comes back at the other."""
        height, width = picture.shape[:2]
        room = np.array([width, height]) + 2 * self.radius
        x, y = (self.centre + self.velocity * index) % room - self.radius
        rows, columns = np.ogrid[:height, :width]
        picture[(columns - x) ** 2 + (rows - y) ** 2 < self.radius**2] = self.colour


def _discs(rng: np.random.Generator, size: tuple[int, int]) -> list[_Disc]:
    height, width = size
    return [
        _Disc(
            rng.uniform(0, 1, 2) * (width, height),
            rng.normal(0, height / 60, 2),
            float(rng.uniform(0.06, 0.16) * height),
            rng.uniform(0, 255, 3),
        )
        for _ in range(int(rng.integers(1, 4)))
    ]


def _camera_path(rng: np.random.Generator, frames: int, size: tuple[int, int], kind: SceneKind) -> np.ndarray:
    """float [T, 4]: left, upper, right, lower of what the camera sees of a world twice its size."""
    height, width = size
    time = np.arange(frames)[:, None] / max(1, frames - 1)
    moves = kind == "moving"
    zoom = 1.2 + (rng.uniform(-0.2, 0.2) * time if moves else 0 * time)
    extent = np.array([width, height]) * zoom
    start, goal = rng.uniform(0, 1, 2), rng.uniform(0, 1, 2)
    goal = start + np.clip(goal - start, -frames / 150, frames / 150)  # at most some pixels a frame
    centre = start + (goal - start) * time if moves else np.full((frames, 2), 0.5)
    corner = (np.array([2 * width, 2 * height]) - extent) * centre
    if kind == "shaky":
        corner = corner + rng.normal(0, height / 25, (frames, 2))
    corner = np.clip(corner, 0, np.array([2 * width, 2 * height]) - extent)
    return np.concatenate([corner, corner + extent], axis=1)


def _mixed(join: Join, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """The frames of a join, from the tail of one shot and the head of the next, both uint8 [n, H, W, 3]."""
    count = len(old)
    weight = (np.arange(1, count + 1) / (count + 1))[:, None, None, None]
    if join == "fade":  # down to black, then up
        light_old, light_new = np.clip(1 - 2 * weight, 0, 1), np.clip(2 * weight - 1, 0, 1)
    else:
        light_old, light_new = 1 - weight, weight
    return (old * light_old + new * light_new).astype(np.uint8)


def _even(value: float) -> int:
    return int(value) // 2 * 2
