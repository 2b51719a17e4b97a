"""What a prediction has to beat: standing still, and moving on as before."""

import numpy as np

from wfm.evaluation.flow import FlowEstimator


def repeat_last(past: np.ndarray, predicted_frames: int) -> np.ndarray:
    """The last given frame again and again: uint8 [N, P, H, W, 3] -> [N, predicted_frames, H, W, 3]."""
    return np.repeat(past[:, -1:], predicted_frames, axis=1)


def extrapolate_flow(past: np.ndarray, predicted_frames: int, *, pairs: int = 3) -> np.ndarray:
    """Constant motion: the flow of the last frames goes on unchanged and carries the last frame with it.

    Args: `past` uint8 [N, P, H, W, 3], P >= 2. Returns uint8 [N, predicted_frames, H, W, 3].
    The flow field is the median over the last `pairs` frame pairs, held steady in the picture (semi-Lagrangian):
    frame k at p is the last frame at the place reached by following the field backwards k times from p. What comes in
    over the edge repeats the edge.
    """
    import cv2

    if past.shape[1] < 2:
        raise ValueError(f"flow extrapolation needs 2 past frames or more, got {past.shape[1]}")
    estimator = FlowEstimator()
    count, given, height, width, _ = past.shape
    out = np.empty((count, predicted_frames, height, width, 3), dtype=np.uint8)
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    home = np.stack([columns, rows], axis=-1)  # [H, W, 2] (x, y)
    edge = np.array([width - 1, height - 1], dtype=np.float32)
    for clip in range(count):
        fields = [
            estimator.between(past[clip, frame], past[clip, frame - 1]) for frame in range(max(1, given - pairs), given)
        ]
        back = np.median(np.stack(fields), axis=0).astype(
            np.float32
        )  # [H, W, 2]: from a place to where its content was
        place = home.copy()
        for step in range(predicted_frames):
            moved = cv2.remap(back, place[..., 0], place[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            place = np.clip(place + moved, 0, edge)
            out[clip, step] = cv2.remap(
                past[clip, -1], place[..., 0], place[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            )
    return out
