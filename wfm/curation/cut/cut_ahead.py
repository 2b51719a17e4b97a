"""Clips that are encoded while their video is still being looked at, so that it is decoded once.

Whether a frame goes into a clip is known only when its shot has ended: lengths are judged, and long shots divided evenly. Until
then decoded frames wait here, by at most so many bytes. A shot of more is left to the `Cutter`, which decodes it again; so is
what can be cut by copying packets, and everything of the detectors that tell cuts only at a video's end. Either way the same
frames go through the same encoder with the same settings, and the file is the same.
"""

import itertools
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from wfm.curation.cut.cutter import Cutter, Written
from wfm.curation.cut.shots import Looker, Span
from wfm.curation.cut.timeline import Timeline
from wfm.curation.prefetch import frame_bytes

if TYPE_CHECKING:
    import av

_KEPT_BEHIND = 8
"Frames that are held in a shot that is too large already: a detector names a cut a few frames late."


class CutAhead(Looker):
    """Give it to `shots.look`; afterwards ``written`` holds the clips that are done, by the pts of their span.

    wanted: the spans of one shot that become clips, by its frames. target: where the clip of a pts range goes.
    """

    def __init__(
        self,
        cutter: Cutter,
        wanted: Callable[[Timeline, Span], list[Span]],
        target: Callable[[int, int], Path],
        maximum_bytes: int,
    ) -> None:
        self.written: dict[tuple[int, int], Written] = {}
        self._cutter, self._wanted, self._target, self._maximum = cutter, wanted, target, maximum_bytes
        self._frames: deque[av.VideoFrame] = deque()
        self._first = 0  # index of the first frame that is held
        self._bytes = 0

    def frame(self, frame: "av.VideoFrame") -> None:
        """The next frame of the video."""
        self._frames.append(frame)
        self._bytes += frame_bytes(frame)
        if self._bytes > self._maximum:
            self._drop(len(self._frames) - _KEPT_BEHIND)

    def shot(self, first: int, timeline: Timeline) -> None:
        """A shot that has ended."""
        count = len(timeline.pts)
        if first == self._first:
            for span in self._wanted(timeline, Span(0, count)):
                start, end = int(timeline.pts[span.first]), timeline.end_of(span.last)
                if self._cutter.copies(start, end, span.last - span.first) is None:
                    frames = itertools.islice(self._frames, span.first, span.last)
                    target = self._target(start, end)
                    self.written[start, end] = self._cutter.encode(frames, start, end, target, span.last - span.first)
        self._drop(first + count - self._first)

    def _drop(self, count: int) -> None:
        for _ in range(max(count, 0)):
            self._bytes -= frame_bytes(self._frames.popleft())
            self._first += 1
