"""Camera-motion error: does the picture as a whole move as the true one does, and at what rate does its camera turn?

Two readings. The flow error compares the optical flow of prediction and truth and needs nothing else. The rate is
read from the flow by a linear reader fitted on true frames, whose rate is known, and never on the session it is used
on; how well it reads there is reported with it.
"""

from dataclasses import dataclass

import numpy as np

from wfm.data.motion import FlowEstimator
from wfm.evaluation.bootstrap import Bootstrap
from wfm.evaluation.metrics import world_metrics
from wfm.evaluation.schema import CameraReport, WorldScores

GRID = 4
RIDGE = 1e-2


def flows(video: np.ndarray, gap: int) -> np.ndarray:
    """Flow of each pair of frames `gap` apart, a pair every `gap` frames: uint8 [N, T, H, W, 3] -> float32 [N, K, H,
    W, 2], px a frame."""
    estimator = FlowEstimator()
    starts = range(0, video.shape[1] - gap, gap)
    out = np.empty((len(video), len(starts), *video.shape[2:4], 2), dtype=np.float32)
    for clip in range(len(video)):
        for index, start in enumerate(starts):
            out[clip, index] = estimator.between(video[clip, start], video[clip, start + gap]) / gap
    return out


def pooled(flow: np.ndarray) -> np.ndarray:
    """Mean flow of a GRID x GRID raster, and a constant: [N, K, H, W, 2] -> [N, K, 2 * GRID^2 + 1]."""
    bands = [np.stack([part.mean(2) for part in np.array_split(flow, GRID, axis=2)], axis=2)]  # [N, K, G, W, 2]
    raster = np.stack([part.mean(3) for part in np.array_split(bands[0], GRID, axis=3)], axis=3)  # [N, K, G, G, 2]
    flat = raster.reshape(*flow.shape[:2], -1)
    return np.concatenate([flat, np.ones((*flat.shape[:2], 1))], axis=-1)


class RateReader:
    """Reads a camera rate from pooled flow, with weights fitted on the other half or the other sessions of the true
    windows."""

    def __init__(self, truth: np.ndarray, rates: np.ndarray, sessions: list[str]) -> None:
        """Args: `truth` pooled flow [N, K, D] of true frames; `rates` [N, K] known rates; `sessions` [N]."""
        names, codes = np.unique(np.asarray(sessions), return_inverse=True)
        self.folds = codes if len(names) > 1 else np.arange(len(codes)) % 2
        self.weights = {}
        for fold in np.unique(self.folds):
            x = truth[self.folds != fold].reshape(-1, truth.shape[-1])
            y = rates[self.folds != fold].reshape(-1)
            penalty = RIDGE * len(x) * np.eye(x.shape[1])
            penalty[-1, -1] = 0.0  # the constant is free
            self.weights[fold] = np.linalg.lstsq(x.T @ x + penalty, x.T @ y, rcond=None)[0]
        read = self.read(truth)
        variance = float(((rates - rates.mean()) ** 2).sum())
        self.r2 = 1 - float(((read - rates) ** 2).sum()) / variance if variance > 0 else None

    def read(self, features: np.ndarray) -> np.ndarray:
        """Pooled flow [N, K, D] -> rate [N, K]."""
        return np.stack([row @ self.weights[fold] for row, fold in zip(features, self.folds, strict=True)])


def known_rates(actions: np.ndarray, past_frames: int, gap: int, pairs: int) -> np.ndarray:
    """Mean action between the frames of each flow pair. Args: `actions` [N, T] of one component, all frames. Returns
    [N, pairs].

    Flow pair k goes from predicted frame k * gap to (k + 1) * gap; the action at frame t acts between frames t and t
    + 1.
    """
    acting = actions[:, past_frames : past_frames + pairs * gap]
    return acting.reshape(len(actions), pairs, gap).mean(2)


@dataclass(frozen=True)
class Moved:
    """How one set of videos moves beside the truth: flows [N, K, H, W, 2] in px a frame, rates [N, K] or None where there is
    no reader of them."""

    flow: np.ndarray
    true_flow: np.ndarray
    rate: np.ndarray | None
    true_rate: np.ndarray


def camera_report(
    videos: dict[str, np.ndarray],
    sessions: list[str],
    rates: np.ndarray | None,
    *,
    rate_name: str,
    rate_unit: str,
    past_frames: int,
    gap: int,
    bootstrap: Bootstrap,
) -> CameraReport:
    """Camera motion of every set of `videos` (uint8 [N, T, H, W, 3], predicted frames only, "truth" among them)
    against the truth.

    Args: `rates` [N, all frames] the known camera rate, or None where there is none.
    """
    real = flows(videos["truth"], gap)
    reader, wanted = None, np.zeros(0)
    if rates is not None and len(real) > 1:
        wanted = known_rates(rates, past_frames, gap, real.shape[1])
        reader = RateReader(pooled(real), wanted, sessions)
    rows = world_metrics("camera")
    scores = {}
    for name, video in videos.items():
        seen = real if name == "truth" else flows(video, gap)
        moved = Moved(seen, real, reader.read(pooled(seen)) if reader else None, wanted)
        scores[name] = WorldScores.model_validate({row.name: bootstrap.world(row, moved) for row in rows})
    return CameraReport(
        rate_name=rate_name,
        rate_unit=rate_unit,
        rate_calibration_r2=reader.r2 if reader else None,
        videos=scores,
        rate_absent="" if reader else f"these windows have no known {rate_name}",
    )
