"""Whether a frame is woven of two moments: the fields of interlaced film, or of two pictures of telecined film.

Flags lie in both ways, so pixels decide. Where something moves, the lines of a woven frame stand out from their neighbours; so
do fine stripes and noise. What tells these apart is time: the odd lines of a woven frame fit the even lines of the frame
before better than the odd ones of the frame after, or the other way round, and a whole frame has no such side.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import av

BLOCK = 16
_ONE_SIDED = 0.15
"By this share of all misfit, lines must fit one side of time better than the other."
_OWN_SHARE = 0.8
"A woven block's own misfit is at least about that with its better neighbours; a whole block's is less."


@dataclasses.dataclass(frozen=True)
class Care:
    """What it takes to call a frame woven."""

    levels: int
    "By so much must a line differ from both neighbours."
    pixels: int
    "So many of a block's 256 must."
    blocks: int
    "So many blocks must be woven."


SURE = Care(levels=8, pixels=36, blocks=2)
"Finds no whole frame woven (measured: none of 450, telecine and noise among them), and some woven ones whole."
KEEN = Care(levels=6, pixels=24, blocks=1)
"For film of which most frames surely are: finds nearly all of them, and up to a third of telecine's whole frames."


@dataclasses.dataclass(frozen=True)
class Woven:
    """What was found in one frame."""

    top_first: int = 0
    "Blocks whose even lines are the earlier ones."
    bottom_first: int = 0

    def found(self, care: Care) -> bool:
        """Whether the frame is woven: chance would find both orders alike."""
        most, least = max(self.top_first, self.bottom_first), min(self.top_first, self.bottom_first)
        return most >= care.blocks and most >= 3 * least


def luma(frame: "av.VideoFrame") -> np.ndarray:
    """uint8 [H, W] of a decoded frame; a view of its first plane where that is just it."""
    name = frame.format.name
    if name in ("gray", "nv12", "nv21") or (name.startswith("yuv") and name.endswith("p")):
        plane = frame.planes[0]
        return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: frame.height, : frame.width]
    return frame.to_ndarray(format="gray")


def woven(before: np.ndarray | None, now: np.ndarray, after: np.ndarray | None, care: Care = SURE) -> Woven:
    """Look at one frame between its neighbours of the same size, uint8 [H, W] each; None where there is none."""
    combs = _combs(now, care)
    if combs is None or not combs.any() or (before is None and after is None):
        return Woven()
    (first, last), (left, right) = _ends(combs.any(axis=1)), _ends(combs.any(axis=0))
    # Only where combs are: the whole costs ten times as much as finding them.
    window = (slice(first * BLOCK, last * BLOCK + 2), slice(left * BLOCK, right * BLOCK))
    combs = combs[first:last, left:right]
    now = now[window].astype(np.int16)
    around = now[:-2] + now[2:]
    own = _by_parity(np.abs(around - 2 * now[1:-1])).sum(0)
    shape = (2, *combs.shape)
    # [parity, ...]: how badly lines of that parity, taken from a neighbour, fit between the other lines of this frame.
    back, forth = (
        _by_parity(np.abs(around - 2 * other[window][1:-1].astype(np.int16))) if other is not None else np.zeros(shape)
        for other in (before, after)
    )
    # Line 1 of the window is odd: parity 0 of these sums is the odd lines, which are later where the top field is first.
    far, near = back[1] + forth[0], back[0] + forth[1]
    sides = 2 if before is not None and after is not None else 1
    lean = (far - near) / np.maximum(far + near, 1)
    clear = combs & (np.abs(lean) >= _ONE_SIDED) & (own * sides >= _OWN_SHARE * np.minimum(far, near) * 2)
    return Woven(int((clear & (lean > 0)).sum()), int((clear & (lean < 0)).sum()))


def _combs(now: np.ndarray, care: Care) -> np.ndarray | None:
    """bool [rows, columns] of blocks in which many lines stand out; None for a picture smaller than a block."""
    rows, columns = (now.shape[0] - 2) // BLOCK, now.shape[1] // BLOCK
    if rows < 1 or columns < 1:
        return None
    part = now[: rows * BLOCK + 2, : columns * BLOCK]
    line, above, below = part[1:-1], part[:-2], part[2:]
    high = np.maximum(above, below)
    over = _counts(np.maximum(line, high) - high > care.levels)
    if over.max() < care.pixels // 3:
        # A woven block has lines of both kinds, and most pictures have none: half the work.
        return np.zeros(over.shape, bool)
    low = np.minimum(above, below)
    return over + _counts(low - np.minimum(line, low) > care.levels) >= care.pixels


def _counts(pixels: np.ndarray) -> np.ndarray:
    """bool [H, W] -> int32 [rows, columns]: how many pixels of each block."""
    height, width = pixels.shape
    columns = pixels.view(np.uint8).reshape(height // BLOCK, BLOCK, width).sum(1, dtype=np.uint8)
    return columns.reshape(height // BLOCK, width // BLOCK, BLOCK).sum(2, dtype=np.int32)


def _ends(some: Any) -> tuple[int, int]:
    """Where the first and behind the last of them stands."""
    found = np.flatnonzero(some)
    return int(found[0]), int(found[-1]) + 1


def _by_parity(lines: np.ndarray) -> np.ndarray:
    """[H, W] of a window -> int64 [2, rows, columns]: sums over blocks of the lines 0, 2, ... and 1, 3, ..."""
    rows, columns = lines.shape[0] // BLOCK, lines.shape[1] // BLOCK
    pairs = lines.reshape(rows, BLOCK // 2, 2, columns, BLOCK)
    return pairs.sum(axis=(1, 4), dtype=np.int64).transpose(1, 0, 2)
