"""Does the picture as a whole move as the true one does: read from the flow that `wfm.evaluation.camera` measured."""

from typing import Any

import numpy as np

from wfm.evaluation.metric import WorldMetric


def _flow_error(moved: Any) -> tuple[np.ndarray, np.ndarray]:
    error = np.linalg.norm(moved.flow - moved.true_flow, axis=-1).mean((1, 2, 3))  # [N]
    return error, np.ones(len(error))


def _rate_error(moved: Any) -> tuple[np.ndarray, np.ndarray] | None:
    if moved.rate is None:
        return None
    error = np.abs(moved.rate - moved.true_rate).mean(1)
    return error, np.ones(len(error))


METRICS = (
    WorldMetric(
        name="flow_error_px",
        section="camera",
        title="flow error",
        unit="px/frame",
        better="lower",
        definition="mean distance between the optical flow of the prediction and of the truth",
        of=_flow_error,
        digits=2,
        place=140,
    ),
    WorldMetric(
        name="rate_error",
        section="camera",
        title="camera rate error",
        unit="{rate_unit}",
        better="lower",
        definition="mean absolute error of the camera's rate, read from the prediction by what reads it from true frames",
        of=_rate_error,
        digits=1,
        place=150,
    ),
)
