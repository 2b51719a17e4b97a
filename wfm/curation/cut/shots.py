"""Where one shot ends and the next begins, and how shots become spans of a length that can be used.

Detection is PySceneDetect's or TransNetV2's (shots_transnet), with dissolves and fades on top (shots_gradual), fed with our own
frames: a cut is a frame, and a frame's time is its pts, so spans are true for any frame rate, even or not. All lengths are
compared in seconds of pts. Gaps in time and damaged frames: `wfm.curation.cut.timeline`.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from wfm.curation.cut.shot_detection import Cut, Finder, Mixed, ShotConfig
from wfm.curation.cut.shots_gradual import GradualShots
from wfm.curation.cut.timeline import Line, Timeline
from wfm.curation.prefetch import ahead, frame_bytes
from wfm.data.holes import HOLE_SECONDS

if TYPE_CHECKING:
    import av

    from wfm.data.decode import OpenVideo


@dataclasses.dataclass(frozen=True)
class Span:
    """Frames ``first`` up to and without ``last``."""

    first: int
    last: int


class Looker(Protocol):
    """Who sees a video's frames and shots as they come, in `look`."""

    def frame(self, frame: "av.VideoFrame") -> None:
        """The next frame."""

    def shot(self, first: int, timeline: Timeline) -> None:
        """A shot that has ended: the index of its first frame in the video, and its frames."""


def look(
    video: "OpenVideo",
    config: ShotConfig,
    looker: Looker | None = None,
    *,
    prefetch_bytes: int = 0,
    longest_still: float = HOLE_SECONDS,
    seen: "Callable[[av.VideoFrame], None]" = lambda frame: None,
) -> tuple[Timeline, list[Cut]]:
    """Decode a video once: its timeline, and where a new shot begins. Where frames change their size or the aspect of their
    pixels, one does: a clip has one.

    looker: is told of frames and shots, for the detectors that know a cut soon after it (`tells_soon`). prefetch_bytes: how far
    a thread may decode ahead, 0: not at all. longest_still: how long a frame may last before what follows is a gap [s]. seen:
    is told of every frame that has a place, before the looker. Memory is a window of small pictures and some bytes a frame.
    Raises `VideoError` when decoding fails.
    """
    from av.video.reformatter import VideoReformatter

    from wfm.data.aspect import Aspects
    from wfm.data.decode import VideoError, to_array

    finder, scaler = finder_of(config), VideoReformatter()
    form: tuple[tuple[int, int], str] | None = None
    if looker is not None and not tells_soon(config):
        raise ValueError(f"detector {config.detector!r} (gradual={config.gradual}) tells its cuts at a video's end")
    line, aspects = Line(video, longest_still), Aspects(video)
    begun = 0
    with ahead(aspects.follow(video.shown()), prefetch_bytes, lambda shown: frame_bytes(shown.frame)) as frames:
        for shown in frames:
            if not line.takes(shown, shown.frame.pts in aspects.changes):
                continue
            seen(shown.frame)
            found = line.broken()
            if finder is not None:
                form = form or picture_of(config, shown.frame.height, shown.frame.width)  # one for all frames
                picture = to_array(shown.frame, size=form[0], channels=form[1], upright=False, scaler=scaler)
                found = [*found, *(finder.push(picture) or ())]
            if looker is not None:
                looker.frame(shown.frame)
                for cut in sorted({one for one in found if one > begun}):
                    looker.shot(begun, line.part(begun, cut))
                    begun = cut
    if not line.pts:
        words = f"all of {line.num_damaged} frames are damaged" if line.num_damaged else "no frame could be decoded"
        raise VideoError(video.path, "decode_error", words)
    if looker is not None:
        looker.shot(begun, line.part(begun, len(line.pts)))
    timeline = line.whole()
    cuts: list[Cut] = finder.finish() if finder is not None else []
    return timeline, [*cuts, *line.breaks]


def tells_soon(config: ShotConfig) -> bool:
    """Whether the detector knows a cut a few frames after it."""
    return config.detector in ("adaptive", "content") and not config.gradual


def finder_of(config: ShotConfig) -> Finder | None:
    """Who looks for cuts; None for the detectors that look at no picture."""
    if config.detector in ("stride", "whole"):
        return None
    if config.detector == "transnetv2":
        from wfm.curation.cut.shots_transnet import TransNetShots

        return TransNetShots(config)
    return _Classical(config)


def picture_of(config: ShotConfig, height: int, width: int) -> tuple[tuple[int, int], str]:
    """((height, width), channels) of the picture that a finder is fed, for frames of ``height`` x ``width``."""
    if config.detector == "transnetv2":
        from wfm.curation.cut.shots_transnet import PICTURE

        return PICTURE, "rgb24"
    return _shrunk(height, width, config.detection_side), "bgr24"


def spans(timeline: Timeline, cuts: Sequence[Cut], config: ShotConfig) -> tuple[list[Span], list[Span]]:
    """(spans to keep, spans that are too short). Together with what is cropped, and what is mixed out of two shots, they cover
    every frame, the last one too."""
    kept: list[Span] = []
    short: list[Span] = []
    for shot in _shots(cuts, len(timeline.pts)):
        for pieces, more in zip((kept, short), spans_of_shot(timeline, shot, config), strict=True):
            pieces += more
    return kept, short


def spans_of_shot(timeline: Timeline, whole: Span, config: ShotConfig) -> tuple[list[Span], list[Span]]:
    """The same of one shot; ``timeline`` need not know more than its frames and its end."""
    shot = _crop(timeline, whole, config)
    if shot.first >= shot.last:
        return [], [whole]  # cropping left nothing
    kept: list[Span] = []
    short: list[Span] = []
    for span in _divide(timeline, shot, config):
        long_enough = timeline.seconds_between(span.first, span.last) >= config.minimum_seconds - 1e-6
        (kept if long_enough else short).append(span)
    return kept, short


def _shots(cuts: Sequence[Cut], count: int) -> Iterator[Span]:
    """What lies between the cuts of a video of ``count`` frames."""
    begin = 0
    for cut in sorted((cut if isinstance(cut, Mixed) else Mixed(cut, cut)) for cut in cuts):
        first, last = max(cut.first, begin), min(cut.last, count)
        if last <= begin or first >= count:
            continue
        if first > begin:
            yield Span(begin, first)
        begin = last
    if begin < count:
        yield Span(begin, count)


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


class _Classical:
    """PySceneDetect's detectors, with dissolves and fades where asked for; a hard cut inside one of these is part of it."""

    def __init__(self, config: ShotConfig) -> None:
        self._begins_shot = _detector(config)
        self._gradual = GradualShots(config.gradual_ratio) if config.gradual else None
        self._cuts: set[int] = set()
        self._index = 0

    def push(self, picture: np.ndarray) -> Sequence[int] | None:
        found = self._begins_shot(self._index, picture) if self._begins_shot is not None else []
        found = sorted(cut for cut in set(found) if cut > 0 and cut not in self._cuts)
        self._cuts.update(found)
        if self._gradual is not None:
            self._gradual.push(picture)
        self._index += 1
        return found if self._gradual is None else None

    def finish(self) -> list[Cut]:
        mixed = self._gradual.finish() if self._gradual is not None else []
        hard: list[Cut] = [c for c in self._cuts if not any(m.first - 1 <= c <= m.last + 1 for m in mixed)]
        return sorted([*hard, *mixed], key=lambda cut: cut if isinstance(cut, int) else cut.first)


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
