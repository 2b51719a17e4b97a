"""How a picture moves, from its pixels alone: a grid of 8 x 8 block displacements for each pair of frames, and the camera
move that explains most of them.

It asks nothing of the codec, so a threshold on it means the same for every encoder; `motion` reads the codec's own vectors.
Frames are small grey thumbnails, so that memory is 8 x 8 x 2 numbers a pair, whatever the picture's size. For each pair:

1. the shift of the whole picture by phase correlation (whole pixels, any size up to a half of the picture);
2. what remains, block by block, by least squares on the brightness constancy equation (Lucas and Kanade 1981), three rounds,
   the whole picture's remainder taken out between them, so that the last round solves for small remainders only;
3. the camera: shift, zoom and roll that fit the blocks, by least squares that gives less weight to blocks that go their own
   way (things that move by themselves).

Limits: blocks without texture are unknown, not at rest; a thing larger than half of the picture is taken for the picture;
parallax is not told from zoom.
"""

import dataclasses
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from wfm.curation.arrays import block_means, to_numpy

GRID = 8
ROUNDS = 3
PAIRS_AT_ONCE = 128
TEXTURE = 2e-5
"Smaller eigenvalue of a block's gradients, brightness (0..1) a pixel squared, below which its motion is unknown."
LONGEST = 2.0
"Most that a block may go beyond the whole picture's shift [pixels of a thumbnail]: beyond, the equation does not hold."
AGREES = 0.35
"A block whose remainder is below is explained by the camera [pixels of a thumbnail]."
_FITTING_ROUNDS = 5


@dataclasses.dataclass(frozen=True)
class BlockFlow:
    """Displacements between neighbouring frames, in longer picture sides; x to the right, y down."""

    shift: np.ndarray
    "float64 [T-1, 64, 2]: where the content of each block went."
    known: np.ndarray
    "bool [T-1, 64]: blocks with enough texture to say so."
    centres: np.ndarray
    "float64 [64, 2]: middles of the blocks, longer sides from the picture's middle."
    seconds: np.ndarray
    "float64 [T-1]: time between the two frames."
    pixel: float
    "One pixel of the thumbnails, in longer sides."


@dataclasses.dataclass(frozen=True)
class CameraPath:
    """The camera between neighbouring frames, as what it does to the picture."""

    shift: np.ndarray
    "float64 [T-1, 2]: content's shift at the picture's middle, longer sides."
    zoom: np.ndarray
    "float64 [T-1]: growth of the content, 0.01 is 1 %."
    roll: np.ndarray
    "float64 [T-1]: clockwise turn of the content [rad]."
    explained: np.ndarray
    "float64 [T-1]: share of known blocks that follow; 0 where too few are known."
    residual: np.ndarray
    "float64 [T-1, 64]: what each block does beyond it, longer sides; 0 for unknown blocks."


def block_flow(gray: Any, seconds: np.ndarray) -> BlockFlow:
    """Displacements of the blocks of thumbnails.

    gray [T, H, W] float in 0..1 (at least 20 pixels a side for an answer), seconds float64 [T]. Works through the clip in
    stretches of 128 pairs: memory does not grow with its length beyond the answer.
    """
    frames, height, width = gray.shape
    longer = max(height, width)
    y, x = (((np.arange(GRID) + 0.5) * _block(side) + _margin(side) - side / 2) / longer for side in (height, width))
    centres = np.stack([np.tile(x, GRID), np.repeat(y, GRID)], axis=1)
    if frames < 2 or min(height, width) < 2 * GRID + 4:
        empty = np.zeros((max(frames - 1, 0), GRID * GRID))
        return BlockFlow(np.stack([empty, empty], -1), empty > 0, centres, np.diff(seconds), 1 / longer)
    found = [
        _pairs(gray[start : min(start + PAIRS_AT_ONCE, frames - 1) + 1])
        for start in range(0, frames - 1, PAIRS_AT_ONCE)
    ]
    shift, known = (np.concatenate([part[k] for part in found]) for k in (0, 1))
    return BlockFlow(shift / longer, known, centres, np.diff(seconds), 1 / longer)


