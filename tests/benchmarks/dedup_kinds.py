"""Precision and recall of finding duplicates, by the kind of copy, on generated video whose truth is known by construction.

    python -m tests.benchmarks.dedup_kinds --worlds 40

A world is a textured place that may pan, with shapes that move over it. Copies: re-encoded (H.264, MPEG-4), scaled, letter- and
pillarboxed, cropped and trimmed by up to 10 %. Not copies: mirrored, played backwards, and the same place with its shapes on
other ways (near miss). One JSON line a kind; `table` gives the same to the tests.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
from PIL import Image

from tests.benchmarks.paired import print_line
from wfm.curation.dedup.dedup import DedupConfig, find_duplicates
from wfm.curation.embed.embed import EmbedClip, EmbedConfig, Embedder
from wfm.curation.embed.signature import Signature, SignClip
from wfm.curation.rows import Embedding
from wfm.records import Clip

HEIGHT, WIDTH, FPS = 108, 192, 24
POSITIVE = (
    "reencode", "mpeg4", "scale", "letterbox", "pillarbox", "crop_one_side", "crop_all_sides", "trim_start", "trim_end",
    "trim_both", "crop_and_trim",
)  # fmt: skip
NEGATIVE = ("mirror", "backwards", "near_miss")


def world(seed: int, ways: int = 0) -> np.ndarray:
    """uint8 [T, 108, 192, 3]; the same seed is the same place, ``ways`` how its shapes move."""
    place, moves = np.random.default_rng(seed), np.random.default_rng((seed, ways + 1))
    frames = int(place.integers(48, 97))
    pan = place.uniform(-1.5, 1.5, 2) * (seed % 3 == 0)
    over = np.ceil(np.abs(pan) * frames).astype(int)
    big_h, big_w = HEIGHT + int(over[1]), WIDTH + int(over[0])
    layers = []
    for cell in (40, 12):
        coarse = place.integers(0, 256, (max(2, big_h // cell), max(2, big_w // cell), 3), dtype=np.uint8)
        layers.append(np.asarray(Image.fromarray(coarse).resize((big_w, big_h), Image.Resampling.BICUBIC), np.float32))
    ground = (0.65 * layers[0] + 0.35 * layers[1]).astype(np.uint8)
    count = int(place.integers(2, 5))
    colours, radius = place.integers(0, 256, (count, 3)), place.integers(9, 20, count)
    start = moves.uniform(0, 1, (count, 2)) * (WIDTH, HEIGHT)
    speed = moves.uniform(0.8, 3, (count, 2)) * moves.choice([-1, 1], (count, 2))
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    shown = []
    for t in range(frames):
        a, b = (np.where(pan > 0, pan * t, over + pan * t)).astype(int)
        frame = ground[b : b + HEIGHT, a : a + WIDTH].copy()
        for k in range(count):
            at = np.abs((start[k] + speed[k] * t) % (2 * WIDTH, 2 * HEIGHT) - (WIDTH, HEIGHT))
            frame[(x - at[0]) ** 2 + (y - at[1]) ** 2 < radius[k] ** 2] = colours[k]
        shown.append(frame)
    return np.stack(shown)


def changed(frames: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    """The frames of a copy (or of what only looks like one); the amounts are drawn up to 10 %."""
    count, height, width = frames.shape[:3]
    if "crop" in kind:
        most = 0.10 if kind != "crop_all_sides" else 0.05
        cut = rng.uniform(0.03, most, 4) * (1 if kind == "crop_all_sides" else np.eye(4)[rng.integers(4)])
        frames = frames[:, int(cut[0] * height) : height - int(cut[1] * height)]
        frames = frames[:, :, int(cut[2] * width) : width - int(cut[3] * width)]
    if "trim" in kind:
        cut = rng.uniform(0.03, 0.10)
        head = {"trim_start": 1.0, "trim_end": 0.0}.get(kind, rng.uniform(0.2, 0.8))
        frames = frames[round(head * cut * count) : count - round((1 - head) * cut * count)]
    if kind in ("letterbox", "pillarbox"):
        bar = int(rng.uniform(0.06, 0.14) * height)
        frames = np.pad(
            frames,
            [(0, 0), (bar, bar), (0, 0), (0, 0)] if kind == "letterbox" else [(0, 0), (0, 0), (bar, bar), (0, 0)],
        )
    if kind == "mirror":
        frames = frames[:, :, ::-1]
    return frames[::-1] if kind == "backwards" else frames


def write(path: Path, frames: np.ndarray, kind: str, rng: np.random.Generator) -> Path:
    """Encode, at even sizes; the settings of the copy are those of its kind."""
    height, width = (side // 2 * 2 for side in frames.shape[1:3])
    if kind == "scale":
        scale = rng.choice([0.6, 0.75, 1.5])
        height, width = (int(side * scale) // 2 * 2 for side in (height, width))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4" if kind == "mpeg4" else "libx264", rate=FPS)
        stream.height, stream.width, stream.pix_fmt, stream.thread_count = height, width, "yuv420p", 1
        crf = "34" if kind == "reencode" else "20"
        stream.options = {"q": "8"} if kind == "mpeg4" else {"crf": crf, "preset": "ultrafast", "threads": "1"}
        for pixels in frames:
            pixels = pixels[: frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2]
            if kind == "scale":
                pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24")))
        container.mux(stream.encode())
    return path


def row(name: str, frames: int) -> Clip:
    return Clip(
        clip_id=name, clip_sha256=name, video_id=name, source=name, session_id=name, start_seconds=0.0,
        end_seconds=frames / FPS, start_pts=0, end_pts=frames, time_base=f"1/{FPS}", num_frames=frames, fps=float(FPS),
        width=WIDTH, height=HEIGHT, path=name, transcode="copy",
    )  # fmt: skip


def corpus(folder: Path, worlds: int, seed: int = 0) -> list[tuple[Clip, Path]]:
    """Every world as it is and as each kind: clips named ``<world>.<kind>``."""
    made = []
    for w in range(worlds):
        original = world(seed * 1000 + w)
        for kind in ("original", *POSITIVE, *NEGATIVE):
            rng = np.random.default_rng((seed, w, len(made)))
            base = world(seed * 1000 + w, ways=1) if kind == "near_miss" else original
            frames = changed(base, kind, rng)
            name = f"{w:04d}.{kind}"
            made.append((row(name, len(frames)), write(folder / f"{name}.mp4", frames, kind, rng)))
    return made


def found_pairs(made: list[tuple[Clip, Path]], config: DedupConfig) -> set[tuple[str, str]]:
    """What the whole step says: (clip id, clip id) of all tiers."""
    paths = {clip.path: path for clip, path in made}
    fetch: Callable[[str], Path] = lambda name: paths[name]  # noqa: E731
    embed, sign = EmbedClip(Embedder(EmbedConfig()), fetch), SignClip(fetch)
    clips = [clip for clip, _ in made]
    embeddings = Embedding.to_table([one for clip in clips for one in embed(clip)])
    signatures = Signature.to_table([one for clip in clips for one in sign(clip)])
    _, pairs, _ = find_duplicates(clips, [], embeddings, config, signatures)
    return {(pair.clip_id, pair.other_id) for pair in pairs}


def table(made: list[tuple[Clip, Path]], pairs: set[tuple[str, str]]) -> dict[str, dict[str, float]]:
    """Kind -> recall (of original and copy), and over all pairs the precision: a pair is right within one world's copies.

    Kinds that are no copies have ``false``: the share of worlds in which one is paired with anything.
    """
    worlds = sorted({clip.clip_id.split(".")[0] for clip, _ in made})
    right = sum(_true(a, b) for a, b in pairs)
    result: dict[str, dict[str, float]] = {"all": {"precision": right / max(len(pairs), 1), "pairs": len(pairs)}}
    for kind in POSITIVE:
        pair = [tuple(sorted((f"{w}.original", f"{w}.{kind}"))) for w in worlds]
        result[kind] = {"recall": sum(p in pairs for p in pair) / len(worlds)}
    for kind in NEGATIVE:
        involved = {x for p in pairs for x in p}
        result[kind] = {"false": sum(f"{w}.{kind}" in involved for w in worlds) / len(worlds)}
    return result


def _true(a: str, b: str) -> bool:
    return a.split(".")[0] == b.split(".")[0] and not {a.split(".")[1], b.split(".")[1]} & set(NEGATIVE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made = corpus(Path(folder), given.worlds, given.seed)
        start = time.perf_counter()
        pairs = found_pairs(made, DedupConfig())
        seconds = time.perf_counter() - start
    for kind, figures in table(made, pairs).items():
        print_line(benchmark="dedup_kinds", kind=kind, worlds=given.worlds, **figures)
    print_line(benchmark="dedup_kinds", clips=len(made), seconds=round(seconds, 1))


if __name__ == "__main__":
    main()
