"""Edge F-score, frame by frame: are the outlines where they should be? The boundary F-measure of segmentation (Martin et al.
2004), between the Canny edges of two pictures.

PSNR forgives a blurred picture, whose outlines are gone; the recall of edges does not, and the precision does not forgive those
that are made up.
"""

import numpy as np

from wfm.evaluation.metric import FrameMetric

LOW, HIGH = 50, 150
"""Canny's thresholds on the gradient (L1, Sobel 3x3) of 8-bit brightness."""
REACH_PX = 1
"""An edge is found again within so many pixels, the sides and corners alike."""


def edge_f_score_per_frame(video: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Harmonic mean of the share of edges in `video` that are in `truth`, and the other way round: 0..1, 1 for like outlines.

    Args: `video`, `truth` uint8 [N, T, H, W, 3]. Returns float64 [N, T]. Two pictures without an edge are alike (1); where only
    one has none, nothing is found again (0).
    """
    if video.shape != truth.shape or video.ndim != 5:
        raise ValueError(f"video {video.shape} and truth {truth.shape} must have one shape [N, T, H, W, 3]")
    if video.dtype != np.uint8 or truth.dtype != np.uint8:
        raise ValueError(f"video ({video.dtype}) and truth ({truth.dtype}) must be uint8, from 0 to 255")
    out = np.empty(video.shape[:2])
    for place in np.ndindex(*out.shape):
        out[place] = _f_score(_edges(video[place]), _edges(truth[place]))
    return out


def _edges(picture: np.ndarray) -> np.ndarray:
    """uint8 [H, W], 255 on an edge."""
    import cv2

    return np.asarray(cv2.Canny(cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY), LOW, HIGH))


def _f_score(ours: np.ndarray, theirs: np.ndarray) -> float:
    import cv2

    number, wanted = np.count_nonzero(ours), np.count_nonzero(theirs)
    if not number or not wanted:
        return float(number == wanted)
    reach = np.ones((2 * REACH_PX + 1,) * 2, np.uint8)
    precision = np.count_nonzero(ours & cv2.dilate(theirs, reach)) / number
    recall = np.count_nonzero(theirs & cv2.dilate(ours, reach)) / wanted
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


METRIC = FrameMetric(
    name="edge_f_score",
    title="edge F-score",
    better="higher",
    definition=f"F-score of Canny edges that are found again within {REACH_PX} px; mean over frames; 1 = the same outlines",
    of=lambda clips, truth: edge_f_score_per_frame(clips.video, truth.video),
    place=50,
)
