"""Dissolves and fades by arithmetic on thumbnails: no model.

While a shot A dissolves into B, a picture is (1 - w) A + w B. Two shots have their fine detail in different places, so the
energy of the picture's gradients falls and rises again as (1 - w)^2 E(A) + w^2 E(B): half of what is between the two at the
middle. Motion inside the shots hardly changes that energy, so this is looked for first, a number a frame, in windows of many
lengths. Then the pictures themselves: they lie near the line from A to B, and every part of them walks along it evenly. A
camera out of focus or before a plain wall loses detail too, but its pictures are no mean of what is before and behind; a pan
strays from the line and keeps its detail; a hard cut jumps; what wipes over the picture changes its parts in turn; and of a
lamp that is turned up A and B correlate. A fade passes through a picture that is dark and flat.

Thumbnails, because motion inside the two shots matters less on blurred pictures. Memory is one window of them and two numbers
a frame. Not told from dissolves: some quick pans over soft, plain pictures, whose blur mixes neighbours as a dissolve does.
"""

from collections import deque
from collections.abc import Iterator

import numpy as np

from wfm.curation.cut.shot_detection import Mixed

_ROWS, _COLUMNS = 18, 32
_LENGTHS = np.array([6, 7, 8, 9, 10, 12, 14, 16, 18, 21, 24, 28, 32, 37, 43, 50])
"""Frames from the last of one shot to the first of the next: up to two seconds of 25 a second."""
_REACH = int(_LENGTHS[-1])
_LEAST_CHANGE = 10.0  # root mean square between A and B, 0 to 255: less is no other picture
_MOST_ALIKE = 0.85  # correlation of A and B: above, it is the same picture in another light, or a little further on
_LEAST_DETAIL = 50.0  # mean square of a thumbnail's gradients: less is grain, and what soft blots there are
_LEAST_SHARE = 0.2  # of the mean of E(A) and E(B) that each has: else one of them is plain, and nothing falls and rises
_DARK, _FLAT = 24.0, 10.0  # a fade's middle: mean and spread of its brightness, 0 to 255
_WEIGHT = 3.0  # of the detail, which tells most
_PARTS = (3, 4)  # rows and columns of the parts that have to walk together

# A row a length, a column a frame, the newest last: the way from A to B, for frames strictly between.
_AGE = _REACH - np.arange(_REACH + 1)
_BETWEEN = (_AGE > 0) & (_LENGTHS[:, None] > _AGE)
_WAY = np.where(_BETWEEN, 1 - _AGE / _LENGTHS[:, None], 0.0)
_OF_OLD, _OF_NEW = np.where(_BETWEEN, (1 - _WAY) ** 2, 0.0), _WAY**2


