"""Technical faults of a picture, without weights: borders, exposure, compression, and frames that stand still.

Stills are grey, spread over the clip; all shares are of the picture or of the clip, 0 to 1. Borders come first: what lies
outside of the rectangle is left out of exposure, else a letterboxed clip would pass for an under-exposed one.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace

from wfm.curation.arrays import to_numpy
from wfm.curation.one_pass import Geometry, Moment, Wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import av

BORDER_LEVEL = 0.09
"Brightest mean of a black line: studio black and what a rough encoder leaves of it."
BORDER_SPREAD = 0.02
"Largest standard deviation along a black line, in every still: a dark scene has more."
THINNEST = 0.01
"A border of less than this share of the side is an edge artefact."
DARK, BRIGHT = 10 / 255, 245 / 255
"Below: crushed. Above: clipped."
CODING_BLOCK = 8
"Pixels of the grid whose seams are looked for: that of MPEG-2, MPEG-4 part 2, JPEG and H.264's transforms."
_PLANAR = ("yuv420p", "yuv422p", "yuv444p", "yuvj420p", "yuvj422p", "yuvj444p", "nv12", "gray")
_STRIP = 64  # rows at a time: they stay in the cache, and 64 sums of at most 510 fit into 16 bits


@dataclasses.dataclass(frozen=True)
class Borders:
    """Black lines around the picture, as shares of its height and width."""

    top: float = 0.0
    bottom: float = 0.0
    left: float = 0.0
    right: float = 0.0

    @property
    def share(self) -> float:
        """Share of the picture outside of the rectangle."""
        return 1 - (1 - self.top - self.bottom) * (1 - self.left - self.right)

    @property
    def kind(self) -> str:
        """``letterbox`` (above and below), ``pillarbox`` (both sides), ``windowbox`` (all round), ``border`` (any other), or
        empty."""
        across, down = min(self.top, self.bottom) > 0, min(self.left, self.right) > 0
        if across and down:
            return "windowbox"
        if across:
            return "letterbox"
        if down:
            return "pillarbox"
        return "border" if self.share > 0 else ""

    def turned(self, transpose: bool, mirror_x: bool, mirror_y: bool) -> "Borders":
        """The borders of the upright picture, whose axes are swapped first and then mirrored."""
        down, across = (self.top, self.bottom), (self.left, self.right)
        if transpose:
            down, across = across, down
        return Borders(*(down[::-1] if mirror_y else down), *(across[::-1] if mirror_x else across))

    def inside(self, gray: Any) -> Any:
        """[T, H, W] -> the picture without its borders."""
        height, width = gray.shape[1:]
        rows = slice(round(self.top * height), height - round(self.bottom * height))
        columns = slice(round(self.left * width), width - round(self.right * width))
        return gray[:, rows, columns]


def borders(gray: Any) -> Borders:
    """Lines at the edges that are black and even in every still. A picture that is black all over has none.

    gray [S, H, W] float in 0..1. A border's last line may be half picture; it counts as picture.
    """
    xp = array_namespace(gray)
    found = []
    for axis in (2, 1):
        mean, spread = (to_numpy(function(gray, axis=axis)) for function in (xp.mean, xp.std))  # [S, lines]
        black = np.all((mean < BORDER_LEVEL) & (spread < BORDER_SPREAD), axis=0)  # [lines]
        black = np.atleast_1d(black)
        if black.all():
            return Borders()
        first, last = int(np.argmin(black)), int(np.argmin(black[::-1]))
        found += [share if share >= THINNEST else 0.0 for share in (first / len(black), last / len(black))]
    return Borders(*found)


def clipped_shares(gray: Any) -> tuple[float, float]:
    """(share of crushed pixels, share of clipped ones), means over stills [S, H, W] without their borders."""
    xp = array_namespace(gray)
    return tuple(float(xp.mean(xp.astype(found, xp.float32))) for found in (gray < DARK, gray > BRIGHT))  # type: ignore[return-value]


def longest_freeze(repeated: np.ndarray, seconds: np.ndarray) -> float:
    """Longest time over which one picture is repeated [s]. repeated bool [T-1], by `static.repeats`; seconds [T]."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], repeated, [False]]).astype(np.int8)))
    starts, ends = edges[::2], edges[1::2]
    return float((seconds[ends] - seconds[starts]).max()) if len(starts) else 0.0


def seams(luma: np.ndarray) -> float:
    """How much more brightness jumps at one of the 8 phases of an 8-pixel grid than at the others: 0 for none, 1 for twice.

    luma uint8 [H, W] at the size that was coded. The smaller of the two axes: coding blocks have seams along both, a fence has
    them along one. Second differences, so that a slope is no seam. The phase is free, so a cropped picture shows its seams too.
    Medians over the lines of a phase, so that one line, such as a border's edge, is no seam.
    """
    if min(luma.shape) < 4 * CODING_BLOCK:
        return 0.0
    answers = []
    height, width = luma.shape
    for total, lines in ((_jumps_across(luma), height), (_jumps_down(luma), width)):
        jump = total / lines
        phases = np.array([np.median(jump[k::CODING_BLOCK]) for k in range(CODING_BLOCK)])
        others = np.median(phases)
        answers.append((phases.max() - others) / (others + 1))  # one grey level: below, nobody sees a seam
    return float(min(answers))


def coded_luma(frame: "av.VideoFrame") -> np.ndarray:
    """uint8 [H, W]: brightness in the codes of the file (of its 8 highest bits), nothing scaled. Read only."""
    if frame.format.name not in _PLANAR:
        frame = frame.reformat(format="yuv420p")
    plane = frame.planes[0]
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: frame.height, : frame.width]


def _jumps_across(luma: np.ndarray) -> np.ndarray:
    """int64 [W-3]: at each column, how far brightness jumps to the next beyond its neighbours' jumps, summed over the rows."""
    total = np.zeros(luma.shape[1] - 3, np.int64)
    for start in range(0, luma.shape[0], _STRIP):
        strip = luma[start : start + _STRIP]
        jump = (np.maximum(strip[:, 1:], strip[:, :-1]) - np.minimum(strip[:, 1:], strip[:, :-1])).astype(np.int16)
        total += np.maximum(2 * jump[:, 1:-1] - jump[:, :-2] - jump[:, 2:], 0).sum(axis=0, dtype=np.int16)
    return total


def _jumps_down(luma: np.ndarray) -> np.ndarray:
    """int64 [H-3]: the same at each row, summed over the columns."""
    total = np.zeros(luma.shape[0] - 3, np.int64)
    for start in range(0, len(total), _STRIP):
        strip = luma[start : start + _STRIP + 3]
        jump = (np.maximum(strip[1:], strip[:-1]) - np.minimum(strip[1:], strip[:-1])).astype(np.int16)
        more = np.maximum(2 * jump[1:-1] - jump[:-2] - jump[2:], 0)
        total[start : start + _STRIP] = more.sum(axis=1, dtype=np.int32)
    return total


class Seams:
    """A consumer of `one_pass`: `seams` of stills at full size, as they were coded, a number each, no picture kept."""

    def __init__(self, frames: "Callable[[Geometry], Iterable[int]]") -> None:
        self._frames = frames
        self._found: list[float] = []

    def wants(self) -> Wanted:
        return Wanted(None, frames=self._frames)

    def begin(self, geometry: Geometry) -> None:
        self._found = []

    def feed(self, moment: Moment) -> None:
        self._found.append(seams(coded_luma(moment.frame)))

    def finish(self) -> None:
        pass

    def result(self) -> float:
        """Median over the stills."""
        return float(np.median(self._found)) if self._found else 0.0
