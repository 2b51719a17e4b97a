"""Clips of a known kind: what lies over the picture, what ails it, what the camera does, what kind of video it is.

`clip` makes the frames of one kind from a seed, `write_clip` a file of it, compressed as its kind wants. The kinds stand in
`KINDS`, by what they are a truth of. Amounts (text, speeds, blur) are drawn from the seed.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from wfm.simulation.ground_truth import copies, hash_seed, scene, texture, with_text, write_film

SIZE = (108, 192)
"""(height, width) of all kinds; borders add to it."""

WORDS = ("SUBSCRIBE NOW", "Breaking news", "LIVE 20:15", "www.example.org", "Chapter two", "SALE -50%", "Weather")
MARKS = ("LOGO TV", "CH 5", "NEWS24", "demo", "REC")

KINDS: dict[str, tuple[str, ...]] = {
    "scene": ("moving", "static", "black", "shaky"),
    "camera": ("pan_left", "pan_right", "tilt_up", "tilt_down", "zoom_in", "zoom_out", "fixed"),
    "text": ("text", "corner"),
    "picture": ("blurred", "under", "over", "blocky", "letterbox", "pillarbox", "windowbox"),
    "time": ("frozen", "doubled"),
    "type": ("slideshow", "screen", "animation"),
}
"""What each kind is a truth of -> the kinds. A kind has no other fault than its own."""


def clip(kind: str, seed: int, frames: int = 36) -> np.ndarray:
    """uint8 [T, H, W, 3] of one of `KINDS`. Raises `ValueError` for another one."""
    rng = np.random.default_rng([seed, 3])
    if kind in KINDS["scene"]:
        return scene(seed, frames, size=SIZE, kind=kind)  # type: ignore[arg-type]
    if kind in KINDS["camera"]:
        return _filmed(kind, rng, seed, frames)
    if kind in KINDS["type"]:
        return {"slideshow": _slideshow, "screen": _screen, "animation": _animation}[kind](rng, seed, frames)
    if kind in _CHANGES:
        return _CHANGES[kind](scene(seed, frames, size=SIZE), rng, seed)
    raise ValueError(f"kind {kind!r} is not known; choices: {', '.join(k for kinds in KINDS.values() for k in kinds)}")


def write_clip(path: Path, kind: str, seed: int, frames: int = 36) -> Path:
    """A file of `clip`; ``blocky`` goes through MPEG-4 at its roughest, key frames alone."""
    pixels = clip(kind, seed, frames)
    if kind == "blocky":
        return write_film(path, pixels, codec="mpeg4", options={"qmin": "24", "qmax": "31", "b": "1000", "g": "1"})
    return write_film(path, pixels)


def _blurred(frames: np.ndarray, rng: np.random.Generator, seed: int) -> np.ndarray:
    from PIL import Image, ImageFilter

    soft = ImageFilter.GaussianBlur(float(rng.uniform(4, 8)))
    return np.stack([np.asarray(Image.fromarray(frame).filter(soft)) for frame in frames])


def _frozen(frames: np.ndarray, rng: np.random.Generator, seed: int) -> np.ndarray:
    first = int(rng.integers(2, len(frames) // 3))
    frames[first : first + len(frames) // 2] = frames[first]
    return frames


_CHANGES: dict[str, Callable[[np.ndarray, np.random.Generator, int], np.ndarray]] = {
    "text": lambda frames, rng, seed: with_text(frames, str(rng.choice(WORDS))),
    "corner": lambda frames, rng, seed: with_text(frames, str(rng.choice(MARKS)), corner=True),
    "blurred": _blurred,
    "under": lambda frames, rng, seed: (frames * rng.uniform(0.02, 0.04)).astype(np.uint8),
    "over": lambda frames, rng, seed: np.clip(frames.astype(int) + 215, 0, 255).astype(np.uint8),
    "blocky": lambda frames, rng, seed: frames,
    "letterbox": lambda frames, rng, seed: copies(frames, seed)["letterbox"],
    "pillarbox": lambda frames, rng, seed: np.pad(frames, ((0, 0), (0, 0), (24, 24), (0, 0))),
    "windowbox": lambda frames, rng, seed: np.pad(frames, ((0, 0), (12, 12), (24, 24), (0, 0))),
    "frozen": _frozen,
    "doubled": lambda frames, rng, seed: frames[np.arange(len(frames)) // 2],
}


def _filmed(kind: str, rng: np.random.Generator, seed: int, frames: int) -> np.ndarray:
    """A camera that does one thing before a picture, with grain; ``fixed`` has a disc that crosses before it."""
    from PIL import Image

    height, width = SIZE
    world = Image.fromarray(texture(rng, 2 * height, 2 * width))
    speed, way = rng.uniform(0.4, 2.0), {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
    step = np.array(way.get(kind.split("_")[-1], (0, 0))) * speed
    growth = rng.uniform(1.003, 1.012) ** {"zoom_in": 1, "zoom_out": -1}.get(kind, 0)
    grain = rng.normal(0, 1.5, (4, height, width, 1)).astype(np.float32)
    radius, colour, pace = rng.uniform(8, 16), rng.uniform(0, 255, 3), rng.uniform(1.5, 4)
    rows, columns = np.ogrid[:height, :width]
    shot = np.empty((frames, height, width, 3), np.uint8)
    for k in range(frames):
        x, y = np.array([width, height]) + step * (k - frames / 2)
        half = np.array([width, height]) / 2 / growth ** (k - frames / 2)
        box = (x - half[0], y - half[1], x + half[0], y + half[1])
        picture = np.asarray(world.resize((width, height), Image.Resampling.BILINEAR, box=box)).astype(np.float32)
        if kind == "fixed":
            across = (pace * k + 20) % width
            picture[(columns - across) ** 2 + (rows - height / 2) ** 2 < radius**2] = colour
        shot[k] = np.clip(picture + grain[k % 4], 0, 255)
    return shot


def _slideshow(rng: np.random.Generator, seed: int, frames: int) -> np.ndarray:
    """Three pictures, each for a third of the time."""
    return np.concatenate([np.repeat(scene(hash_seed(seed, k), 1, size=SIZE), frames // 3, axis=0) for k in range(3)])


def _screen(rng: np.random.Generator, seed: int, frames: int) -> np.ndarray:
    """A recorded screen: a window of text to which letters are added now and then, under a pointer that moves at times."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = SIZE
    ground, paper, ink = ((30, 60, 90), (250, 250, 250), (20, 20, 20)) if rng.random() < 0.5 else (
        (200, 200, 205), (35, 38, 45), (220, 220, 220)
    )  # fmt: skip
    font = ImageFont.load_default(9)
    lines = ["".join(rng.choice(list("abcdefghij klmnop"), 24)) for _ in range(7)]
    typed = 0
    pointer = rng.uniform(0.2, 0.8, 2) * (width, height)
    shot = np.empty((frames, height, width, 3), np.uint8)
    for k in range(frames):
        typed += int(k % 6 == 0)
        if k % 12 < 3:
            pointer = np.clip(pointer + rng.normal(0, 6, 2), 4, (width - 8, height - 12))
        picture = Image.new("RGB", (width, height), ground)
        draw = ImageDraw.Draw(picture)
        draw.rectangle((10, 8, width - 11, height - 9), fill=paper)
        draw.rectangle((10, 8, width - 11, 16), fill=(90, 120, 180))
        for row, line in enumerate(lines):
            draw.text((16, 20 + 11 * row), line if row < 6 else line[:typed], font=font, fill=ink)
        x, y = pointer
        draw.polygon([(x, y), (x, y + 9), (x + 6, y + 6)], fill=(255, 255, 255), outline=(0, 0, 0))
        shot[k] = np.asarray(picture)
    return shot


