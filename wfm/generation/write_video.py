"""Frames -> an mp4 that any player opens."""

from fractions import Fraction
from pathlib import Path

import numpy as np

from wfm.artifacts.atomic import whole_file
from wfm.data.colour import as_bt709, tag
from wfm.data.x264 import STEADY
from wfm.errors import ConfigError, DataError


def write_mp4(path: Path, frames: np.ndarray, fps: float, *, crf: int = 14) -> None:
    """Write frames uint8 ``[T, H, W, 3]`` (RGB, even sides) as H.264 in BT.709 at ``fps``; the file appears whole or not at
    all."""
    import av

    if (
        frames.dtype != np.uint8
        or frames.ndim != 4
        or not frames.size
        or frames.shape[3] != 3
        or frames.shape[1] % 2
        or frames.shape[2] % 2
    ):
        raise ConfigError(f"frames are {frames.dtype} {frames.shape}; wanted uint8 [T, H, W, 3] with even H and W")
    if not 0 < fps < float("inf"):
        raise ConfigError(f"fps is {fps}; a rate is a positive number of frames a second")
    faststart = {"movflags": "faststart"}
    with whole_file(path) as temporary, av.open(str(temporary), "w", format="mp4", options=faststart) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        stream.options = {"crf": str(crf), "preset": "medium", **STEADY}
        stream.thread_count = 1  # the same bytes on any machine
        tag(stream.codec_context)
        for frame in frames:
            container.mux(stream.encode(as_bt709(frame)))
        container.mux(stream.encode())


def to_uint8(video: np.ndarray) -> np.ndarray:
    """``[3, T, H, W]`` or ``[B, 3, T, H, W]`` in [-1, 1] -> uint8 with the channels last. Raises DataError for values that are
    not finite: cast, they would be pixels like any other."""
    if not np.isfinite(video).all():
        bad = int((~np.isfinite(video)).sum())
        raise DataError(
            f"a video of shape {video.shape} has {bad} values that are not finite: no pixels can be made of them"
        )
    return np.clip(np.rint((np.moveaxis(video, -4, -1) + 1.0) * 127.5), 0, 255).astype(np.uint8)


def from_uint8(frames: np.ndarray) -> np.ndarray:
    """The inverse: uint8 ``[..., T, H, W, 3]`` -> float32 ``[..., 3, T, H, W]`` in [-1, 1]."""
    return np.moveaxis(frames.astype(np.float32) / 127.5 - 1.0, -1, -4)
