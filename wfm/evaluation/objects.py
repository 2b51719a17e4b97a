"""Objects found again by their colour: are they still there (permanence), and where they should be (position error).

The simulator knows every object's colour and place; a prediction is judged by looking for that colour in it. The
looking is judged too: an (object, frame) enters only if the same detector finds it, in the right place, in the true
frame, and the error that is left there is reported beside the others as the floor.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from wfm.evaluation.bootstrap import Bootstrap
from wfm.evaluation.config import ObjectsConfig
from wfm.evaluation.metrics import world_metrics
from wfm.evaluation.schema import ObjectsReport, WorldScores


@dataclass(frozen=True)
class Track:
    """One object through the predicted frames of one window."""

    window: int
    name: str
    hue: float
    """Of its own colour [degrees]."""
    place: np.ndarray
    """True centre [T, 2] (x, y) in 0..1, origin top left; nan where it is out of sight."""


@dataclass(frozen=True)
class Sighting:
    """Where and how large a colour was seen in each frame; nan and 0 where it was not."""

    place: np.ndarray
    """[T, 2] (x, y) in px."""
    area: np.ndarray
    """[T] in px."""


def hue_of(rgb: tuple[int, int, int]) -> tuple[float, float]:
    """(hue in degrees, saturation 0..1) of an 8-bit colour."""
    import colorsys

    hue, saturation, _ = colorsys.rgb_to_hsv(*(channel / 255 for channel in rgb))
    return hue * 360, saturation


def hue_distance(left: np.ndarray | float, right: float) -> np.ndarray:
    """Distance on the circle [degrees], 0..180."""
    apart = np.abs(np.asarray(left) - right)  # both in 0..360; a modulo would be four times as slow
    return np.minimum(apart, 360 - apart)


def tracks(truth: list[list[list[dict]] | None], config: ObjectsConfig) -> tuple[list[Track], dict[str, int]]:
    """Tracks of the objects that can be told apart by colour, and how many were left out for which reason.

    Args: `truth` one entry a window: for each predicted frame the simulator's objects (name, rgb, pixel,
    visible_pixels), or None where the window's world is not known.
    """
    found: list[Track] = []
    skipped: Counter[str] = Counter()
    for window, frames in enumerate(truth):
        if frames is None:
            skipped["world_not_known"] += 1
            continue
        colours = {entry["name"]: hue_of(tuple(entry["rgb"])) for frame in frames for entry in frame}
        for name, (hue, saturation) in sorted(colours.items()):
            if saturation < config.least_saturation:
                skipped["colour_too_grey"] += 1
                continue
            rivals = [other for key, (other, s) in colours.items() if key != name and s >= config.least_saturation]
            if any(hue_distance(other, hue) < 2 * config.hue_tolerance_degrees for other in rivals):
                skipped["colour_not_its_own"] += 1
                continue
            place = np.full((len(frames), 2), np.nan)
            for index, frame in enumerate(frames):
                for entry in frame:
                    if entry["name"] == name and entry["visible_pixels"] > 0:
                        place[index] = entry["pixel"]
            if np.isnan(place).all():
                skipped["out_of_sight"] += 1
                continue
            found.append(Track(window, name, hue, place))
    return found, dict(skipped)


def look_for(hsv: np.ndarray, hue: float, config: ObjectsConfig) -> Sighting:
    """The largest blob of a colour in each frame. Args: `hsv` float32 [T, H, W, 3] (degrees, 0..1, 0..1)."""
    import cv2

    near = hue_distance(hsv[..., 0], hue) <= config.hue_tolerance_degrees
    mask = near & (hsv[..., 1] >= config.least_saturation) & (hsv[..., 2] >= config.least_value)
    place, area = np.full((len(hsv), 2), np.nan), np.zeros(len(hsv))
    for frame in np.flatnonzero(mask.sum((1, 2)) >= config.least_pixels):
        _, _, stats, centres = cv2.connectedComponentsWithStats(mask[frame].astype(np.uint8), connectivity=8)
        largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
        if stats[largest, cv2.CC_STAT_AREA] >= config.least_pixels:
            place[frame], area[frame] = centres[largest], stats[largest, cv2.CC_STAT_AREA]
    return Sighting(place, area)


def to_hsv(video: np.ndarray) -> np.ndarray:
    """uint8 [T, H, W, 3] -> float32 [T, H, W, 3]: hue in degrees, saturation and value in 0..1."""
    import cv2

    frames, height, width, _ = video.shape
    flat = video.reshape(frames * height, width, 3).astype(np.float32) / 255
    return np.asarray(cv2.cvtColor(flat, cv2.COLOR_RGB2HSV)).reshape(frames, height, width, 3)


@dataclass(frozen=True)
class Marks:
    """What was found of one set of videos, one row a track [K, T]: nan where a frame does not enter."""

    seen: np.ndarray
    """1 where the object was found, else 0."""
    placed: np.ndarray
    """1 where it was found near to where it truly is, else 0."""
    error: np.ndarray
    """Distance to its true place [px]; nan too where it was not found."""

    def of(self, tracks: np.ndarray) -> "Marks":
        """Those of some tracks, bool [K]."""
        return Marks(self.seen[tracks], self.placed[tracks], self.error[tracks])


def _marks(videos: dict[str, np.ndarray], found: list[Track], config: ObjectsConfig) -> dict[str, Marks]:
    """Look for every track in every set of videos; `videos` holds "truth"."""
    frames = videos["truth"].shape[1]
    out = {name: Marks(*(np.full((len(found), frames), np.nan) for _ in range(3))) for name in videos}
    size = np.array([videos["truth"].shape[3], videos["truth"].shape[2]], dtype=float)  # W, H
    by_window: dict[int, list[int]] = {}
    for index, track in enumerate(found):
        by_window.setdefault(track.window, []).append(index)
    for window, indices in by_window.items():
        pictures = {name: to_hsv(video[window]) for name, video in videos.items()}
        for index in indices:
            track = found[index]
            centre = track.place * size - 0.5  # a place of 0..1 to the index of a pixel's centre
            real = look_for(pictures["truth"], track.hue, config)
            off = np.linalg.norm(real.place - centre, axis=1)
            enters = np.nan_to_num(off, nan=np.inf) <= config.placed_within_px
            for name, hsv in pictures.items():
                seen = real if name == "truth" else look_for(hsv, track.hue, config)
                there = seen.area >= np.maximum(config.least_pixels, config.least_area_share * real.area)
                error = np.linalg.norm(seen.place - centre, axis=1)
                placed = there & (np.nan_to_num(error, nan=np.inf) <= config.placed_within_px)
                marks = out[name]
                marks.seen[index, enters], marks.placed[index, enters] = there[enters], placed[enters]
                marks.error[index, enters & there] = error[enters & there]
    return out


def objects_report(
    videos: dict[str, np.ndarray],
    truth: list[list[list[dict]] | None],
    sessions: list[str],
    config: ObjectsConfig,
    *,
    resamples: int,
    seed: int,
) -> ObjectsReport:
    """Score every set of `videos` (uint8 [N, T, H, W, 3], predicted frames only; "truth" among them) on every
    object."""
    found, skipped = tracks(truth, config)
    marks = _marks(videos, found, config) if found else {}
    if found:
        usable = ~np.isnan(marks["truth"].seen).all(axis=1)
        if (~usable).any():
            skipped["not_found_in_the_truth"] = int((~usable).sum())
    if not found or not usable.any():
        return ObjectsReport(absent="no object of these windows can be told by its colour", skipped=skipped)
    bootstrap = Bootstrap(
        [sessions[track.window] for track, use in zip(found, usable, strict=True) if use],
        resamples=resamples,
        seed=seed,
    )
    rows = world_metrics("objects")
    scores, horizon = {}, {}
    for name, every in marks.items():
        mark = every.of(usable)
        scores[name] = WorldScores.model_validate({row.name: bootstrap.world(row, mark) for row in rows})
        column = [mark.placed[~np.isnan(mark.placed[:, t]), t] for t in range(mark.placed.shape[1])]
        horizon[name] = [float(values.mean()) if len(values) else None for values in column]
    return ObjectsReport(
        tracks=int(usable.sum()),
        placed_within_px=config.placed_within_px,
        skipped=skipped,
        videos=scores,
        by_horizon=horizon,
    )
