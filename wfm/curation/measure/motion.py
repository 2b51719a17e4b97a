"""How fast a clip moves, from the motion vectors its codec already holds, or else from block differences.

Vectors are summed on a grid of 16 x 16 cells as they are decoded: memory does not grow with the picture's size, and every
partition size counts by its area. Only P frames are used: their vectors point to the preceding I or P frame, so the time
between is known (a B frame's reference is not told by the decoder). Key frames hold no vectors and are skipped, never
counted as rest.

Unit: longer picture sides a second, the same for both sources and for any size or frame rate, so that one threshold
serves all. Limits: a P frame that reaches further back than one picture (several references) reads too fast; vectors are
an encoder's cheapest match, not true flow, so a threshold should be chosen on clips of one encoder; block differences
saturate at about one block. Figures on worlds of known motion stand in the tests.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace

from wfm.curation.arrays import block_means, to_numpy
from wfm.curation.one_pass import Geometry, Moment, Wanted

if TYPE_CHECKING:
    from wfm.data.orientation import Orientation

GRID = 16
PATCHES = 4
MINIMUM_COVER = 0.25
"Share of the picture that must have vectors for a frame to count: a cut inside is coded as intra blocks."
CODEC_VECTORS = "codec_vectors"
BLOCK_DIFFERENCE = "block_difference"
_ANCHORS = (1, 2)  # I and P of AVPictureType


@dataclasses.dataclass(frozen=True)
class Motion:
    """Motion of a clip, in longer picture sides a second."""

    speed: float
    "Mean over time and picture."
    patch_minimum: float
    "Mean over time in the calmest of 4 x 4 patches: about 0 when the camera rests, above when all moves."
    pan_x: float
    "Mean velocity of the picture's content to the right; a camera panning right gives a negative one. 0 if not measured."
    pan_y: float
    "The same, downwards."
    source: str
    "``codec_vectors`` or ``block_difference``."


class VectorMotion:
    """Sums the motion vectors of a clip; give it every decoded frame in order of display, then ask ``result``."""

    def __init__(self, width: int, height: int) -> None:
        self._width, self._height = width, height
        self._anchor_seconds: float | None = None
        self._speed = np.zeros(GRID * GRID)
        self._cover = np.zeros(GRID * GRID)
        self._pan = np.zeros(2)
        self._seconds = 0.0

    def add(self, frame: Any) -> None:
        """Count a decoded ``av.VideoFrame``."""
        kind = int(frame.pict_type)
        if kind not in _ANCHORS or frame.time is None:
            return
        before, self._anchor_seconds = self._anchor_seconds, float(frame.time)
        elapsed = self._anchor_seconds - before if before is not None else 0.0
        vectors = frame.side_data.get("MOTION_VECTORS")
        if vectors is None or elapsed <= 0:
            return
        table = vectors.to_ndarray()
        self._count(table[table["source"] < 0], elapsed)

    def _count(self, table: np.ndarray, elapsed: float) -> None:
        area = table["w"].astype(np.float64) * table["h"]
        if area.sum() < MINIMUM_COVER * self._width * self._height:
            return
        # Content moves from the reference (src) to here (dst): motion is src - dst, in 1 / motion_scale pixels.
        scale = np.maximum(table["motion_scale"], 1) * (-elapsed * max(self._width, self._height))
        x, y = table["motion_x"] / scale, table["motion_y"] / scale
        column = np.clip(table["dst_x"].astype(np.int64) * GRID // self._width, 0, GRID - 1)
        row = np.clip(table["dst_y"].astype(np.int64) * GRID // self._height, 0, GRID - 1)
        cell = row * GRID + column
        self._speed += np.bincount(cell, area * np.hypot(x, y) * elapsed, GRID * GRID)
        self._cover += np.bincount(cell, area * elapsed, GRID * GRID)
        self._pan += np.array([(area * x).sum(), (area * y).sum()]) / area.sum() * elapsed
        self._seconds += elapsed

    @property
    def found(self) -> bool:
        """Whether any frame has held vectors so far."""
        return self._seconds > 0

    def result(self) -> Motion | None:
        """The clip's motion, or None if no frame held vectors (intra-only, or a codec that exports none)."""
        if not self.found:
            return None
        speed = self._speed.sum() / self._cover.sum()
        size = GRID // PATCHES
        patches = [grid.reshape(PATCHES, size, PATCHES, size).sum(axis=(1, 3)) for grid in (self._speed, self._cover)]
        covered = patches[1] > 0
        calmest = (patches[0][covered] / patches[1][covered]).min() if covered.all() else 0.0
        pan = self._pan / self._seconds
        return Motion(float(speed), float(calmest), float(pan[0]), float(pan[1]), CODEC_VECTORS)


