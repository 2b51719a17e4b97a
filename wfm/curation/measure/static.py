"""What does not move and what cannot be seen: static, frozen and black shares of a clip, from small grey frames."""

from typing import Any

import numpy as np
from array_api_compat import array_namespace

from wfm.curation.arrays import block_means, to_numpy

BLOCKS = 16
STATIC_DIFFERENCE = 2.0 / 255
"A block that changes by less, on average, is at rest: re-encoding alone changes it by about a half of this."
FROZEN_DIFFERENCE = 0.25 / 255
"Two frames whose calmest to busiest block all differ by less are one frame shown twice."
NEARLY_FROZEN = 2.5 / 255
"The same in a lossy file, where each repeat refines the picture: for stretches that begin and end abruptly."
ABRUPT = 3.0
"How many times more than all of the stretch the changes right before and behind it are: what slows down does so by and by."
BLACK_LEVEL = 0.08
BLACK_PEAK = 0.2


def static_share(gray: Any, seconds: np.ndarray, *, gap_seconds: float = 0.25) -> float:
    """Share of frames that show the same picture as the frame ``gap_seconds`` later: 1 for a still picture.

    gray [T, H, W] float in 0..1. The busiest of 16 x 16 blocks decides, so one small moving object is motion; the gap
    makes slow motion visible.
    """
    xp = array_namespace(gray)
    first, second = gap_pairs(seconds, gap_seconds)
    return share_of_rest(busiest_change(gray[xp.asarray(first)], gray[xp.asarray(second)]))


def gap_pairs(seconds: np.ndarray, gap_seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the frames that are compared: each with the one ``gap_seconds`` later, or, where a clip is shorter than that,
    the first with the last. None for a single frame."""
    later = np.searchsorted(seconds, seconds + gap_seconds - 1e-6)
    first = np.flatnonzero(later < len(seconds))
    if len(first) == 0 and len(seconds) > 1:
        return np.array([0]), np.array([len(seconds) - 1])
    return first, later[first]


def share_of_rest(change: np.ndarray) -> float:
    """Share of pairs whose busiest block hardly changes; 1 for a single frame. change [pairs], of `gap_pairs`."""
    return float((change < STATIC_DIFFERENCE).mean()) if len(change) else 1.0


def frozen_share(gray: Any) -> float:
    """Share of frames that repeat the one before: dropped frames, or a picture that stands still."""
    return share_of_repeats(busiest_change(gray[:-1], gray[1:]))


def share_of_repeats(change: np.ndarray) -> float:
    """Share of frames that `repeats` marks. change [T-1], of neighbours."""
    return float(repeats(change).mean()) if len(change) else 0.0


def repeats(change: np.ndarray) -> np.ndarray:
    """bool [T-1]: frames whose busiest block equals that of the frame before; or nearly, in a stretch between moving pictures
    that begins and ends abruptly (by one end, if the other is the clip's). change [T-1], of neighbours."""
    found: np.ndarray = change < FROZEN_DIFFERENCE
    edges = np.flatnonzero(np.diff(np.concatenate([[False], change < NEARLY_FROZEN, [False]]).astype(np.int8)))
    for first, last in edges.reshape(-1, 2):
        around = np.concatenate([change[max(first - 1, 0) : first], change[last : last + 1]])
        if len(around) and around.min() > ABRUPT * change[first:last].max():
            found[first:last] = True
    return found


def black_share(gray: Any) -> float:
    """Share of frames that are dark all over: mean below 0.08 and 98th percentile below 0.2 of full brightness."""
    return float(black_frames(gray).mean())


def black_frames(gray: Any) -> np.ndarray:
    """bool [T], of [T, H, W]: frames that are dark all over."""
    flat = to_numpy(gray).reshape(gray.shape[0], -1)
    black = flat.mean(axis=1) < BLACK_LEVEL
    if black.any():  # most clips hold no dark frame, and the quantile sorts
        black[black] = np.quantile(flat[black], 0.98, axis=1) < BLACK_PEAK
    return black


def busiest_change(first: Any, second: Any) -> np.ndarray:
    """[pairs], mean absolute difference of the one of 16 x 16 blocks that differs most. first, second [pairs, H, W]."""
    xp = array_namespace(first)
    change = xp.abs(second - first)
    blocks = block_means(change, min(BLOCKS, change.shape[1]), min(BLOCKS, change.shape[2]))
    return to_numpy(blocks).max(axis=(1, 2), initial=0)
