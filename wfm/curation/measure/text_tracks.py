"""Text laid over a video, told from text in the scene: boxes of a detector, followed through time.

A box that stays where it is, frame after frame, belongs to the screen; one that moves with the picture belongs to the scene.
Boxes of neighbouring looks are the same text when they overlap enough; a track may miss a few looks. A track is an overlay when
its box stays within ``stable_overlap`` of its median box and it lasts ``minimum_seconds``. What a still camera shows of a
still scene cannot be told apart: then everything is an overlay, and the clip falls to the static filter first.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import pydantic

from wfm.config import Config
from wfm.curation.one_pass import Geometry, Moment, Wanted, fitted


class TextConfig(Config):
    """How boxes become tracks."""

    side: int = pydantic.Field(640, ge=64)
    "Longer side of the frames that are looked at [pixels]; a smaller picture is enlarged to it."
    looks_a_second: float = pydantic.Field(2.0, gt=0)
    "Frames looked at a second; at least 8 and at most 64 a clip."
    same_overlap: float = pydantic.Field(0.3, gt=0, le=1)
    "Intersection over union at which two boxes of neighbouring looks are one text."
    stable_overlap: float = pydantic.Field(0.75, gt=0, le=1)
    "Intersection over union with the track's median box that a fixed text keeps, on average."
    missed_looks: int = pydantic.Field(2, ge=0)
    "Looks in a row that a track may miss."
    minimum_seconds: float = pydantic.Field(0.5, ge=0)
    "Shortest time that an overlay stands [s]."
    corner: float = pydantic.Field(0.2, gt=0, le=0.5)
    "A box whose middle lies within this share of two sides stands in a corner."


@dataclasses.dataclass(frozen=True)
class TrackedText:
    """Text of a clip; None throughout where nobody looked."""

    overlay_share: float | None
    "Share of the picture under overlays, mean over looks."
    corner: bool | None
    "Whether an overlay stands in a corner."
    scene_share: float | None
    "Share of the picture under text that is not an overlay, mean over looks."


@dataclasses.dataclass
class Track:
    """One text through time."""

    looks: list[int]
    boxes: list[np.ndarray]


class TextTracks:
    """A consumer of `one_pass`: detects as frames come and keeps their boxes alone."""

    def __init__(self, config: TextConfig, detect: "Callable[[np.ndarray], np.ndarray] | None" = None) -> None:
        if detect is None:
            from wfm.curation.measure import text_detector

            text_detector.detector()  # absent: said before anything is decoded
            detect = text_detector.text_boxes
        self.config = config
        self._detect = detect
        self._boxes: list[np.ndarray] = []
        self._seconds: list[float] = []

    def wants(self) -> Wanted:
        return Wanted("bgr24", fitted(self.config.side), upright=True, frames=self._looks)

    def _looks(self, geometry: Geometry) -> set[int]:
        frames = len(geometry.seconds)
        length = float(geometry.seconds[-1] - geometry.seconds[0])
        count = min(int(np.clip(np.ceil(length * self.config.looks_a_second), 8, 64)), frames)
        return set(np.linspace(0, frames - 1, count).round().astype(int).tolist())

    def begin(self, geometry: Geometry) -> None:
        self._boxes, self._seconds = [], []

    def feed(self, moment: Moment) -> None:
        assert moment.picture is not None
        self._boxes.append(self._detect(moment.picture))
        self._seconds.append(moment.seconds)

    def finish(self) -> None:
        pass

    def result(self) -> TrackedText:
        return judged(self._boxes, np.array(self._seconds), self.config)


def judged(boxes: list[np.ndarray], seconds: np.ndarray, config: TextConfig) -> TrackedText:
    """Boxes [N, 4] of each look, as shares of the sides, and when the looks were -> what of it is overlaid."""
    overlay = scene = 0.0
    corner = False
    for track in tracks(boxes, config):
        areas = sum(_area(box) for box in track.boxes)
        if is_overlay(track, seconds, config):
            overlay += areas
            corner = corner or in_corner(np.median(track.boxes, axis=0), config)
        else:
            scene += areas
    looks = max(len(boxes), 1)
    return TrackedText(min(overlay / looks, 1.0), corner, min(scene / looks, 1.0))


def tracks(boxes: list[np.ndarray], config: TextConfig) -> list[Track]:
    """Boxes of each look joined to tracks, best overlap first."""
    done: list[Track] = []
    running: list[Track] = []
    for look, found in enumerate(boxes):
        over = [track for track in running if look - track.looks[-1] > config.missed_looks + 1]
        done += over
        running = [track for track in running if look - track.looks[-1] <= config.missed_looks + 1]
        pairs = [
            (overlap(track.boxes[-1], box), t, b) for t, track in enumerate(running) for b, box in enumerate(found)
        ]
        taken_tracks: set[int] = set()
        taken_boxes: set[int] = set()
        for value, t, b in sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2])):
            if value < config.same_overlap:
                break
            if t in taken_tracks or b in taken_boxes:
                continue
            taken_tracks.add(t)
            taken_boxes.add(b)
            running[t].looks.append(look)
            running[t].boxes.append(found[b])
        running += [Track([look], [box]) for b, box in enumerate(found) if b not in taken_boxes]
    return done + running


def is_overlay(track: Track, seconds: np.ndarray, config: TextConfig) -> bool:
    """Fixed to the screen, and there for long enough: three looks at least, for two boxes meet by chance."""
    lasts = seconds[track.looks[-1]] - seconds[track.looks[0]]
    if len(track.looks) < min(3, len(seconds)) or lasts < min(config.minimum_seconds, seconds[-1] - seconds[0]):
        return False
    middle = np.median(track.boxes, axis=0)
    return bool(np.mean([overlap(box, middle) for box in track.boxes]) >= config.stable_overlap)


def in_corner(box: np.ndarray, config: TextConfig) -> bool:
    """Whether the box's middle is near two sides of the picture."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return bool(min(x, 1 - x) <= config.corner and min(y, 1 - y) <= config.corner)


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    low, high = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    both = float(np.prod(np.maximum(high - low, 0)))
    return both / max(_area(first) + _area(second) - both, 1e-12)


def _area(box: np.ndarray) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))
