"""Text and logos laid over a video, found without a neural net: strokes that stay where they are while the rest moves.

Edges are averaged over time with their sign. What moves cancels out; what is fixed to the screen stays. Text is told from other
things that stay (a horizon, a table's edge) by two properties of strokes: within a window the edges run in more than one
direction, and each rising edge has a falling one beside it.

Limits, which the neural detector of a later depth is for: text on a still background cannot be told from the background
(such clips fall to the static filter); strokes under two pixels at the size given, or fainter than 0.06 of full
brightness a pixel, are not seen; text that scrolls or that belongs to the scene is not overlay and is not found; a finely
textured object at rest before a resting camera can look like a logo.
"""

from typing import Any

import numpy as np
from array_api_compat import array_namespace

from wfm.curation.arrays import box_mean, to_numpy

STROKE = 0.06
"Weakest edge counted, brightness (0..1) a pixel."
PERSISTENCE = 0.8
"Share of an edge's mean strength that survives averaging with sign."
BALANCE = 0.6
"How nearly rising and falling edges cancel in a window: 1 for strokes, 0 for the border of a surface."
CORNER = 0.15
"Smaller over larger share of edge energy along the two axes of a window: 0 for a straight line."
DENSITY = 0.2
"Share of a window's pixels that are such edges."


def overlay_score(gray: Any) -> float:
    """Share of the picture covered by windows full of fixed strokes: 0 for none, 0.04 for a word of 7 letters.

    gray [T, H, W] float in 0..1: frames spread over the whole clip (8 or more).
    """
    xp = array_namespace(gray)
    frames, height, width = gray.shape
    if frames < 2 or min(height, width) < 16:
        return 0.0
    x = (gray[:, 1:-1, 2:] - gray[:, 1:-1, :-2]) / 2
    y = (gray[:, 2:, 1:-1] - gray[:, :-2, 1:-1]) / 2
    mean_x, mean_y = xp.mean(x, axis=0), xp.mean(y, axis=0)
    fixed = xp.sqrt(mean_x**2 + mean_y**2)
    strength = xp.mean(xp.sqrt(x**2 + y**2), axis=0)
    edges = (fixed > STROKE) & (fixed > PERSISTENCE * strength)
    return float(to_numpy(xp.mean(xp.astype(_strokes(xp, edges, mean_x, mean_y), xp.float32))))


def _strokes(xp: Any, edges: Any, x: Any, y: Any) -> Any:
    """[H, W] bool: windows around a pixel in which the edges look like writing."""
    radius = max(2, round(min(edges.shape) / 32))
    weight = xp.astype(edges, xp.float32)
    x, y = x * weight, y * weight
    density = box_mean(xp, weight, radius)
    xx, yy, xy = (box_mean(xp, product, radius) for product in (x * x, y * y, x * y))
    spread = xp.sqrt((xx - yy) ** 2 + 4 * xy**2)  # eigenvalues of the structure tensor are (xx + yy +- spread) / 2
    corner = (xx + yy - spread) / (xx + yy + spread + 1e-9)
    net = xp.sqrt(box_mean(xp, x, radius) ** 2 + box_mean(xp, y, radius) ** 2)
    gross = box_mean(xp, xp.sqrt(x * x + y * y), radius) + 1e-9
    return (density > DENSITY) & (corner > CORNER) & (1 - net / gross > BALANCE)


def moving_share(gray: Any) -> float:
    """Share of edge strength that does not stay in place: near 0 the overlay score cannot tell text from background."""
    xp = array_namespace(gray)
    if gray.shape[0] < 2 or min(gray.shape[1:]) < 3:
        return 0.0
    x = (gray[:, 1:-1, 2:] - gray[:, 1:-1, :-2]) / 2
    y = (gray[:, 2:, 1:-1] - gray[:, :-2, 1:-1]) / 2
    fixed = xp.sqrt(xp.mean(x, axis=0) ** 2 + xp.mean(y, axis=0) ** 2)
    strength = xp.mean(xp.sqrt(x**2 + y**2), axis=0)
    total = float(xp.sum(strength))
    return float(np.clip(1 - float(xp.sum(fixed)) / total, 0, 1)) if total > 0 else 0.0
