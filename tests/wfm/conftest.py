"""Small videos of every kind, written on the spot: what is in them is known by construction."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.contracts.conftest import place as place
from tests.contracts.conftest import s3_options as s3_options
from tests.contracts.conftest import store as store
from wfm.curation.cut.real_time import ordinary_threads

VideoWriter = Callable[..., Path]


def scene(seed: int, count: int, height: int, width: int) -> np.ndarray:
    """uint8 [count, H, W, 3]: two flat colours of the seed's own, and a bar that moves two pixels a frame."""
    rng = np.random.default_rng(seed)
    frames = np.empty((count, height, width, 3), dtype=np.uint8)
    frames[:, : height // 2] = rng.integers(0, 256, 3)
    frames[:, height // 2 :] = rng.integers(0, 256, 3)
    for index in range(count):
        left = (2 * index + 5 * seed) % width
        frames[index, :, left : left + max(1, width // 10)] = 255 - frames[index, 0, 0]
    return frames


def scenes(lengths: Sequence[int], height: int = 72, width: int = 96, seed: int = 0) -> np.ndarray:
    """Scenes one after the other: hard cuts after ``lengths[0]``, ``lengths[0] + lengths[1]``, ... frames."""
    return np.concatenate([scene(seed + 7 * i, count, height, width) for i, count in enumerate(lengths)])


def write(
    path: Path,
    frames: np.ndarray | None = None,
    *,
    fps: int = 24,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    times: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    rotation: int | None = None,
    matrix: Sequence[int] | None = None,
    container: str | None = None,
    flags: str = "",
    **options: str,
) -> Path:
    """Write uint8 [T, H, W, 3] (48 frames if None) as a video; ``times`` are pts in ``time_base``, else one a frame."""
    import av

    pixels = scene(0, 48, 72, 96) if frames is None else frames
    with av.open(str(path), "w", format=container, options={"movflags": flags} if flags else {}) as out:
        stream: Any = out.add_stream(codec, rate=fps)
        stream.height, stream.width = pixels.shape[1:3]
        stream.pix_fmt = pixel_format
        stream.codec_context.thread_count = 1
        stream.options = options
        if time_base is not None:
            stream.time_base = stream.codec_context.time_base = time_base
        if rotation is not None:
            stream.set_display_rotation(rotation)
        if matrix is not None:
            stream.set_display_matrix(matrix)
        if codec == "libsvtav1":
            with ordinary_threads():
                stream.codec_context.open()
        for index, image in enumerate(pixels):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")
            frame.pts = index if times is None else times[index]
            if time_base is not None:
                frame.time_base = time_base
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


@pytest.fixture
def write_video() -> VideoWriter:
    """``write_video(path, frames=None, codec=…, pixel_format=…, times=…, rotation=…)`` -> the path."""
    return write


@pytest.fixture
def make_scenes() -> Callable[..., np.ndarray]:
    """``make_scenes([30, 40])`` -> frames with a hard cut after 30."""
    return scenes


@pytest.fixture
def bad_files(tmp_path: Path) -> dict[str, Path]:
    """Every kind of bad file, by the reason code it must be given."""
    import os

    folder = tmp_path / "bad"
    folder.mkdir()
    whole = write(tmp_path / "whole.mp4", scenes([60, 60])).read_bytes()
    early = write(tmp_path / "early.mp4", scenes([60, 60]), flags="faststart").read_bytes()
    (folder / "cut index at the end.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    (folder / "cut index first.mp4").write_bytes(early[: len(early) * 2 // 3])
    matroska = write(tmp_path / "whole.mkv", scenes([60, 60])).read_bytes()
    (folder / "cut.mkv").write_bytes(matroska[: len(matroska) // 2])
    (folder / "text.mp4").write_text("this is no video\n" * 50)
    (folder / "empty.mp4").touch()
    audio_only(folder / "audio.mp4")
    write(folder / "two.mp4", scene(0, 2, 72, 96))
    (folder / "dangling.mp4").symlink_to(folder / "nowhere.mp4")
    (folder / "loop.mp4").symlink_to(folder / "loop.mp4")
    os.mkfifo(folder / "fifo.mp4")
    (folder / "device.mp4").symlink_to("/dev/zero")
    (folder / "broken disk.mp4").symlink_to("/proc/self/mem")  # reading its first byte gives EIO
    avi = write(tmp_path / "plain.avi", codec="mpeg4").read_bytes()
    assert b"FMP4" in avi
    (folder / "codec.avi").write_bytes(avi.replace(b"FMP4", b"ZQZQ"))
    (folder / "playlist.mp4").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n../whole.mp4\n#EXT-X-ENDLIST\n")
    (folder / "concat.mp4").write_text("ffconcat version 1.0\nfile ../whole.mp4\n")
    return {path.name: path for path in folder.iterdir()}


BAD_CODES = {
    "cut index at the end.mp4": "truncated",
    "cut index first.mp4": "truncated",
    "cut.mkv": "truncated",
    "text.mp4": "not_a_video",
    "empty.mp4": "empty_file",
    "audio.mp4": "no_video_stream",
    "two.mp4": "too_short",
    "dangling.mp4": "dangling_link",
    "loop.mp4": "dangling_link",
    "fifo.mp4": "not_a_regular_file",
    "device.mp4": "not_a_regular_file",
    "broken disk.mp4": "unreadable",
    "codec.avi": "no_decoder:ZQZQ",
    "playlist.mp4": "not_a_video",
    "concat.mp4": "not_a_video",
}


@pytest.fixture
def bad_codes() -> dict[str, str]:
    """Name of a bad file -> the reason code it must be given."""
    return BAD_CODES


def audio_only(path: Path) -> Path:
    """An mp4 with sound and no picture."""
    import av

    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("aac", rate=16000)
        for index in range(10):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, 1024 * index
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path
