"""Dense optical flow of small frames (DIS, Kroeger et al. 2016, in OpenCV). Used by the flow baseline and the camera-
motion error."""

import numpy as np

UPSAMPLING = 2
"""Frames are enlarged before matching: DIS's patches (8 px) are large against a 64 px frame."""


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
        """Flow float32 [H, W, 2] (x, y) in px of the frames as given: what stands at p in `first` stands at p +
        flow[p] in `second`."""
        height, width = first.shape[:2]
        flow = self._dis.calc(self._grey(first), self._grey(second), None)
        small = self._cv2.resize(flow, (width, height), interpolation=self._cv2.INTER_AREA)
        return np.asarray(small, dtype=np.float32) / UPSAMPLING