class GradualShots:
    """Fed with every picture of a video, tells the frames that mix two shots. ``ratio`` is how far a window may be from a
    dissolve, the sum of three shares: how far its pictures stray from the line from A to B, of its length; how far its parts
    are from an even walk along it, of the way; and three times how far the detail strays from its course, of its mean."""

    def __init__(self, ratio: float) -> None:
        self._ratio = ratio
        self._window: deque[np.ndarray] = deque(maxlen=_REACH + 1)
        self._detail = np.full(_REACH + 1, np.nan)
        self._light: list[float] = []
        self._spread: list[float] = []
        self._found: list[tuple[float, int, int]] = []  # (how far from a dissolve, first, last)

    def push(self, picture: np.ndarray) -> None:
        """The next picture, uint8 [H, W, 3], at least 18 x 32."""
        small = thumbnail(picture)
        self._light.append(float(small.mean()))
        self._spread.append(float(small.std()))
        self._window.append(small.ravel())
        self._detail[:-1] = self._detail[1:]
        self._detail[-1] = _detail(small)
        strays = self._detail_strays()
        for row in np.flatnonzero(strays < self._ratio / _WEIGHT):
            self._look_at(int(_LENGTHS[row]), float(strays[row]))

    def finish(self) -> list[Mixed]:
        """The mixed frames of the whole video, in order, none overlapping."""
        taken = sorted(self._fades())
        for _, first, last in sorted(self._found):
            if all(last + 2 < other.first or other.last + 2 < first for other in taken):
                taken.append(Mixed(first, last))
        return sorted(taken)

    def _detail_strays(self) -> np.ndarray:
        """For the window of each length that ends with the newest frame: how far the detail is from a dissolve's course, mean
        over frames as a share of its mean at the ends; infinite where it says nothing or the video is not that long."""
        old, new = self._detail[_REACH - _LENGTHS], self._detail[-1]
        mean = (old + new) / 2
        course = _OF_OLD * old[:, None] + _OF_NEW * new
        off = np.where(_BETWEEN, np.abs(self._detail - course), 0).sum(axis=1) / (_LENGTHS - 1)
        told = (mean > _LEAST_DETAIL) & (np.minimum(old, new) > _LEAST_SHARE * mean)  # false where a frame is missing
        return np.where(told, off / np.where(told, mean, 1), np.inf)

    def _look_at(self, length: int, detail_stray: float) -> None:
        """Judge the pictures of the window of ``length + 1`` frames that ends with the newest."""
        size = len(self._window)
        start, end = self._window[size - length - 1], self._window[-1]
        way = end - start
        distance = float(way @ way)
        if distance < _LEAST_CHANGE**2 * way.size or _correlation(start, end) > _MOST_ALIKE:
            return
        frames = np.stack([self._window[k] - start for k in range(size - length, size - 1)])
        off = np.einsum("ij,ij->i", frames, frames) / distance - (frames @ way / distance) ** 2
        stray = float(np.sqrt(np.maximum(off, 0)).mean()) + _WEIGHT * detail_stray
        if stray < self._ratio:
            stray += _unevenness(frames, way)
        if stray < self._ratio:
            newest = len(self._light) - 1
            self._found.append((stray, newest - length + 1, newest))

    def _fades(self) -> Iterator[Mixed]:
        """Dark flat stretches between lit ones, with the slopes on both sides."""
        light, spread = np.array(self._light), np.array(self._spread)
        dark = (light < _DARK) & (spread < _FLAT)
        index = 0
        while index < len(dark):
            if not dark[index]:
                index += 1
                continue
            first = last = index
            while last < len(dark) and dark[last]:
                last += 1
            index = last
            first, last = _slope(light, first, -1), _slope(light, last - 1, +1) + 1
            if first > 0 and last < len(light) and last - first >= 4:  # a jump into black and out again is two cuts
                yield Mixed(first, last)


def thumbnail(picture: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] -> float32 [18, 32, 3] of block means."""
    height, width = picture.shape[:2]
    rows = np.arange(_ROWS) * height // _ROWS
    columns = np.arange(_COLUMNS) * width // _COLUMNS
    # Rows first, in small integers: sums of at most a few thousand bytes fit, and whole rows add up fast.
    total = np.add.reduceat(picture.reshape(height, -1), rows, axis=0, dtype=np.uint32)
    total = np.add.reduceat(total.reshape(_ROWS, width, -1), columns, axis=1).astype(np.float32)
    heights, widths = np.diff(np.append(rows, height)), np.diff(np.append(columns, width))
    means: np.ndarray = total / (heights[:, None, None] * widths[None, :, None])
    return means


def _detail(small: np.ndarray) -> float:
    """Mean square of the gradients of float32 [h, w, 3]."""
    x, y = small[:, 1:] - small[:, :-1], small[1:] - small[:-1]
    return float(np.vdot(x, x)) / x.size + float(np.vdot(y, y)) / y.size


def _slope(light: np.ndarray, index: int, step: int) -> int:
    """The last frame of the slope that leads out of the dark: brightness still rises towards ``step``."""
    while 0 < index < len(light) - 1 and 1.5 < light[index + step] - light[index] < 60:
        index += step
    return index


def _unevenness(frames: np.ndarray, way: np.ndarray) -> float:
    """How far the parts of pictures [n, D] on their ``way`` [D] from A to B are from an even walk: mean over frames, and over
    parts by how much each changes in all."""
    rows, columns = _PARTS
    shape = (rows, _ROWS // rows, columns, _COLUMNS // columns, 3)
    goal = (way * way).reshape(shape).sum(axis=(1, 3, 4))
    gone = (frames * way).reshape(-1, *shape).sum(axis=(2, 4, 5))
    even = np.arange(1, len(frames) + 1) / (len(frames) + 1)
    return float(np.abs(gone - even[:, None, None] * goal).sum() / goal.sum() / len(frames))


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0 else 0.0
