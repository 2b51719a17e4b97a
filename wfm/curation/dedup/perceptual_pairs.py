"""The perceptual tier: copies that were re-encoded, scaled, letterboxed, cropped or trimmed by up to 10 %; a mirror is none.

The mean picture of a clip's `signature`, whole and in 15 crops, becomes vectors of the lowest cosine coefficients. Two clips
are

    candidates   where the whole of one is near any crop of the other (`neighbours`, so borders are looked across)
    duplicates   where thumbnails agree after trying the crops of either side and offsets in time: frame by frame, and in what
                 changes over time, since clips of one place with other events in it have nearly the same frames

Thresholds stand beside what was measured in `PerceptualConfig`.
"""

import numpy as np
import pyarrow as pa

from wfm.config import AtLeastZero, Config, Cosine, Natural, Share
from wfm.curation.dedup.neighbours import clustered_pairs, exact_pairs
from wfm.curation.embed.signature import SIDE, area_means

KEPT = 6
CROPS = ((0.0, 1.0), (0.0, 0.93), (0.035, 0.965), (0.07, 1.0))
"Along each axis, of the candidates' vectors."
WINDOWS = (*((0.0, 1.0), (0.0, 0.95), (0.025, 0.975), (0.05, 1.0)), *((a / 30, a / 30 + 0.9) for a in range(4)))
"Along each axis, of the comparison."
MOST_CROPS = 6
"Of the 64, those in which the mean pictures agree best; only they are compared frame by frame."
BLOCKS = 6
WIDTH = KEPT * KEPT - 1


class PerceptualConfig(Config):
    """When two signatures are the same clip.

    Measured on the copies and near misses of tests/benchmarks/dedup_kinds.py (worlds of two seeds, none of them in the tests):
    copies had candidate >= 0.98, frames >= 0.952, change >= 0.88, local <= 0.55; of what was no copy, what came closest in
    frames and change at once (0.955, 0.90: a pan over one place with other shapes) had local 0.84.
    """

    candidate: Cosine = 0.9
    "Cosine of two mean pictures from which thumbnails are compared."
    frames: Cosine = 0.93
    "Least mean correlation of aligned thumbnails."
    change: Cosine = 0.84
    "Least correlation of what changes over time; not asked where neither clip changes."
    local: AtLeastZero = 0.68
    "Most squared difference in any sixth by sixth of the picture, of the median frame, in units of the picture's variance."
    still: AtLeastZero = 0.002
    "Share of changing energy below which a clip counts as still."
    length: Share = 0.85
    "Least ratio of the lengths, and least overlap as a share of the longer: 10 % trimmed, and rounding."
    exact_up_to: Natural = 20_000
    "Vectors up to which all are compared with all."


def _normal(x: np.ndarray) -> np.ndarray:
    """Pictures [..., P] -> mean 0, length 1; next to no contrast -> zeros."""
    x = x - x.mean(axis=-1, keepdims=True)
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    return np.where(length > 2 * SIDE, x / np.maximum(length, 1e-6), 0)  # 2: grey levels of contrast


def crop_vectors(thumbnails: np.ndarray) -> np.ndarray:
    """uint8 [T, 24, 24] -> float16 [16, 35] of length 1 (or 0): the mean picture whole, then its crops."""
    mean = thumbnails.astype(np.float32).mean(axis=0)
    wave = np.cos(np.pi * (np.arange(SIDE) + 0.5)[None] * np.arange(KEPT)[:, None] / SIDE).astype(np.float32)
    made = []
    for rows in CROPS:
        for columns in CROPS:
            x = _normal((area_means(*rows, SIDE) @ mean @ area_means(*columns, SIDE).T).reshape(-1)).reshape(SIDE, SIDE)
            made.append((wave @ x @ wave.T).reshape(-1)[1:])
    length = np.linalg.norm(made, axis=1, keepdims=True)
    return np.where(length > 1e-3, np.array(made) / np.maximum(length, 1e-6), 0).astype(np.float16)


def same_clip(a: np.ndarray, b: np.ndarray, config: PerceptualConfig) -> float:
    """Thumbnails uint8 [T, 24, 24] twice, at one step -> mean correlation of the best alignment, or 0 if they are two clips."""
    if min(len(a), len(b)) < config.length * max(len(a), len(b)) - 1:
        return 0.0
    return max(_aligned(a, b, config), _aligned(b, a, config))


