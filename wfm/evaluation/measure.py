"""Every metric on every set of videos, a few windows at a time: memory follows the window, and it fits the cache."""

from dataclasses import dataclass

import numpy as np

from wfm.evaluation.metric import Clips, FrameMetric, Metric, SetMetric


@dataclass(frozen=True)
class Measured:
    """One set of videos, predicted frames only."""

    frames: dict[str, np.ndarray]
    """Each `FrameMetric` against the truth [N, T]."""
    descriptors: dict[str, np.ndarray]
    """Each `SetMetric`'s descriptors [N, D]."""


def measure(
    videos: dict[str, np.ndarray], truth: np.ndarray, metrics: tuple[Metric, ...], *, batch: int = 1
) -> tuple[dict[str, Measured], dict[str, np.ndarray]]:
    """Measure each of `videos` (uint8 [N, T, H, W, 3]) against `truth`; also the truth's descriptors [N, D] by metric."""
    by_frame = [metric for metric in metrics if isinstance(metric, FrameMetric)]
    of_sets = [metric for metric in metrics if isinstance(metric, SetMetric)]
    frames: dict[str, dict[str, list[np.ndarray]]] = {name: {one.name: [] for one in by_frame} for name in videos}
    descriptors: dict[str, dict[str, list[np.ndarray]]] = {name: {one.name: [] for one in of_sets} for name in videos}
    real: dict[str, list[np.ndarray]] = {one.name: [] for one in of_sets}
    for start in range(0, len(truth), batch):
        rows = slice(start, start + batch)
        true_clips = Clips(truth[rows])
        for metric in of_sets:
            real[metric.name].append(metric.describe(true_clips))
        for name, video in videos.items():
            clips = Clips(video[rows])
            for row in by_frame:
                frames[name][row.name].append(_per_frame(row, clips, true_clips))
            for metric in of_sets:
                descriptors[name][metric.name].append(metric.describe(clips))
    found = {name: Measured(_joined(frames[name]), _joined(descriptors[name])) for name in videos}
    return found, _joined(real)


def _per_frame(metric: FrameMetric, clips: Clips, truth: Clips) -> np.ndarray:
    """[N, T]. Raises ValueError for anything else, which would end in a wrong mean."""
    found = np.asarray(metric.of(clips, truth), dtype=np.float64)
    if found.shape != clips.video.shape[:2] or not np.isfinite(found).all():
        raise ValueError(f"metric {metric.name}: {found.shape} must be finite [N, T] = {clips.video.shape[:2]}")
    return found


def _joined(batches: dict[str, list[np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate(parts) for name, parts in batches.items()}
