"""How oblong a video's pixels are, frame by frame: broadcasts go from 4:3 to 16:9 without a new size.

Frames carry their own aspect, which the codec library's binding does not show; a filter that scales by it does. Only frames
around a change are asked: the decoder knows of one before the first frame that has it comes out.
"""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import av

    from wfm.data.decode import OpenVideo
    from wfm.data.frame_order import Shown

_STEPS = 4096
"Aspects are told apart by this part of a pixel's height."
_MOST = 8
"More oblong pixels than that, either way, are a damaged header; real ones stay below 3."


class Aspects:
    """The widths of a video's pixels over their heights. Make it before the first frame is decoded."""

    def __init__(self, video: "OpenVideo") -> None:
        self._context = video.stream.codec_context
        told = _real(video.stream.sample_aspect_ratio)
        self._begins = _real(self._context.sample_aspect_ratio)
        self._first = told or Fraction(1)
        # A container that says otherwise than the pictures in it was put right by somebody; one that says the same only copied
        # what stands at their beginning.
        self.fixed = told is not None and told != self._begins
        "Whether the container's word counts, for all frames alike."
        self._seen = self._begins
        self._last = self._first
        self._settled = True
        self.changes: set[int] = set()
        "The pts of frames that begin a new aspect, of those that went through `follow`."

    def follow(self, frames: Iterable["Shown"]) -> Iterator["Shown"]:
        """The same frames, straight from the decoder; `changes` knows of each before it comes."""
        for shown in frames:
            frame = shown.frame
            now = _real(self._context.sample_aspect_ratio)
            if not self.fixed and (now != self._seen or not self._settled):
                aspect = self.of(frame)
                self._settled = aspect == (now or 1)
                if aspect != self._last:
                    self.changes.add(int(frame.pts))
                self._last, self._seen = aspect, now
            yield shown

    def of(self, frame: "av.VideoFrame") -> Fraction:
        """The aspect of one decoded frame of this video."""
        if self.fixed:
            return self._first
        steps = _steps(frame)
        for known in (self._first, _real(self._context.sample_aspect_ratio)):
            if known is not None and abs(known * _STEPS - steps) <= 1:
                return known
        return _real(_simplest(steps)) or Fraction(1)


def _real(aspect: Fraction | None) -> Fraction | None:
    return aspect if aspect and Fraction(1, _MOST) <= aspect <= _MOST else None


def _steps(frame: "av.VideoFrame") -> int:
    import av.filter

    graph: Any = av.filter.Graph()
    last = graph.add_buffer(template=frame, time_base=frame.time_base or Fraction(1, 90000))
    scale = f"w=trunc(min(max(sar\\,1/32)\\,32)*{_STEPS}):h=2:eval=frame:flags=neighbor"
    for name, arguments in (("scale", scale), ("buffersink", "")):
        node = graph.add(name, arguments) if arguments else graph.add(name)
        last.link_to(node)
        last = node
    graph.configure()
    graph.push(frame)
    return int(graph.pull().width)


def _simplest(steps: int) -> Fraction:
    """The fraction of the smallest denominator that gives so many steps."""
    for denominator in range(1, _STEPS):
        numerator = -(-steps * denominator // _STEPS)
        if numerator * _STEPS < (steps + 1) * denominator:
            return Fraction(numerator, denominator)
    return Fraction(steps, _STEPS)
