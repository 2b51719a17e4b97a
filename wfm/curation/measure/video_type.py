"""What kind of video a clip is, from measured signals: a coarse answer that needs no model, with the numbers it is made of.

    still        nothing ever changes
    slideshow    still pictures that replace each other
    screen       a recorded screen: flat areas, few shades, hard edges, most of the time at rest
    animation    flat areas and hard edges that move all over
    fixed        a camera at rest before something that moves
    moving       a camera that moves

Limits: a talking head before a plain wall is flat too, but soft; drawn film with painted backgrounds is not told from live
action. A vision-language model's answer is the captioner's.
"""

import dataclasses
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from wfm.curation.arrays import block_means, to_numpy
from wfm.curation.measure.camera_moves import CameraMoves

TYPES = ("still", "slideshow", "screen", "animation", "fixed", "moving")
REST = 1.5 / 255
"Mean change of a picture below which it is at rest; grain at rest changes each pixel by about one."
JUMP = 12 / 255
"Mean change of a picture in one step that replaces it."
FLAT = 1.5 / 255
"Neighbouring pixels that differ by less are one flat area."
HARD = 20 / 255
"A jump from one pixel to its neighbour that is an outline, a letter, a window's frame: a lens blurs such edges."
MOST_FLAT, MOST_HARD, SHADES = 0.5, 0.25, 10
"""A drawn picture has more flat pixels than this, more hard ones among the others, and no more grey levels that hold 60 % of
it. Seen in drawn clips: 0.58, 0.36, 4 at worst. Of filmed ones, the flattest (0.6) is not hard (0.15), the hardest (0.24) not
flat (0.09)."""


@dataclasses.dataclass(frozen=True)
class Look:
    """The numbers that a type is read from."""

    rest_share: float
    "Share of frame pairs at rest."
    jumps: int
    "Pairs at which the picture is replaced, with rest before and after."
    flat_share: float
    "Share of pixels equal to their right and lower neighbours, median over stills."
    hard_share: float
    "Share of the other pixels that differ much from one of these, median over stills; 0 if all is flat."
    shades: int
    "Grey levels that hold 60 % of a still's pixels, median."

    @property
    def drawn(self) -> bool:
        """Whether the picture is made of flat areas and hard edges."""
        return self.flat_share > MOST_FLAT and self.hard_share > MOST_HARD and self.shades <= SHADES


def picture_changes(thumbnails: Any) -> tuple[np.ndarray, np.ndarray]:
    """Of [T, h, w], float in 0..1: how much each frame differs from the one before [T-1], and the busiest of 8 x 8 blocks."""
    xp = array_namespace(thumbnails)
    change = xp.abs(thumbnails[1:] - thumbnails[:-1])
    blocks = to_numpy(block_means(change, min(8, change.shape[1]), min(8, change.shape[2])))
    return to_numpy(xp.mean(change, axis=(1, 2))), blocks.max(axis=(1, 2), initial=0)


def look(change: np.ndarray, busiest: np.ndarray, stills: Any) -> Look:
    """change, busiest [T-1] of `picture_changes`; stills [S, H, W], float in 0..1, without borders."""
    xp = array_namespace(stills)
    rest = (change < REST) & (busiest < 4 * REST)
    around = np.concatenate([[True], rest, [True]])
    jumps = (change > JUMP) & around[:-2] & around[2:]
    right = xp.abs(stills[:, :-1, 1:] - stills[:, :-1, :-1])
    step = xp.maximum(right, xp.abs(stills[:, 1:, :-1] - stills[:, :-1, :-1]))
    flat, hard = (to_numpy(xp.mean(xp.astype(found, xp.float32), axis=(1, 2))) for found in (step < FLAT, step > HARD))
    return Look(
        rest_share=float(rest.mean()) if len(rest) else 1.0,
        jumps=int(jumps.sum()),
        flat_share=float(np.median(flat)),
        hard_share=float(np.median(hard / np.maximum(1 - flat, 1e-9))),
        shades=int(np.median([_shades(still) for still in to_numpy(stills)])),
    )


def _shades(still: np.ndarray) -> int:
    counts = np.sort(np.bincount(np.round(still * 255).astype(np.int64).ravel(), minlength=256))[::-1]
    return int(np.searchsorted(np.cumsum(counts), 0.6 * still.size)) + 1


def video_type(seen: Look, camera: CameraMoves) -> str:
    """One of `TYPES`."""
    if seen.jumps and seen.rest_share > 0.7:
        return "screen" if seen.drawn else "slideshow"
    if seen.rest_share == 1.0 and not camera.moved and camera.own_motion < 0.05:
        return "still"
    if seen.drawn:
        return "screen" if seen.rest_share > 0.5 else "animation"
    return "moving" if camera.moved else "fixed"
