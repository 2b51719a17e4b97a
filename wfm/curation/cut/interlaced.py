"""Interlaced and telecined film: found while a video is looked at, undone while a clip is encoded.

`FieldScan` sees every frame that `shots.look` decodes: its flag, and of every fourth one (every second of those that are
flagged) whether it is woven of two moments (`combing`). What it says of a span depends on the frames of that span alone.
`whole_frames` then puts interpolated frames in the places of woven ones, one for one, at the same times; every other frame
passes untouched, so that film which is only flagged as interlaced, or only here and there woven, keeps its whole frames to the
last bit.
"""

import dataclasses
import itertools
from array import array
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from wfm.curation.cut.combing import KEEN, SURE, Care, luma, woven

if TYPE_CHECKING:
    import av

_STEP = 4
"Of frames that are not flagged, every so many-th is looked at: no divisor of telecine's five, in which two are woven."
_FLAGGED_STEP = 2
_FIELD_ORDERS = (2, 3, 4, 5)  # AVFieldOrder: tt, bb, tb, bt
_ENOUGH = 2
"So many woven frames of those looked at, where no flag speaks for it, are no accident."


@dataclasses.dataclass(frozen=True)
class Fields:
    """What a span's frames are."""

    flagged: bool = False
    "Most of them say that they are interlaced."
    combed: bool = False
    "Some are woven of two moments."
    top_first: bool = True
    "The even lines of woven frames are the earlier ones."
    throughout: bool = False
    "Most frames that were looked at are woven: film of a camera, not telecine, whose frames are woven two in five."


class FieldScan:
    """Give every frame of a video to `frame`, in order; then ask `of` for any span of which all frames were seen.

    told: whether the container says that the video is interlaced. Memory: some bytes a frame, and two frames.
    """

    def __init__(self, told: bool = False) -> None:
        self._told = told
        self._pts = array("q")
        self._flags = bytearray()
        # Index of a frame that was looked at -> 1: woven, top field first; -1: bottom field first; 0: whole.
        self._leans: dict[int, int] = {}
        self._two: tuple[av.VideoFrame | None, av.VideoFrame | None] = (None, None)

    @classmethod
    def of_stream(cls, stream: Any) -> "FieldScan":
        """For a video stream of which nothing was decoded yet."""
        return cls(int(stream.codec_context.field_order) in _FIELD_ORDERS)

    def frame(self, frame: "av.VideoFrame") -> None:
        """The next frame."""
        before, now = self._two
        index = len(self._pts) - 1  # of ``now``
        step = _FLAGGED_STEP if now is not None and (self._told or now.interlaced_frame) else _STEP
        if before is not None and now is not None and index % step == 0 and _alike(before, now, frame):
            found = woven(luma(before), luma(now), luma(frame))
            self._leans[index] = (1 if found.top_first > found.bottom_first else -1) if found.found(SURE) else 0
        self._pts.append(int(frame.pts))
        self._flags.append(bool(frame.interlaced_frame))
        self._two = (now, frame)

    def of(self, start_pts: int, end_pts: int) -> Fields:
        """What the frames of ``[start_pts, end_pts)`` are."""
        first, last = (int(place) for place in np.searchsorted(np.asarray(self._pts), (start_pts, end_pts)))
        flagged = self._told or 2 * sum(self._flags[first:last]) > last - first
        looked_at = [self._leans[index] for index in range(first + 1, last - 1) if index in self._leans]
        leans = [lean for lean in looked_at if lean]
        combed = len(leans) >= (1 if flagged else _ENOUGH) and 2 * abs(sum(leans)) > len(leans)
        return Fields(flagged, combed, sum(leans) >= 0, combed and 2 * len(leans) > len(looked_at))


def whole_frames(frames: Iterable["av.VideoFrame"], fields: Fields) -> Iterator["av.VideoFrame"]:
    """The frames of a span, with what stands for the woven ones: the same number, at the same times."""
    for _, alike in itertools.groupby(frames, _form):
        yield from _whole_frames(alike, fields)


def _whole_frames(frames: Iterable["av.VideoFrame"], fields: Fields) -> Iterator["av.VideoFrame"]:
    graph: Any = None
    waiting: list[av.VideoFrame] = []  # what the filter has not answered yet
    before: np.ndarray | None = None
    care = KEEN if fields.throughout else SURE
    for frame in itertools.chain(frames, (None,)):
        if frame is not None:
            graph = graph or _bwdif(frame, fields.top_first)
            waiting.append(frame)
        graph.push(frame)  # None: the last one has come
        for made in _ready(graph):
            now, after = waiting[0], waiting[1] if len(waiting) > 1 else None
            yield _chosen(before, now, after, made, care)
            before = luma(waiting.pop(0))
    yield from waiting  # pictures too small for the filter


def unflagged(frames: Iterable["av.VideoFrame"]) -> Iterator["av.VideoFrame"]:
    """The same whole frames without the flag that they are not: where it is set, pixel formats are changed field by field."""
    for _, alike in itertools.groupby(frames, _form):
        graph: Any = None
        for frame in alike:
            if not frame.interlaced_frame:
                yield frame
                continue
            graph = graph or _graph(frame, "setfield", "prog")
            graph.push(frame)
            yield graph.pull()


def _chosen(
    before: np.ndarray | None, now: "av.VideoFrame", after: "av.VideoFrame | None", made: "av.VideoFrame", care: Care
) -> "av.VideoFrame":
    if not woven(before, luma(now), luma(after) if after is not None else None, care).found(care):
        return now
    made.pts, made.time_base, made.duration = now.pts, now.time_base, now.duration
    return made


def _bwdif(frame: "av.VideoFrame", top_first: bool) -> Any:
    """Gives one frame a frame: its earlier field whole, the other one's lines interpolated."""
    return _graph(frame, "bwdif", f"mode=send_frame:parity={'tff' if top_first else 'bff'}:deint=all")


def _graph(frame: "av.VideoFrame", name: str, arguments: str) -> Any:
    """One filter for frames like ``frame``."""
    import av.filter

    graph: Any = av.filter.Graph()
    graph.threads = 1
    source = graph.add_buffer(template=frame, time_base=frame.time_base)
    graph.link_nodes(source, graph.add(name, arguments), graph.add("buffersink")).configure()
    return graph


def _ready(graph: Any) -> Iterator["av.VideoFrame"]:
    from av.error import BlockingIOError, EOFError

    while True:
        try:
            yield graph.pull()
        except (BlockingIOError, EOFError):
            return


def _alike(*frames: "av.VideoFrame") -> bool:
    return len({_form(frame) for frame in frames}) == 1


def _form(frame: "av.VideoFrame") -> tuple[str, int, int]:
    """What a filter is made for."""
    return frame.format.name, frame.width, frame.height