class VectorSum:
    """Motion from the codec's vectors, of the upright picture, for whoever is fed in `one_pass`."""

    def __init__(self) -> None:
        self._vectors: VectorMotion | None = None
        self._turn: Orientation | None = None

    def wants(self) -> Wanted:
        return Wanted(channels=None, motion_vectors=True)

    def begin(self, geometry: Geometry) -> None:
        self._vectors, self._turn = VectorMotion(geometry.width, geometry.height), geometry.turn

    def feed(self, moment: Moment) -> None:
        assert self._vectors is not None
        self._vectors.add(moment.frame)

    def finish(self) -> None:
        pass

    @property
    def found(self) -> bool:
        """Whether any frame has held vectors so far."""
        return self._vectors is not None and self._vectors.found

    def result(self) -> Motion | None:
        """None if no frame held vectors."""
        found = self._vectors.result() if self._vectors is not None else None
        if found is None or self._turn is None:
            return None
        return turned(found, self._turn.transpose, self._turn.mirror_x, self._turn.mirror_y)


def turned(motion: Motion, transpose: bool, mirror_x: bool, mirror_y: bool) -> Motion:
    """The motion of the upright picture, whose axes are swapped first and then mirrored."""
    x, y = (motion.pan_y, motion.pan_x) if transpose else (motion.pan_x, motion.pan_y)
    return dataclasses.replace(motion, pan_x=-x if mirror_x else x, pan_y=-y if mirror_y else y)


def block_motion(gray: Any, seconds: np.ndarray) -> Motion:
    """Motion from brightness alone, of a whole clip at once: gray [T, H, W] float in 0..1, seconds [T]."""
    motion = BlockMotion()
    motion.add(gray, seconds)
    return motion.result()


class BlockMotion:
    """Motion from brightness alone: |change in time| / |gradient in space|, block by block, is the speed across edges.

    Give it stretches of a clip, each beginning with the last frame of the one before. Blocks without texture count as rest.
    """

    def __init__(self) -> None:
        self._sum: Any = 0.0
        self._pairs = 0

    def add(self, gray: Any, seconds: np.ndarray) -> None:
        """gray [T, H, W] float in 0..1, seconds [T]."""
        speed = _block_speeds(gray, seconds)
        self._sum = self._sum + speed.sum(axis=0)
        self._pairs += len(speed)

    def result(self) -> Motion:
        """The clip's motion; rest if it has a single frame, or pictures of no size."""
        if not self._pairs or not self._sum.size:
            return Motion(0.0, 0.0, 0.0, 0.0, BLOCK_DIFFERENCE)
        cells = self._sum / self._pairs
        patches = block_means(cells, min(PATCHES, cells.shape[0]), min(PATCHES, cells.shape[1]))
        return Motion(float(cells.mean()), float(patches.min()), 0.0, 0.0, BLOCK_DIFFERENCE)


def _block_speeds(gray: Any, seconds: np.ndarray) -> np.ndarray:
    """float64 [pairs, rows, columns], longer sides a second, of the pairs between which time passes."""
    xp = array_namespace(gray)
    rows, columns = (max(min(GRID, side - 2), 0) for side in gray.shape[1:])
    elapsed = np.diff(seconds)
    if not (elapsed > 0).any() or min(rows, columns) < 1:
        return np.zeros((0, rows, columns))
    change = xp.abs(gray[1:] - gray[:-1])
    slope_x = xp.abs(gray[:-1, :, 2:] - gray[:-1, :, :-2]) / 2
    slope_y = xp.abs(gray[:-1, 2:, :] - gray[:-1, :-2, :]) / 2
    slope = block_means(slope_x[:, 1:-1, :] + slope_y[:, :, 1:-1], rows, columns)
    moved = block_means(change[:, 1:-1, 1:-1], slope.shape[1], slope.shape[2])  # [T-1, rows, columns]
    noise = 1 / 255  # less than one step of brightness is coding noise, not motion
    pixels = xp.where(
        moved > noise, moved / xp.maximum(slope, xp.asarray(noise, dtype=slope.dtype)), xp.zeros_like(moved)
    )
    pixels = to_numpy(pixels).astype(np.float64)
    used = elapsed > 0
    return pixels[used] / elapsed[used, None, None] / max(gray.shape[1:])
