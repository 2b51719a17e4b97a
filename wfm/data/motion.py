"""Futures without a model: the last frame held, and dense optical flow that goes on as before.

Flow: DIS (Kroeger et al. 2016) in OpenCV, on frames enlarged twice, because its patches (8 px) are large against a 64 px
frame. OpenCV runs on one thread here: how it cuts a picture into stripes, and so the result, depends on their number.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

UPSAMPLING = 2
PAIRS = 3
"""Frame pairs whose median is taken as the present motion."""


class FlowEstimator:
    """Dense flow between two RGB frames of one size; keeps OpenCV's working memory between calls."""

    def __init__(self) -> None:
        import cv2

        self._cv2 = cv2
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._dis.setFinestScale(1)

    def _grey(self, frame: np.ndarray) -> np.ndarray:
        grey = self._cv2.cvtColor(np.ascontiguousarray(frame), self._cv2.COLOR_RGB2GRAY)
        height, width = grey.shape
        size = (width * UPSAMPLING, height * UPSAMPLING)
        return np.asarray(self._cv2.resize(grey, size, interpolation=self._cv2.INTER_CUBIC))

    def between(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Flow float32 [H, W, 2] (x, y) in px of the frames as given: what stands at p in ``first`` stands at
        p + flow[p] in ``second``."""
        height, width = first.shape[:2]
        with _one_thread():
            flow = self._dis.calc(self._grey(first), self._grey(second), None)
            small = self._cv2.resize(flow, (width, height), interpolation=self._cv2.INTER_AREA)
        return np.asarray(small, dtype=np.float32) / UPSAMPLING


def repeat_last(past: np.ndarray, predicted_frames: int) -> np.ndarray:
    """The last given frame again and again: uint8 [N, P, H, W, 3] -> [N, predicted_frames, H, W, 3]."""
    return np.repeat(past[:, -1:], predicted_frames, axis=1)


def extrapolate(past: np.ndarray, predicted_frames: int, *, pairs: int = PAIRS) -> np.ndarray:
    """Constant motion: the flow of the last frames goes on unchanged and carries the last frame with it.

    ``past`` uint8 [N, P, H, W, 3], P >= 2 -> uint8 [N, predicted_frames, H, W, 3]. The field is the median over the last
    ``pairs`` frame pairs, held steady in the picture (semi-Lagrangian): frame k at p is the last frame at the place
    reached by following the field backwards k times from p. What comes in over the edge repeats the edge. Raises
    ValueError for fewer than two past frames.
    """
    if past.shape[1] < 2:
        raise ValueError(f"flow extrapolation needs 2 past frames or more, got {past.shape[1]}")
    estimator = FlowEstimator()
    out = np.empty((past.shape[0], predicted_frames, *past.shape[2:]), dtype=np.uint8)
    for clip, frames in enumerate(past):
        for step, frame in enumerate(_carried(estimator, frames, predicted_frames, pairs)):
            out[clip, step] = frame
    return out


def _carried(estimator: FlowEstimator, past: np.ndarray, predicted_frames: int, pairs: int) -> Iterator[np.ndarray]:
    """The last frame of one clip [P, H, W, 3], carried on frame by frame."""
    import cv2

    given, height, width, _ = past.shape
    fields = [estimator.between(past[frame], past[frame - 1]) for frame in range(max(1, given - pairs), given)]
    back = np.median(np.stack(fields), axis=0).astype(np.float32)  # [H, W, 2]: from a place to where its content was
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    place = np.stack([columns, rows], axis=-1)
    edge = np.array([width - 1, height - 1], dtype=np.float32)
    for _ in range(predicted_frames):
        moved = cv2.remap(back, place[..., 0], place[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        place = np.clip(place + moved, 0, edge)
        yield cv2.remap(past[-1], place[..., 0], place[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


@contextmanager
def _one_thread() -> Iterator[None]:
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