def _animation(rng: np.random.Generator, seed: int, frames: int) -> np.ndarray:
    """Drawn film: flat figures with an outline that move before flat hills, every frame drawn anew."""
    from PIL import Image, ImageDraw

    height, width = SIZE
    sky, hill = (tuple(int(c) for c in rng.integers(60, 240, 3)) for _ in range(2))
    count = int(rng.integers(2, 5))
    start, speed = rng.uniform(0, 1, (count, 2)) * (width, height), rng.normal(0, 2.5, (count, 2)) + 1
    size, colours = rng.uniform(10, 22, count), rng.integers(0, 256, (count, 3))
    drift = rng.uniform(1, 3)
    shot = np.empty((frames, height, width, 3), np.uint8)
    for k in range(frames):
        picture = Image.new("RGB", (width, height), sky)
        draw = ImageDraw.Draw(picture)
        for at in range(-2, 4):
            left = at * 90 - (drift * k) % 90
            draw.ellipse((left, height * 0.65, left + 110, height * 1.5), fill=hill, outline=(0, 0, 0))
        for f in range(count):
            x, y = (start[f] + speed[f] * k) % (width, height)
            r = size[f]
            draw.ellipse((x - r, y - r, x + r, y + r), fill=tuple(colours[f].tolist()), outline=(0, 0, 0), width=2)
        shot[k] = np.asarray(picture)
    return shot
