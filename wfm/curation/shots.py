"""Where one shot ends and the next begins, and how shots become spans of a length that can be used.

Detection is PySceneDetect's, fed with our own frames: a cut is a frame, and a frame's time is its pts, so spans are true for
any frame rate, even or not. All lengths are compared in seconds of pts.
"""

import dataclasses
import itertools
from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import pydantic

from wfm.config import Config

if TYPE_CHECKING:
    from wfm.data.decode import OpenVideo

Detector = Literal["adaptive", "content", "stride", "whole"]


class ShotConfig(Config):
    """How a video is divided into spans."""

    detector: Detector = "adaptive"
    """adaptive (a frame differs far more than its neighbours do: bears moving cameras), content (it differs more than a
    threshold), stride (fixed length) or whole (no division)."""
    adaptive_ratio: float = 3.0
    "adaptive: how many times more than its neighbours a frame must differ."
    minimum_content: float = 15.0
    "adaptive: and at least by this (mean HSV difference, 0 to 255)."
    content_threshold: float = 27.0
    "content: mean HSV difference that makes a cut (0 to 255)."
    stride_seconds: float = 10.0
    "stride: length of a span [s]."
    minimum_seconds: float = 1.5
    "Shorter spans are left out and counted [s]."
    maximum_seconds: float = 60.0
    "Longer spans are divided evenly [s]."
    crop_start_seconds: float = 0.0
    "Cut off the beginning of every shot, such as for fades [s]."
    crop_end_seconds: float = 0.0
    "Cut off the end of every shot [s]."
    detection_side: int = 128
    "Shorter side of the pictures that detection looks at [pixels]; smaller videos are looked at as they are."

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Self:
        if not 0 < 2 * self.minimum_seconds <= self.maximum_seconds:
            raise ValueError(
                f"maximum_seconds={self.maximum_seconds} must be at least twice minimum_seconds={self.minimum_seconds}, "
                "and both positive: an evenly divided span may be half the maximum"
            )
        if self.stride_seconds < self.minimum_seconds:
            raise ValueError(f"stride_seconds={self.stride_seconds} is below minimum_seconds={self.minimum_seconds}")
        if min(self.crop_start_seconds, self.crop_end_seconds) < 0 or self.detection_side < 16:
            raise ValueError("crop_start_seconds and crop_end_seconds must be at least 0, detection_side at least 16")
        return self


@dataclasses.dataclass(frozen=True)
class Timeline:
    """The frames of a video in order: ``pts`` int64 [N] in ticks of ``time_base`` seconds, and where the last one ends."""

    pts: np.ndarray
    end_pts: int
    time_base: Fraction

    def end_of(self, index: int) -> int:
        """The pts at which the frame before ``index`` gives way: the next frame's, or the end for the last."""
        return int(self.pts[index]) if index < len(self.pts) else self.end_pts

    def seconds_between(self, first: int, last: int) -> float:
        """Length of the frames ``first`` up to and without ``last`` [s]."""
        return float((self.end_of(last) - int(self.pts[first])) * self.time_base)


@dataclasses.dataclass(frozen=True)
class Span:
    """Frames ``first`` up to and without ``last``."""

    first: int
    last: int


def look(video: "OpenVideo", config: ShotConfig) -> tuple[Timeline, list[int]]:
    """Decode a video once: its timeline, and the indices of the frames that begin a new shot.

    Memory is one small picture and eight bytes a frame. Raises `VideoError` when decoding fails.
    """
    from wfm.data.decode import VideoError, to_array

    begins_shot = _detector(config)
    pts: list[int] = []
    cuts: list[int] = []
    duration = 0
    for index, frame in enumerate(video.frames()):
        pts.append(int(frame.pts))
        duration = frame.duration
        if begins_shot is not None:
            height, width = _shrunk(frame.height, frame.width, config.detection_side)
            cuts += begins_shot(index, to_array(frame, size=(height, width), channels="bgr24", upright=False))
    if not pts:
        raise VideoError(video.path, "decode_error", "no frame could be decoded")
    end_pts = video.end_pts(pts[-1], duration)
    return Timeline(np.asarray(pts, dtype=np.int64), end_pts, video.time_base), sorted(set(cuts))


def spans(timeline: Timeline, cuts: list[int], config: ShotConfig) -> tuple[list[Span], list[Span]]:
    """(spans to keep, spans that are too short). Together with what is cropped they cover every frame, the last one too."""
    count = len(timeline.pts)
    borders = [0, *(cut for cut in cuts if 0 < cut < count), count]
    kept: list[Span] = []
    short: list[Span] = []
    for first, last in itertools.pairwise(borders):
        shot = _crop(timeline, Span(first, last), config)
        for span in _divide(timeline, shot, config) if shot.first < shot.last else []:
            long_enough = timeline.seconds_between(span.first, span.last) >= config.minimum_seconds - 1e-6
            (kept if long_enough else short).append(span)
        if shot.first >= shot.last:
            short.append(Span(first, last))  # cropping left nothing
    return kept, short


def _crop(timeline: Timeline, shot: Span, config: ShotConfig) -> Span:
    seconds = float(timeline.time_base)
    begin = int(timeline.pts[shot.first]) + config.crop_start_seconds / seconds
    end = timeline.end_of(shot.last) - config.crop_end_seconds / seconds
    first = max(shot.first, int(np.searchsorted(timeline.pts, begin - 1e-6)))
    last = shot.last
    while last > first and timeline.end_of(last) > end + 1e-6:
        last -= 1
    return Span(first, last)


def _divide(timeline: Timeline, shot: Span, config: ShotConfig) -> list[Span]:
    """One shot -> pieces: of the stride's length with a remainder, or as few even ones as the maximum allows."""
    length = timeline.seconds_between(shot.first, shot.last)
    if config.detector == "stride":
        step = config.stride_seconds
    elif length > config.maximum_seconds + 1e-6:
        step = length / int(np.ceil(length / config.maximum_seconds - 1e-9))
    else:
        return [shot]
    ticks = step / float(timeline.time_base)
    start = int(timeline.pts[shot.first])
    edges = np.arange(1, int(np.ceil(length / step - 1e-6))) * ticks + start
    inner = [int(i) for i in np.searchsorted(timeline.pts, edges - 0.5) if shot.first < i < shot.last]
    borders = [shot.first, *dict.fromkeys(inner), shot.last]
    return [Span(first, last) for first, last in itertools.pairwise(borders)]


def _detector(config: ShotConfig) -> Callable[[int, np.ndarray], list[int]] | None:
    """(index, BGR picture) -> indices of frames that begin a shot, possibly some frames late."""
    if config.detector in ("stride", "whole"):
        return None
    from scenedetect import FrameTimecode
    from scenedetect.detectors import AdaptiveDetector, ContentDetector

    detector: Any
    if config.detector == "adaptive":
        detector = AdaptiveDetector(
            adaptive_threshold=config.adaptive_ratio, min_content_val=config.minimum_content, min_scene_len=0
        )
    else:
        detector = ContentDetector(threshold=config.content_threshold, min_scene_len=0)
    # The detector's clock counts frames, whatever their times: lengths are judged by pts afterwards.
    return lambda index, image: [cut.frame_num for cut in detector.process_frame(FrameTimecode(index, 25.0), image)]


def _shrunk(height: int, width: int, side: int) -> tuple[int, int]:
    scale = min(1.0, side / min(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))
