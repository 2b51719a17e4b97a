"""Are objects still there, and where they should be: read from what `wfm.evaluation.objects` found of each."""

from typing import Any

import numpy as np

from wfm.evaluation.metric import WorldMetric


def _share_of_frames(there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frames that hold, and frames that enter, of each track [K, T]."""
    return np.nansum(there, axis=1), (~np.isnan(there)).sum(1)


def _seen(marks: Any) -> tuple[np.ndarray, np.ndarray]:
    return _share_of_frames(marks.seen)


def _placed(marks: Any) -> tuple[np.ndarray, np.ndarray]:
    return _share_of_frames(marks.placed)


def _error(marks: Any) -> tuple[np.ndarray, np.ndarray]:
    return np.nansum(marks.error, axis=1), (~np.isnan(marks.error)).sum(1)


METRICS = (
    WorldMetric(
        name="permanence_rate",
        section="objects",
        title="object found again",
        better="higher",
        definition="share of (object, frame) seen in the truth that is found in the prediction, anywhere",
        of=_seen,
        share=True,
        place=110,
    ),
    WorldMetric(
        name="placed_rate",
        section="objects",
        title="and within {placed_within_px:g} px",
        better="higher",
        definition="the same, and near to where it truly is: what a missing object cannot flatter",
        of=_placed,
        share=True,
        place=120,
    ),
    WorldMetric(
        name="position_error_px",
        section="objects",
        title="position error",
        unit="px",
        better="lower",
        definition="distance to the true place, over the objects that were found (read it beside the rate)",
        of=_error,
        digits=2,
        place=130,
    ),
)
