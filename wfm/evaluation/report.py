"""Puts an evaluation together: videos in, `Metrics` and a table of every window out. Reads top to bottom.

Choices are made on validation; `Metrics.split` records which split this was. Only predicted frames count anywhere.
"""

from typing import Any

import numpy as np

from wfm.data.motion import extrapolate, repeat_last
from wfm.evaluation.action_sensitivity import action_sensitivity, actions_differ
from wfm.evaluation.bootstrap import Bootstrap
from wfm.evaluation.camera import camera_report
from wfm.evaluation.config import EvaluationConfig
from wfm.evaluation.features import DESCRIPTION, FEATURE_NET
from wfm.evaluation.generated import CEILING, SHUFFLED, GeneratedVideos, check
from wfm.evaluation.kernel_distance import kernel_distance
from wfm.evaluation.measure import Nearness, measure
from wfm.evaluation.objects import objects_report
from wfm.evaluation.schema import (
    CameraReport,
    Curve,
    Estimate,
    Gain,
    Horizon,
    Metrics,
    ObjectsReport,
    Quality,
    SubsetReport,
)
from wfm.evaluation.subsets import Subset, rate_column, subsets
from wfm.evaluation.worlds import Worlds

REPEAT, FLOW = "repeat_last", "flow"
DEFINITIONS = {
    "frames": "only predicted frames count; given frames are left out everywhere",
    "psnr_db": "mean over frames of the PSNR of 8-bit RGB, each at most 60 dB",
    "ssim": "Gaussian window 11, sigma 1.5, on RGB; mean over frames",
    "perceptual_distance": "mean over frames of the squared difference of unit-length Gabor energies; 0 = alike",
    "kernel_distance": "unbiased MMD^2, cubic polynomial kernel, on clip descriptors of the same net; 0 = alike",
    "interval": "95 %, over whole sessions, paired: jackknife deviation, Student's t widened to the side of the skewness; "
    "none from a single session (kernel_distance: from fewer than three)",
    "repeat_last": "the last given frame, held",
    "flow": "the last frame carried on by the median optical flow of the last three given frame pairs",
    "tokenizer": "the true video encoded and decoded: the ceiling of any model that predicts its latents",
    "way_closed": "(model - repeat_last) / (tokenizer - repeat_last), ratio of mean PSNR",
}


def evaluate(
    made: GeneratedVideos, worlds: Worlds | None, config: EvaluationConfig
) -> tuple[Metrics, list[dict[str, Any]]]:
    """Evaluate one model's videos. `worlds` is None where nothing is known but the pictures.

    Returns the metrics and one row for each (window, set of videos). Raises DataError where the input contradicts
    itself.
    """
    check(made)
    given = made.past_frames
    truth = made.truth[:, given:]
    predicted = truth.shape[1]
    names = [*made.variants, *([CEILING] if CEILING in made.videos else [])]
    videos = {name: made.videos[name][:, given:] for name in names}
    videos[REPEAT] = repeat_last(made.truth[:, :given], predicted)
    if given > 1:  # one picture has no motion to go on
        videos[FLOW] = extrapolate(made.truth[:, :given], predicted)
    near, real = measure(videos, truth)

    parts = subsets(made.moving, made.actions, made.spec, given, config.subsets)
    variants = made.variants
    metrics = Metrics(
        family=made.family,
        split=made.split,
        windows=len(truth),
        sessions=len(set(made.sessions)),
        past_frames=given,
        predicted_frames=predicted,
        height=truth.shape[2],
        width=truth.shape[3],
        fps=made.fps,
        variants=variants,
        headline_variant=variants[0],
        feature_net=FEATURE_NET,
        feature_net_description=DESCRIPTION,
        bootstrap_resamples=config.resamples,
        bootstrap_seed=config.seed,
        subsets={part.name: _subset(part, near, real, made, config) for part in parts},
        horizon={part.name: _horizon(part, near, made, config) for part in parts if part.mask.any()},
        action_sensitivity=_actions(made, videos, near, parts, config),
        objects=_objects(made, {**videos, "truth": truth}, worlds, config),
        camera=_camera(made, {**videos, "truth": truth}, config),
        definitions=DEFINITIONS,
    )
    return metrics, _rows(made, near, parts)


def _drawn(made: GeneratedVideos, mask: np.ndarray, config: EvaluationConfig) -> Bootstrap:
    sessions = [made.sessions[i] for i in np.flatnonzero(mask)]
    return Bootstrap(sessions, resamples=config.resamples, seed=config.seed)