def _aligned(whole: np.ndarray, part: np.ndarray, config: PerceptualConfig) -> float:
    """The best over crops of ``whole`` [Ta, ...] and offsets of ``part`` [Tb, ...] in time."""
    windows = np.stack([area_means(low, high, SIDE) for low, high in WINDOWS])  # [8, 24, 24]
    x, y = whole.astype(np.float32), part.astype(np.float32)
    crops = np.einsum("hij,jk,wlk->hwil", windows, x.mean(axis=0), windows, optimize=True)  # [8, 8, 24, 24]
    likely = np.argsort(_normal(crops.reshape(-1, SIDE * SIDE)) @ _normal(y.mean(axis=0).reshape(-1)))[-MOST_CROPS:]
    rows, columns = np.divmod(likely, len(WINDOWS))
    x = windows[rows][:, None] @ x @ windows[columns][:, None].transpose(0, 1, 3, 2)  # [6, Ta, 24, 24]
    x = _normal(x.reshape(len(likely), len(whole), SIDE * SIDE))
    y = _normal(y.reshape(len(part), SIDE * SIDE))
    products = x @ y.T  # [6, Ta, Tb]
    found = []
    for offset in range(-len(part) + 1, len(whole)):
        overlap = min(len(whole), len(part) + offset) - max(0, offset)
        if overlap >= max(1.0, config.length * max(len(whole), len(part)) - 1):
            score = np.trace(products, offset=-offset, axis1=1, axis2=2) / overlap
            found += [(float(score[k]), int(k), offset) for k in np.argsort(score)[-3:]]
    for score, k, offset in sorted(found, reverse=True)[:8]:
        if score < config.frames:
            break
        start, stop = max(0, offset), min(len(whole), len(part) + offset)
        if _events_agree(x[k, start:stop], y[start - offset : stop - offset], config):
            return score
    return 0.0


def _events_agree(x: np.ndarray, y: np.ndarray, config: PerceptualConfig) -> bool:
    """Aligned frames [T, P] twice: nothing stands out in one place, and what departs from the mean over time is the same."""
    blocks = ((x - y) ** 2).reshape(-1, BLOCKS, SIDE // BLOCKS, BLOCKS, SIDE // BLOCKS).sum(axis=(2, 4)) * BLOCKS**2
    if float(np.median(blocks.max(axis=(1, 2)))) > config.local:
        return False
    dx, dy = x - x.mean(axis=0), y - y.mean(axis=0)
    ex, ey = (float((d * d).sum()) / len(x) for d in (dx, dy))
    if max(ex, ey) < config.still:
        return True
    return float((dx * dy).sum()) / len(x) >= config.change * np.sqrt(max(ex * ey, 1e-12))


def perceptual_pairs(
    table: pa.Table, rows: np.ndarray, groups: np.ndarray, config: PerceptualConfig, fresh: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, int]]:
    """Signatures and the row each is of -> (first, second, correlation of pairs first < second of other groups, counts).

    fresh bool, one a clip: only pairs with at least one of these.
    """
    order = np.argsort(rows, kind="stable")
    column, steps = table.column("thumbnails"), table.column("step_seconds").to_pylist()

    def thumbnails(i: int) -> np.ndarray:
        return column[int(order[i])].values.to_numpy().reshape(-1, SIDE, SIDE)

    crops = np.concatenate(
        [np.zeros((0, WIDTH), np.float16)] + [crop_vectors(thumbnails(i)) for i in range(len(order))]
    )
    clip_of = np.repeat(np.arange(len(order)), len(CROPS) ** 2)
    sides = groups[rows[order]][clip_of] if len(order) else clip_of
    whole = np.arange(len(crops)) % len(CROPS) ** 2 == 0
    if len(crops) <= config.exact_up_to:
        near = exact_pairs(crops, sides, config.candidate)
    else:
        near = clustered_pairs(crops, sides, config.candidate, reach=0.5, fresh=whole)
    either = whole[near.first] | whole[near.second]
    pairs = np.unique(np.stack([clip_of[near.first[either]], clip_of[near.second[either]]]), axis=1)
    found, scores = [], []
    if fresh is not None:
        new = fresh[rows[order]]
        pairs = pairs[:, new[pairs[0]] | new[pairs[1]]]
    for i, j in pairs.T.tolist():
        a, b = _one_step(thumbnails(i), steps[order[i]], thumbnails(j), steps[order[j]])
        score = same_clip(a, b, config)
        if score:
            found.append(sorted((int(rows[order[i]]), int(rows[order[j]]))))
            scores.append(round(score, 6))
    place = np.array(found, np.int64).reshape(-1, 2)
    return place[:, 0], place[:, 1], np.array(scores), {"perceptual_candidates": pairs.shape[1]}


def _one_step(a: np.ndarray, step_a: float, b: np.ndarray, step_b: float) -> tuple[np.ndarray, np.ndarray]:
    """Long clips have longer steps, by powers of two: thin out the finer one."""
    return a[:: max(1, round(step_b / step_a))], b[:: max(1, round(step_a / step_b))]
