"""What a model is shown of a clip: windows of frames, and pictures at even times in each.

Windows have 256 frames, as Cosmos does it; what is left at the end is a window of its own from half of that on, else part of
the last. A clip of fewer than 4 frames has none; a still image is one window of one picture. Pictures are taken by time, not by
frame number, so a clip of variable frame rate is seen evenly.
"""

import io
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pydantic

from wfm.config import Config
from wfm.curation.step import Skip
from wfm.data.colour import as_bt709, tag

FEWEST_FRAMES = 4
_LATE_SECONDS = 1e-6  # seconds that went through a float


class ShownConfig(Config):
    """How a clip is laid before a model."""

    window_frames: int = pydantic.Field(256, ge=FEWEST_FRAMES)
    "Frames of a window."
    frames_per_second: float = pydantic.Field(2.0, gt=0, le=60)
    "Pictures shown of each second of a window [1/s]; at least one, the first frame."
    largest_side: int = pydantic.Field(448, ge=16)
    "Pictures are shrunk until no side is longer [pixels]."
    frames_as: Literal["images", "video"] = "images"
    "images: one picture after the other, which every vision model takes; video: one film, for models that know time."


class Window(NamedTuple):
    """Frames [start, end) of a clip."""

    start: int
    end: int


def windows(frames: int, length: int, *, still: bool = False) -> list[Window]:
    """Windows of `length` frames over a clip of `frames` frames, or over a still image."""
    if still:
        return [Window(0, 1)]
    if frames < FEWEST_FRAMES:
        return []
    starts = list(range(0, frames, length))
    if len(starts) > 1 and frames - starts[-1] < length / 2:
        starts.pop()
    return [Window(start, end) for start, end in zip(starts, [*starts[1:], frames], strict=True)]


def shown_frames(
    path: Path,
    spans: Sequence[Window],
    config: ShownConfig,
    keep: Callable[[np.ndarray], Any] = lambda picture: picture,
) -> list[list[Any]]:
    """`keep` of the pictures (uint8 [H, W, 3] RGB) of each window, in one pass over the clip, full size one at a time.

    Raises VideoError, and `Skip` (``truncated``) for a clip that ends before its last window begins.
    """
    from wfm.data.decode import open_video, to_array
    from wfm.data.images import format_of, read_image

    if format_of(path):
        return [[keep(shrunk(read_image(path), config.largest_side))] for _ in spans]
    found: list[list[Any]] = [[] for _ in spans]
    number, begun = 0, 0.0
    with open_video(path) as video:
        for index, frame in enumerate(video.frames()):
            while number < len(spans) - 1 and index >= spans[number].end:
                number += 1
            seconds, taken = video.seconds(frame.pts), found[number]
            begun = begun if taken else seconds
            if seconds >= begun + len(taken) / config.frames_per_second - _LATE_SECONDS:
                taken.append(keep(shrunk(to_array(frame), config.largest_side)))
    if spans and not found[-1]:
        raise Skip("truncated", f"the clip ends before frame {spans[-1].start}")
    return found


def shrunk(picture: np.ndarray, largest_side: int) -> np.ndarray:
    """uint8 [H, W, 3] that fits, of the same shape; a smaller one stays as it is."""
    import cv2

    height, width = picture.shape[:2]
    scale = largest_side / max(height, width)
    if scale >= 1:
        return picture
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def jpeg(picture: np.ndarray) -> bytes:
    """uint8 [H, W, 3] RGB as JPEG."""
    import cv2

    _, data = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 90])
    return data.tobytes()


def film(jpegs: Sequence[bytes], frames_per_second: float) -> bytes:
    """Pictures of one window as an mp4 (h264) of that rate; an odd last row or column is left out."""
    import av
    import cv2

    pictures = [np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)) for data in jpegs]
    height, width = (side // 2 * 2 for side in pictures[0].shape[:2])
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        rate = Fraction(frames_per_second).limit_denominator(1000)
        stream = container.add_stream("libx264", rate=rate, options={"crf": "18", "threads": "1"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        tag(stream.codec_context)
        for picture in pictures:
            container.mux(stream.encode(as_bt709(picture[:height, :width], "bgr24")))
        container.mux(stream.encode())
    return out.getvalue()