def _block(side: int) -> int:
    """Pixels of a block: as many whole ones as fit between the two border pixels of each side, which have no slope."""
    return (side - 4) // GRID


def _margin(side: int) -> int:
    """Pixels left of the first block: blocks stand in the picture's middle."""
    return (side - GRID * _block(side)) // 2


def _pairs(gray: Any) -> tuple[np.ndarray, np.ndarray]:
    """[P+1, H, W] -> (float64 [P, 64, 2] displacement in pixels, bool [P, 64] known)."""
    xp = array_namespace(gray)
    gray = _smoothed(xp, gray)
    before, after = gray[:-1], gray[1:]
    whole = _whole_shift(xp, before, after)  # [P, 2] (x, y)
    for _ in range(ROUNDS - 1):
        blocks, known = _small_shifts(xp, before, _fetched(xp, after, whole))
        whole = whole + _middle(blocks, known)
    blocks, known = _small_shifts(xp, before, _fetched(xp, after, whole))
    return whole[:, None] + blocks, known


def _smoothed(xp: Any, gray: Any) -> Any:
    """Each pixel with a quarter of its neighbours, along both axes: the slope between pixels becomes nearly straight."""
    for axis in (1, 2):
        size = gray.shape[axis]
        back, on = (xp.asarray(np.clip(np.arange(size) + step, 0, size - 1)) for step in (-1, 1))
        gray = 0.5 * gray + 0.25 * (xp.take(gray, back, axis=axis) + xp.take(gray, on, axis=axis))
    return gray


