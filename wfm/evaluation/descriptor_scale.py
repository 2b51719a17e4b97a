"""The scale of the clip descriptor of `features`: constants, so that no distance depends on the clips it compares.

A scale taken from the true clips of an evaluation makes the kernel distance biased, because the clips that are judged then
share in it. These stand for video at large: mean and deviation of each channel (what is seen, then how it changes from frame to
frame; GRID x GRID places alike) over generated scenes that are in no data set. `python -m tests.benchmarks.descriptor_scale`
measures them anew.
"""

import numpy as np

MEAN: tuple[float, ...] = (
    0.0589, 0.0625, 0.0592, 0.0625, 0.0759, 0.0777, 0.0757, 0.0765, 0.0905, 0.0961, 0.0924, 0.0942, 0.0788, 0.0805,
    0.0789, 0.0806, 0.104, 0.104, 0.105, 0.1, 0.125, 0.123, 0.123, 0.125, 0.108, 0.103, 0.107, 0.104, 0.483, 0.0283,
    -0.0124, 0.00312, 0.00309, 0.00311, 0.00312, 0.00409, 0.00404, 0.0041, 0.00407, 0.00451, 0.00456, 0.00447,
    0.00462, 0.00409, 0.00387, 0.00393, 0.00393, 0.00594, 0.00573, 0.00604, 0.00572, 0.00671, 0.00672, 0.00677,
    0.00671, 0.00623, 0.00551, 0.00596, 0.00587, 0.00316, 0.00373, 0.00318,
)  # fmt: skip
DEVIATION: tuple[float, ...] = (
    0.0229, 0.0233, 0.0241, 0.0232, 0.0385, 0.0385, 0.0407, 0.0374, 0.045, 0.0475, 0.0489, 0.0448, 0.0414, 0.0405,
    0.0406, 0.04, 0.0649, 0.0611, 0.0668, 0.0574, 0.0714, 0.0707, 0.0762, 0.0702, 0.0654, 0.0606, 0.0628, 0.0596,
    0.125, 0.16, 0.122, 0.00276, 0.00264, 0.00288, 0.0027, 0.00461, 0.00442, 0.00448, 0.0043, 0.00595, 0.00568,
    0.00605, 0.00604, 0.00601, 0.00564, 0.00573, 0.00548, 0.00688, 0.00637, 0.00661, 0.00609, 0.00817, 0.00753,
    0.00822, 0.00758, 0.00845, 0.00789, 0.00796, 0.00779, 0.00364, 0.0042, 0.00389,
)  # fmt: skip


def rounded(values: np.ndarray) -> tuple[float, ...]:
    """Values to three figures, as they stand above."""
    return tuple(float(f"{value:.3g}") for value in values)


def standardise(descriptors: np.ndarray) -> np.ndarray:
    """Descriptors [N, D] of `features.clip_descriptor` -> float64 [N, D], each channel centred and scaled by the constants."""
    channels = descriptors.astype(np.float64).reshape(len(descriptors), len(MEAN), -1)
    return ((channels - np.array(MEAN)[:, None]) / np.array(DEVIATION)[:, None]).reshape(descriptors.shape)
