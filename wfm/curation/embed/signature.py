"""What a clip looks like over time, small and made without weights: what the perceptual tier of dedup compares.

Black bars are taken off, then the luma of 8 moments a second (128 at most, then fewer a second) becomes 24 x 24 thumbnails.
"""

import dataclasses
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from wfm.curation.one_pass import Geometry, Moment, Wanted, one_pass
from wfm.curation.per_clip import Fetch, or_skip
from wfm.records import Clip, Record

RATE, MOST, SIDE, DECODED = 8, 128, 24, 96
DARK, LEAST_PICTURE = 28.0, 0.4
"Luma up to which a border is a bar; share of a side that must be left, or there are no bars."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Signature(Record):
    """What a clip looks like over time; see the module."""

    clip_id: str
    clip_sha256: str
    "The clip bytes the signature was made from."
    step_seconds: float
    "Between two thumbnails."
    thumbnails: list[int]
    "Luma 0 to 255, [T, 24, 24]."

    @classmethod
    def schema(cls) -> pa.Schema:
        """The record's schema with bytes for the thumbnails."""
        plain = super().schema()
        return plain.set(
            plain.get_field_index("thumbnails"), pa.field("thumbnails", pa.list_(pa.uint8()), nullable=False)
        )


class SignClip:
    """The step: one `Clip` -> its `Signature`. Skips a clip that cannot be decoded."""

    name = "sign"

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch

    def __call__(self, item: Clip) -> Iterable[Signature]:
        """One row. Raises `Skip` with the decoder's reason code."""
        return [signature_of(item, *or_skip(thumbnails_of, self._fetch(item.path)))]


def signature_of(clip: Clip, thumbnails: np.ndarray, step: float) -> Signature:
    """The row of one clip: uint8 [T, 24, 24], seconds between two."""
    return Signature(
        clip_id=clip.clip_id,
        clip_sha256=clip.clip_sha256,
        step_seconds=step,
        thumbnails=thumbnails.reshape(-1),  # type: ignore[arg-type]  # Arrow takes it without a list between
    )


def thumbnails_of(path: Path) -> tuple[np.ndarray, float]:
    """(uint8 [T, 24, 24] luma without bars, seconds between two). Memory: 128 small frames, however long the clip."""
    frames = SignatureFrames()
    one_pass(path, [frames])
    return frames.result()


class SignatureFrames:
    """A consumer of `one_pass` that keeps the luma of the frames shown at the signature's moments."""

    def __init__(self) -> None:
        self._shown: list[int] = []
        self._step = 1 / RATE
        self._luma: dict[int, np.ndarray] = {}

    def wants(self) -> Wanted:
        return Wanted("rgb24", lambda height, width: (DECODED, DECODED), upright=True, frames=self._moments)

    def _moments(self, geometry: Geometry) -> list[int]:
        self._shown, self._step = moments(geometry.seconds)
        return self._shown

    def begin(self, geometry: Geometry) -> None:
        self._luma = {}

    def feed(self, moment: Moment) -> None:
        assert moment.picture is not None
        weights = np.array([0.299, 0.587, 0.114], np.float32)
        self._luma[moment.index] = (moment.picture @ weights).astype(np.float32)

    def finish(self) -> None:
        pass

    def result(self) -> tuple[np.ndarray, float]:
        """As `thumbnails_of`."""
        frames = np.stack([self._luma[index] for index in self._shown])
        top, bottom, left, right = picture_box(frames)
        rows, columns = (
            area_means(top / DECODED, bottom / DECODED, DECODED),
            area_means(left / DECODED, right / DECODED, DECODED),
        )
        return np.clip(np.round(rows @ frames @ columns.T), 0, 255).astype(np.uint8), self._step


def moments(seconds: np.ndarray) -> tuple[list[int], float]:
    """Times of all frames, float64 [T] -> (the frame shown at each moment, seconds between two): 8 a second, 128 at most."""
    step = 1 / RATE
    while (seconds[-1] - seconds[0] + 1e-6) / step >= MOST:
        step *= 2
    times = seconds[0] + np.arange(int((seconds[-1] - seconds[0] + 1e-6) / step) + 1) * step
    shown = np.searchsorted(seconds, times + 1e-6, side="right") - 1
    return [int(index) for index in shown], step


def picture_box(frames: np.ndarray) -> tuple[int, int, int, int]:
    """Luma [T, H, W] -> (top, bottom, left, right) of what is not a black bar in any frame."""
    box = []
    for axis in (2, 1):
        bright = np.percentile(frames, 98, axis=axis).max(axis=0) > DARK
        lit = np.flatnonzero(bright)
        low, high = (int(lit[0]), int(lit[-1]) + 1) if len(lit) else (0, len(bright))
        box += [low, high] if high - low >= LEAST_PICTURE * len(bright) else [0, len(bright)]
    return box[0], box[1], box[2], box[3]


@lru_cache(maxsize=256)
def area_means(low: float, high: float, points: int) -> np.ndarray:
    """float32 [24, points]: means over 24 equal stretches of [low, high] of a side cut into ``points``."""
    edges = (low + (high - low) * np.arange(SIDE + 1) / SIDE) * points
    pixels = np.arange(points)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = np.maximum(overlap, 0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