def _whole_shift(xp: Any, before: Any, after: Any) -> np.ndarray:
    """float64 [P, 2], whole pixels (x, y): the highest peak of the phase correlation, or 0 where that fits better."""
    _, height, width = before.shape
    window = np.hanning(height + 2)[1:-1, None] * np.hanning(width + 2)[None, 1:-1]
    window = xp.asarray(window.astype(np.float32))
    first, second = (
        xp.fft.fft2((frame - xp.mean(frame, axis=(1, 2), keepdims=True)) * window) for frame in (before, after)
    )
    cross = second * xp.conj(first)
    peak = xp.real(xp.fft.ifft2(cross / (xp.abs(cross) + 1e-6)))
    place = to_numpy(xp.argmax(xp.reshape(peak, (peak.shape[0], -1)), axis=1))
    y, x = place // width, place % width
    shift = np.stack([(x + width // 2) % width - width // 2, (y + height // 2) % height - height // 2], 1).astype(float)
    better = _difference(xp, before, after, shift) < _difference(xp, before, after, np.zeros_like(shift))
    return shift * better[:, None]


def _difference(xp: Any, before: Any, after: Any, shift: np.ndarray) -> np.ndarray:
    """float64 [P]: mean absolute difference where the shifted pictures overlap."""
    overlap = xp.asarray(_overlap(shift, *before.shape[1:]).astype(np.float32))
    gap = xp.abs(_fetched(xp, after, shift) - before) * overlap
    return to_numpy(xp.sum(gap, axis=(1, 2)) / xp.maximum(xp.sum(overlap, axis=(1, 2)), xp.asarray(np.float32(1))))


def _overlap(shift: np.ndarray, height: int, width: int) -> np.ndarray:
    """bool [P, H, W]: pixels whose content is still in the picture."""
    x = np.arange(width) + shift[:, :1]
    y = np.arange(height) + shift[:, 1:]
    return ((y >= 0) & (y <= height - 1))[:, :, None] & ((x >= 0) & (x <= width - 1))[:, None, :]


def _fetched(xp: Any, frames: Any, shift: np.ndarray) -> Any:
    """[P, H, W]: each frame moved back by its shift, between pixels by weight, the border repeated."""
    pairs, height, width = frames.shape
    whole = np.floor(shift).astype(np.int64)
    part = (shift - whole).astype(np.float32)
    pair = xp.asarray(np.arange(pairs)[:, None, None])
    rows, columns = (
        [xp.asarray(np.clip(np.arange(size) + whole[:, axis, None] + step, 0, size - 1)) for step in (0, 1)]
        for size, axis in ((height, 1), (width, 0))
    )
    across, down = (xp.asarray(part[:, axis, None, None]) for axis in (0, 1))
    upper, lower = (
        (1 - across) * frames[pair, row[:, :, None], columns[0][:, None, :]]
        + across * frames[pair, row[:, :, None], columns[1][:, None, :]]
        for row in rows
    )
    return (1 - down) * upper + down * lower


def _small_shifts(xp: Any, before: Any, after: Any) -> tuple[np.ndarray, np.ndarray]:
    """(float64 [P, 64, 2], bool [P, 64]): brightness constancy solved in each block."""
    middle = (before + after) / 2
    # Slopes from four neighbours: two alone see too little of fine texture, and motion would read up to 12 % too fast.
    x, y = middle[:, 2:-2, :], middle[:, :, 2:-2]
    x = (8 * (x[..., 3:-1] - x[..., 1:-3]) - (x[..., 4:] - x[..., :-4])) / 12
    y = (8 * (y[:, 3:-1] - y[:, 1:-3]) - (y[:, 4:] - y[:, :-4])) / 12
    change = (after - before)[:, 2:-2, 2:-2]
    top, left = (_margin(side) - 2 for side in middle.shape[1:])
    x, y, change = (field[:, top:, left:] for field in (x, y, change))
    xx, yy, xy, xt, yt = (
        to_numpy(_blocks(product, *middle.shape[1:])).reshape(len(change), -1).astype(np.float64)
        for product in (x * x, y * y, x * y, x * change, y * change)
    )
    smaller = (xx + yy - np.sqrt((xx - yy) ** 2 + 4 * xy**2)) / 2
    scale = np.maximum(xx * yy - xy * xy, 1e-12)
    shift = np.stack([(xy * yt - yy * xt) / scale, (xy * xt - xx * yt) / scale], axis=-1)
    return shift, (smaller > TEXTURE) & (np.abs(shift).max(axis=-1) <= LONGEST)


def _blocks(field: Any, height: int, width: int) -> Any:
    """[P, h, w] -> [P, 8, 8]: means of the blocks, which start at the field's corner."""
    return block_means(field[:, : GRID * _block(height), : GRID * _block(width)], GRID, GRID)


def _middle(blocks: np.ndarray, known: np.ndarray) -> np.ndarray:
    """float64 [P, 2]: median over known blocks, 0 without any."""
    with np.errstate(all="ignore"):
        held = np.where(known[..., None], blocks, np.nan)
        held[~known.any(axis=1)] = 0
        return np.asarray(np.nanmedian(held, axis=1))


def camera_path(flow: BlockFlow) -> CameraPath:
    """Shift, zoom and roll of each pair: u = shift + zoom * p + roll * (-p_y, p_x), at blocks p, weighted by agreement."""
    pairs = len(flow.shift)
    x, y = flow.centres.T
    one, none = np.ones_like(x), np.zeros_like(x)
    rows = np.stack([np.stack([one, none, x, -y], -1), np.stack([none, one, y, x], -1)])  # [2, 64, 4]
    weight = flow.known.astype(np.float64)
    answer = np.zeros((pairs, 4))
    residual = np.zeros(weight.shape)
    for _ in range(_FITTING_ROUNDS):
        normal = np.einsum("cbi,pb,cbj->pij", rows, weight, rows) + 1e-9 * np.eye(4)
        right = np.einsum("cbi,pb,pbc->pi", rows, weight, flow.shift)
        answer = np.linalg.solve(normal, right[..., None])[..., 0]
        beyond = flow.shift - np.einsum("cbi,pi->pbc", rows, answer)
        residual = np.linalg.norm(beyond, axis=-1) * flow.known
        weight = flow.known / (1 + (residual / (AGREES * flow.pixel)) ** 2)
    count = flow.known.sum(axis=1)
    enough = count >= GRID
    explained = ((residual < AGREES * flow.pixel) & flow.known).sum(axis=1) / np.maximum(count, 1)
    answer = answer * enough[:, None]
    return CameraPath(answer[:, :2], answer[:, 2], answer[:, 3], explained * enough, residual)