def _subset(
    part: Subset, near: dict[str, Nearness], real: np.ndarray, made: GeneratedVideos, config: EvaluationConfig
) -> SubsetReport:
    mask, count = part.mask, int(part.mask.sum())
    if not count:
        reason = part.absent or "no window of this split is of this kind"
        return SubsetReport(description=part.description, windows=0, sessions=0, absent=reason)
    groups = [made.sessions[i] for i in np.flatnonzero(mask)]
    bootstrap = _drawn(made, mask, config)
    psnr = {name: one.psnr_db[mask].mean(1) for name, one in near.items()}
    ssim = {name: one.ssim[mask].mean(1) for name, one in near.items()}
    videos = {}
    for name, one in near.items():
        kernel = kernel_distance(one.descriptor[mask], real[mask], groups)
        videos[name] = Quality(
            psnr_db=bootstrap.mean(psnr[name]),
            ssim=bootstrap.mean(ssim[name]),
            perceptual_distance=bootstrap.mean(one.perceptual_distance[mask].mean(1)),
            kernel_distance=kernel
            and Estimate(mean=kernel[0], low=kernel[1], high=kernel[2], windows=count, sessions=bootstrap.sessions),
        )
    gains, closed = {}, {}
    for name in made.variants:
        gains[name] = {
            baseline: Gain(
                psnr_gain_db=bootstrap.mean(psnr[name] - psnr[baseline]),
                share_of_windows=bootstrap.mean((psnr[name] > psnr[baseline]).astype(float), share=True),
                ssim_gain=bootstrap.mean(ssim[name] - ssim[baseline]),
            )
            for baseline in (REPEAT, FLOW)
            if baseline in psnr
        }
        if CEILING in psnr:
            share = bootstrap.ratio(psnr[name] - psnr[REPEAT], psnr[CEILING] - psnr[REPEAT])
            if share is not None:
                closed[name] = share
    return SubsetReport(
        description=part.description,
        windows=count,
        sessions=len(set(groups)),
        videos=videos,
        gains=gains,
        way_closed=closed,
    )


def _horizon(part: Subset, near: dict[str, Nearness], made: GeneratedVideos, config: EvaluationConfig) -> Horizon:
    bootstrap = _drawn(made, part.mask, config)

    def curves(metric: str) -> dict[str, Curve]:
        found = {}
        for name, one in near.items():
            mean, low, high = bootstrap.curve(getattr(one, metric)[part.mask])
            found[name] = Curve(mean=mean, low=low, high=high)
        return found

    frames = next(iter(near.values())).psnr_db.shape[1]
    return Horizon(
        seconds=[(frame + 1) / made.fps for frame in range(frames)],
        psnr_db=curves("psnr_db"),
        ssim=curves("ssim"),
        perceptual_distance=curves("perceptual_distance"),
    )


def _actions(
    made: GeneratedVideos,
    videos: dict[str, np.ndarray],
    near: dict[str, Nearness],
    parts: list[Subset],
    config: EvaluationConfig,
) -> dict[str, Any]:
    """Right against shuffled action, for each variant's shuffled twin (`shuffled_action` is the twin of the headline
    one)."""
    if SHUFFLED not in videos or made.spec.width == 0:
        return {}
    right = made.variants[0]
    differ = actions_differ(
        made.actions, made.shuffled_actions, made.spec, made.past_frames, config.subsets.change_tolerance
    )
    psnr = {name: near[name].psnr_db.mean(1) for name in (right, SHUFFLED)}
    seen = {name: videos[name] for name in (right, SHUFFLED)}
    return {
        right: action_sensitivity(
            right, SHUFFLED, seen, psnr, differ, made.sessions, parts, resamples=config.resamples, seed=config.seed
        )
    }


def _objects(
    made: GeneratedVideos, videos: dict[str, np.ndarray], worlds: Worlds | None, config: EvaluationConfig
) -> ObjectsReport:
    if worlds is None:
        return ObjectsReport(absent="the videos are not simulated: where their objects are is not known")
    frames = np.arange(made.past_frames, made.truth.shape[1])
    known: list[Any] = [None] * len(made.samples)
    # By source, so that each truth file is read once.
    for index in sorted(range(len(made.samples)), key=lambda i: str(made.samples[i]["source"])):
        sample = made.samples[index]
        seconds = float(sample["start_seconds"]) + frames / float(sample["fps"])
        known[index] = worlds.objects(str(sample["source"]), seconds)
    if all(objects is None for objects in known):
        return ObjectsReport(absent="no window comes from a simulated world: where their objects are is not known")
    return objects_report(videos, known, made.sessions, config.objects, resamples=config.resamples, seed=config.seed)


def _camera(made: GeneratedVideos, videos: dict[str, np.ndarray], config: EvaluationConfig) -> CameraReport:
    column = rate_column(made.spec, config.subsets.rate_action)
    gap = config.flow_gap_frames
    if videos["truth"].shape[1] <= gap:
        return CameraReport(absent=f"{videos['truth'].shape[1]} predicted frames are too few for a gap of {gap}")
    return camera_report(
        videos,
        made.sessions,
        made.actions[..., column] if column is not None else None,
        rate_name=config.subsets.rate_action,
        rate_unit=config.subsets.rate_unit,
        past_frames=made.past_frames,
        gap=gap,
        bootstrap=_drawn(made, np.ones(len(made.samples), dtype=bool), config),
    )


def _rows(made: GeneratedVideos, near: dict[str, Nearness], parts: list[Subset]) -> list[dict[str, Any]]:
    """One row for each (window, set of videos): whoever doubts a mean can look."""
    rows = []
    for index, sample in enumerate(made.samples):
        belongs = [part.name for part in parts if part.mask[index]]
        for name, one in near.items():
            rows.append(
                {
                    "sample_id": str(sample["sample_id"]),
                    "clip_id": str(sample.get("clip_id", "")),
                    "session_id": str(sample["session_id"]),
                    "source": str(sample["source"]),
                    "start_seconds": float(sample["start_seconds"]),
                    "subsets": belongs,
                    "video": name,
                    "psnr_db": float(one.psnr_db[index].mean()),
                    "ssim": float(one.ssim[index].mean()),
                    "perceptual_distance": float(one.perceptual_distance[index].mean()),
                    "psnr_db_by_frame": one.psnr_db[index].tolist(),
                }
            )
    return rows
