"""The frames of a video in time, and where something other than what they show breaks it.

A gap in time is a break, and no clip spans one. What tells a gap from a picture that stands still is how a video's frames
otherwise come: where they come evenly, a second without one is a hole (`HOLE_SECONDS`); where they come as they please, as in
recordings of a screen, a picture may stand for up to `STILL_SECONDS`. Longer is a break in either: a clip of two pictures is
none. Frames that cannot be trusted (`wfm.data.frame_order`) are left out; up to `BRIDGE_SECONDS` of them are to a shot what
frames are that the camera dropped, more end it.
"""

import dataclasses
import statistics
from collections import deque
from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from wfm.data.decode import OpenVideo
    from wfm.data.frame_order import Shown

STILL_SECONDS = 10.0
BRIDGE_SECONDS = 0.5
_USUAL_FRAMES = 31
"Frames that tell how long one usually lasts."
_HOLE_FRAMES = 4
"And a gap is longer than so many: in slow videos a frame lasts long."


@dataclasses.dataclass(frozen=True)
class Damaged:
    """A stretch of frames that cannot be trusted (`wfm.data.frame_order`), in ticks."""

    start_pts: int
    end_pts: int
    num_frames: int


@dataclasses.dataclass(frozen=True)
class Timeline:
    """The frames of a video in order: ``pts`` int64 [N] in ticks of ``time_base`` seconds, and where the last one ends."""

    pts: np.ndarray
    end_pts: int
    time_base: Fraction
    ends: Mapping[int, int] = dataclasses.field(default_factory=dict)
    "Where the frame before an index ends, for those that come after a gap."
    damaged: tuple[Damaged, ...] = ()
    "What was left out between the frames, or before them."

    def end_of(self, index: int) -> int:
        """The pts at which the frame before ``index`` gives way: the next frame's, or the end before a gap and for the last."""
        if index in self.ends:
            return self.ends[index]
        return int(self.pts[index]) if index < len(self.pts) else self.end_pts

    def seconds_between(self, first: int, last: int) -> float:
        """Length of the frames ``first`` up to and without ``last`` [s]."""
        return float((self.end_of(last) - int(self.pts[first])) * self.time_base)


class Line:
    """The timeline of a video as its frames come, and where something other than its pictures' content breaks it."""

    def __init__(self, video: "OpenVideo", longest_still: float) -> None:
        self.pts: list[int] = []
        self.breaks: list[int] = []
        self._video, self._longest = video, longest_still
        self._ends: dict[int, int] = {}
        self._damaged: list[Damaged] = []
        self._bad: Damaged | None = None  # the stretch that lasts
        self._joint = self._reshaped = False
        self._size: tuple[int, int] | None = None
        self._duration = 0
        self._gaps: deque[int] = deque(maxlen=_USUAL_FRAMES)

    def takes(self, shown: "Shown", reshaped: bool = False) -> bool:
        """The next frame; whether it has a place in the timeline, which damaged ones have not.

        reshaped: its pixels have another aspect than those before it.
        """
        time = int(shown.frame.pts)
        self._joint |= shown.joint
        self._reshaped |= reshaped
        if shown.damaged:
            start, count = (self._bad.start_pts, self._bad.num_frames) if self._bad is not None else (time, 0)
            self._bad = Damaged(start, time + int(shown.frame.duration or self._video.tick), count + 1)
            return False
        size = shown.frame.height, shown.frame.width
        if self.pts and self._breaks_before(time, size):
            self.breaks.append(len(self.pts))
        self._close_damage(time)
        self.pts.append(time)
        self._joint = self._reshaped = False
        self._size, self._duration = size, int(shown.frame.duration or 0)
        return True

    @property
    def num_damaged(self) -> int:
        """Damaged frames so far."""
        return sum(one.num_frames for one in self._damaged) + (self._bad.num_frames if self._bad is not None else 0)

    def broken(self) -> list[int]:
        """The number of the last frame where it begins something new, else nothing."""
        return self.breaks[-1:] if self.breaks and self.breaks[-1] == len(self.pts) - 1 else []

    def part(self, first: int, last: int) -> Timeline:
        """The frames from ``first`` up to and without ``last``."""
        end = self._ends.get(last, self.pts[last] if last < len(self.pts) else self._end())
        return Timeline(np.asarray(self.pts[first:last], dtype=np.int64), end, self._video.time_base)

    def whole(self) -> Timeline:
        """The timeline when the last frame has come."""
        end = self._end()
        self._close_damage(None)
        return dataclasses.replace(
            self.part(0, len(self.pts)), end_pts=end, ends=self._ends, damaged=tuple(self._damaged)
        )

    def _breaks_before(self, time: int, size: tuple[int, int]) -> bool:
        before, index = self.pts[-1], len(self.pts)
        gap, seconds = time - before, self._video.time_base
        if self._bad is not None and float((time - self._bad.start_pts) * seconds) > BRIDGE_SECONDS:
            self._ends[index] = self._bad.start_pts
        elif self._joint or (float(gap * seconds) > self._longest and gap > _HOLE_FRAMES * self._usual()):
            usual = self._usual()
            lasts = self._duration if 0 < self._duration <= 2 * usual else usual
            self._ends[index] = before + min(max(1, round(lasts)), gap)
        elif self._bad is None:
            self._gaps.append(gap)
        return index in self._ends or size != self._size or self._reshaped

    def _close_damage(self, time: int | None) -> None:
        if self._bad is not None:
            end = self._bad.end_pts if time is None else min(self._bad.end_pts, time)
            self._damaged.append(dataclasses.replace(self._bad, end_pts=end))
            self._bad = None

    def _end(self) -> int:
        if self._bad is not None:
            return self._bad.start_pts
        return self._video.end_pts(self.pts[-1], self._duration)

    def _usual(self) -> float:
        """How long a frame usually lasts, in ticks."""
        return statistics.median(self._gaps) if self._gaps else self._video.tick
