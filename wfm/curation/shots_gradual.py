"""Dissolves and fades by arithmetic on thumbnails: no model.

While one shot dissolves into another, each picture is a weighted mean of what stands before and behind: in a window whose ends
are A and B, the frames lie near the line from A to B and walk along it from 0 to 1. A camera that moves leaves that line (the
picture in the middle of a pan is not the mean of its ends), a hard cut jumps along it, and a lamp that is turned up keeps the
picture's structure, so that A and B correlate. A fade passes through a picture that is dark and flat.

Thumbnails, because motion inside the two shots matters less on blurred pictures. Memory is one window of them and three
numbers a frame.
"""

from collections import deque
from collections.abc import Iterator

import numpy as np

from wfm.curation.shots import Mixed

_ROWS, _COLUMNS = 18, 32
_HALVES = (5, 8, 12, 18, 26)  # half a window, in frames: transitions of up to about 50 frames
_LEAST_CHANGE = 10.0  # root mean square between the ends, 0 to 255: less is no other picture
_MOST_ALIKE = 0.75  # correlation of the ends: above, it is the same picture in another light
_DARK, _FLAT = 24.0, 10.0  # a fade's middle: mean and spread of its brightness, 0 to 255
_STEEPEST = 0.4  # of the way from A to B in one frame: more is a hard cut


class GradualShots:
    """Fed with every picture of a video, tells the frames that mix two shots. ``ratio`` is how far from the line between its
    ends a window may stray, as a share of their distance."""

    def __init__(self, ratio: float) -> None:
        self._ratio = ratio
        self._window: deque[np.ndarray] = deque(maxlen=2 * _HALVES[-1] + 1)
        self._light: list[float] = []
        self._spread: list[float] = []
        self._found: list[tuple[float, int, int]] = []  # (how far from the line, first, last)

    def push(self, picture: np.ndarray) -> None:
        """The next picture, uint8 [H, W, 3], at least 18 x 32."""
        small = thumbnail(picture)
        self._light.append(float(small.mean()))
        self._spread.append(float(small.std()))
        self._window.append(small.ravel())
        index = len(self._light) - 1
        if len(self._window) > 2 * _HALVES[0]:
            for half in _HALVES:
                if 2 * half < len(self._window):
                    self._look_at(index - 2 * half, half)

    def finish(self) -> list[Mixed]:
        """The mixed frames of the whole video, in order, none overlapping."""
        taken = sorted(self._fades())
        for _, first, last in sorted(self._found):
            if all(last + 2 < other.first or other.last + 2 < first for other in taken):
                taken.append(Mixed(first, last))
        return sorted(taken)

    def _look_at(self, begin: int, half: int) -> None:
        """Judge the window of ``2 half + 1`` frames that ends with the newest."""
        count = 2 * half + 1
        size = len(self._window)
        start, end = self._window[size - count], self._window[-1]
        way = end - start
        length = float(np.sqrt(np.mean(way * way)))
        if length < _LEAST_CHANGE or _correlation(start, end) > _MOST_ALIKE:
            return
        frames = np.stack([self._window[size - count + k] for k in range(count)])
        along = (frames - start) @ way / float(way @ way)
        off = np.sqrt(np.mean((frames - start - along[:, None] * way) ** 2, axis=1)) / length
        stray = float(off[1:-1].mean())
        if stray > self._ratio or np.diff(along).max() > _STEEPEST or np.diff(along).min() < -0.15:
            return
        inside = np.flatnonzero((along > 0.06) & (along < 0.94))
        # A window that lies inside a longer transition has no still ends; one that is too wide wastes frames but is right.
        if len(inside) < 4 or inside[0] < 2 or inside[-1] > count - 3:
            return
        self._found.append((stray, begin + int(inside[0]), begin + int(inside[-1]) + 1))

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


def _slope(light: np.ndarray, index: int, step: int) -> int:
    """The last frame of the slope that leads out of the dark: brightness still rises towards ``step``."""
    while 0 < index < len(light) - 1 and 1.5 < light[index + step] - light[index] < 60:
        index += step
    return index


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0 else 0.0
