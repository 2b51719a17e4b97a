"""What a prediction has to beat: standing still. The other baseline, moving on as before, is `wfm.data.motion`'s."""

import numpy as np


def repeat_last(past: np.ndarray, predicted_frames: int) -> np.ndarray:
    """The last given frame again and again: uint8 [N, P, H, W, 3] -> [N, predicted_frames, H, W, 3]."""
    return np.repeat(past[:, -1:], predicted_frames, axis=1)
