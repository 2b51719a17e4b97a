"""Adapter: where text stands in a picture, by the PP-OCRv4 detector of rapidocr-onnxruntime (extra ``curate-models``; weights
in its wheel). Detection only: what is written is never read."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from wfm.errors import MissingPackage


def text_boxes(picture: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] BGR -> float64 [N, 4]: left, top, right, bottom as shares of the picture's sides."""
    height, width = picture.shape[:2]
    corners, _ = detector()(picture)
    if corners is None or len(corners) == 0:
        return np.zeros((0, 4))
    points = np.asarray(corners, np.float64) / (width, height)  # [N, 4, 2]
    return np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)


@lru_cache(maxsize=1)
def detector() -> Any:
    """The detector, one a process, on one thread: workers are processes. Raises `MissingPackage`."""
    try:
        import rapidocr_onnxruntime
        from rapidocr_onnxruntime.ch_ppocr_det import TextDetector
    except ImportError:
        raise MissingPackage(
            "rapidocr-onnxruntime", extra="curate-models", purpose="score_clips with text_detector='ppocr'"
        ) from None
    model = Path(rapidocr_onnxruntime.__file__).parent / "models" / "ch_PP-OCRv4_det_infer.onnx"
    return TextDetector(
        {
            "model_path": str(model),
            "use_cuda": False,
            "use_dml": False,
            "intra_op_num_threads": 1,
            "inter_op_num_threads": 1,
            # The picture goes in at its own size (its sides brought to a multiple of 32): we choose it, not the package.
            "limit_side_len": 64,
            "limit_type": "min",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "thresh": 0.3,
            "box_thresh": 0.5,
            "max_candidates": 1000,
            "unclip_ratio": 1.6,
            "use_dilation": True,
            "score_mode": "fast",
        }
    )
