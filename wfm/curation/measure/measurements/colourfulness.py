"""How colourful a clip is: black-and-white and washed-out footage, which no other number tells from a grey day.

Hasler and Süsstrunk 2003, on the opponent colours of 8-bit RGB: their observers called 0 not colourful, 15 slightly, 33
moderately, 59 quite, 109 extremely. A picture of one tint (sepia) is not 0: its mean counts for 0.3.
"""

import numpy as np

from wfm.curation.measure.measurement import Limit, Measurement

SIDE = 128
"Longer side of the stills that are looked at [pixels]: colour is coarse, and noise in it is averaged away."


def colourfulness(pictures: np.ndarray) -> float:
    """Median over pictures, uint8 [S, H, W, 3] RGB: from 0; one that is grey reads 0."""
    red, green, blue = (pictures[..., k].astype(np.float32) for k in range(3))
    across, along = red - green, (red + green) / 2 - blue
    spread = np.hypot(across.std(axis=(1, 2)), along.std(axis=(1, 2)))
    mean = np.hypot(across.mean(axis=(1, 2)), along.mean(axis=(1, 2)))
    return float(np.median(spread + 0.3 * mean))


MEASUREMENTS = (
    Measurement(
        name="colourfulness",
        words="Hasler and Süsstrunk's, median over stills: 0 black and white, 15 slightly colourful, 59 quite.",
        of=lambda seen: colourfulness(seen.own("colourfulness").pictures()),
        watch=lambda watch: watch.gather("rgb24", SIDE),
        limits=(Limit(reason="colourless", option="measured.minimum_colourfulness"),),
    ),
)
