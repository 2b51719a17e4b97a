"""Clips whose truth is known by construction: a textured picture that pans at a known speed, with what a test lays over it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wfm.curation.cut.cutter import CutConfig, Cutter, Written
from wfm.curation.rows import Score
from wfm.data.decode import open_video
from wfm.records import Clip

ClipMaker = Callable[..., Path]


def textured(seed: int, height: int, width: int) -> np.ndarray:
    """uint8 [H, W, 3], large and small random blobs: a different picture for each seed."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    layers = []
    for cell in (24, 5):
        coarse = rng.integers(0, 256, (max(2, height // cell), max(2, width // cell), 3), dtype=np.uint8)
        layers.append(np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)))
    return (0.7 * layers[0] + 0.3 * layers[1]).astype(np.uint8)


def lettered(frame: np.ndarray, text: str) -> np.ndarray:
    """The frame with white, dark-rimmed words across its lower part."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.fromarray(frame)
    height, width = frame.shape[:2]
    font = ImageFont.load_default(max(10, height // 9))
    ImageDraw.Draw(image).text(
        (width * 0.06, height * 0.8), text, font=font, fill="white", stroke_width=1, stroke_fill="black"
    )
    return np.asarray(image)


def panned(seed: int, frames: int, size: int, pixels_a_frame: tuple[float, float]) -> np.ndarray:
    """uint8 [T, size, size, 3]: a window that glides over a larger picture by whole pixels."""
    x = np.round(np.arange(frames) * pixels_a_frame[0]).astype(int)
    y = np.round(np.arange(frames) * pixels_a_frame[1]).astype(int)
    x, y = x - x.min(), y - y.min()
    world = textured(seed, size + int(y.max()), size + int(x.max()))
    return np.stack([world[b : b + size, a : a + size] for a, b in zip(x, y, strict=True)])


def encode(
    path: Path, frames: np.ndarray, *, fps: int = 24, codec: str = "libx264", size: int = 0, **options: str
) -> Path:
    """Write uint8 [T, H, W, 3] as a video, at another size if ``size`` is given."""
    import av
    from PIL import Image

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = (size, size) if size else frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        stream.options = (
            {"crf": "20", "preset": "veryfast", "threads": "1"} | options if codec == "libx264" else options
        )
        for pixels in frames:
            if size:
                pixels = np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture
def make_row() -> Callable[..., Clip]:
    """``make_row("a", session_id="s", num_frames=48, ...)`` -> a `Clip` whose other fields are plausible."""

    def make(clip_id: str, **given: object) -> Clip:
        facts: dict[str, object] = {
            "clip_sha256": f"bytes of {clip_id}",
            "video_id": f"video of {clip_id}",
            "source": f"/videos/{clip_id}.mp4",
            "session_id": f"session of {clip_id}",
            "start_seconds": 0.0,
            "end_seconds": 2.0,
            "start_pts": 0,
            "end_pts": 48,
            "time_base": "1/24",
            "num_frames": 48,
            "fps": 24.0,
            "width": 128,
            "height": 128,
            "path": f"clips/{clip_id}.mp4",
            "transcode": "copy",
        }
        return Clip(clip_id=clip_id, **(facts | given))  # type: ignore[arg-type]

    return make


@pytest.fixture
def make_score() -> Callable[..., Score]:
    """``make_score(clip, sharpness=30.0, ...)`` -> the `Score` of a clip that nothing is wrong with, but for what is given."""

    def make(clip: Clip, **given: object) -> Score:
        good: dict[str, object] = {
            "motion": 0.2,
            "motion_patch_minimum": 0.1,
            "pan_x": 0.0,
            "pan_y": 0.0,
            "motion_source": "codec_vectors",
            "static_share": 0.0,
            "frozen_share": 0.0,
            "black_share": 0.0,
            "sharpness": 50.0,
            "brightness": 0.5,
            "contrast": 0.15,
            "text_score": 0.0,
            "moving_share": 0.4,
        }
        return Score(clip_id=clip.clip_id, clip_sha256=clip.clip_sha256, **(good | given))  # type: ignore[arg-type]

    return make


@pytest.fixture
def make_clip(tmp_path: Path) -> ClipMaker:
    """``make_clip(seed, frames=48, size=128, speed=(2, 0), text="", ...)`` -> path of a new mp4."""

    def make(
        seed: int = 0,
        *,
        frames: int = 48,
        size: int = 128,
        speed: tuple[float, float] = (2, 0),
        text: str = "",
        change: Callable[[np.ndarray], np.ndarray] | None = None,
        name: str = "",
        encoded_size: int = 0,
        **options: Any,
    ) -> Path:
        pixels = panned(seed, frames, size, speed)
        if change is not None:
            pixels = change(pixels)
        if text:
            pixels = np.stack([lettered(frame, text) for frame in pixels])
        path = tmp_path / f"{name or len(list(tmp_path.iterdir()))}.mp4"
        return encode(path, pixels, size=encoded_size, **options)

    return make


@pytest.fixture
def cut_frames() -> Callable[..., Written]:
    """``cut_frames(path, first, last, target, **config)`` cuts frames ``first`` up to ``last`` (without it)."""

    def cut(path: Path, first: int, last: int, target: Path, **config: Any) -> Written:
        with open_video(path) as video:
            pts = [int(frame.pts) for frame in video.frames()]
            end = pts[last] if last < len(pts) else video.end_pts(pts[-1], None)
            return Cutter(video, CutConfig(**config)).cut(pts[first], end, last - first, target)

    return cut


@pytest.fixture
def psnr() -> Callable[[np.ndarray, np.ndarray], float]:
    """``psnr(a, b)`` of 8-bit pictures [dB]."""
    return lambda a, b: float(10 * np.log10(255**2 / max(1e-9, np.mean((a.astype(float) - b) ** 2))))
