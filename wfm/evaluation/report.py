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
from wfm.evaluation.measure import Measured, measure
from wfm.evaluation.metric import HEADLINE, FrameMetric, Metric, SetMetric
from wfm.evaluation.metrics import all_metrics
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
FRAMES = "only predicted frames count; given frames are left out everywhere"
TERMS = {
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
    rows = all_metrics(config.metrics)
    near, real = measure(videos, truth, rows)

    parts = subsets(made.moving, made.actions, made.spec, given, config.subsets)
    variants = made.variants
    metrics = Metrics(
        family=made.family,
        title=made.title,
        labels=dict(made.labels),
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
        subsets={part.name: _subset(part, rows, near, real, made, config) for part in parts},
        horizon={part.name: _horizon(part, rows, near, made, config) for part in parts if part.mask.any()},
        action_sensitivity=_actions(made, videos, near, parts, config),
        objects=_objects(made, {**videos, "truth": truth}, worlds, config),
        camera=_camera(made, {**videos, "truth": truth}, config),
        definitions={"frames": FRAMES, **{row.name: row.definition for row in rows}, **TERMS},
    )
    return metrics, _windows(made, rows, near, parts)


def _drawn(made: GeneratedVideos, mask: np.ndarray, config: EvaluationConfig) -> Bootstrap:
    sessions = [made.sessions[i] for i in np.flatnonzero(mask)]
    return Bootstrap(sessions, resamples=config.resamples, seed=config.seed)


def _subset(
    part: Subset,
    rows: tuple[Metric, ...],
    near: dict[str, Measured],
    real: dict[str, np.ndarray],
    made: GeneratedVideos,
    config: EvaluationConfig,
) -> SubsetReport:
    mask = part.mask
    if not mask.any():
        reason = part.absent or "no window of this split is of this kind"
        return SubsetReport(description=part.description, windows=0, sessions=0, absent=reason)
    groups = [made.sessions[i] for i in np.flatnonzero(mask)]
    bootstrap = _drawn(made, mask, config)
    by_clip = {
        video: {name: values[mask].mean(1) for name, values in one.frames.items()} for video, one in near.items()
    }
    videos = {}
    for video, one in near.items():
        figures: dict[str, Estimate | None] = {}
        for row in rows:
            if isinstance(row, FrameMetric):
                figures[row.name] = bootstrap.mean(by_clip[video][row.name])
            elif isinstance(row, SetMetric):
                found = row.compare(one.descriptors[row.name][mask], real[row.name][mask], groups)
                figures[row.name] = found and Estimate(
                    mean=found[0], low=found[1], high=found[2], windows=len(groups), sessions=bootstrap.sessions
                )
        videos[video] = Quality.model_validate(figures)
    gains, closed = {}, {}
    psnr = {video: figures[HEADLINE] for video, figures in by_clip.items()}
    for name in made.variants:
        gains[name] = {
            baseline: _gain(rows, by_clip[name], by_clip[baseline], bootstrap)
            for baseline in (REPEAT, FLOW)
            if baseline in by_clip
        }
        if CEILING in psnr:
            share = bootstrap.ratio(psnr[name] - psnr[REPEAT], psnr[CEILING] - psnr[REPEAT])
            if share is not None:
                closed[name] = share
    return SubsetReport(
        description=part.description,
        windows=len(groups),
        sessions=len(set(groups)),
        videos=videos,
        gains=gains,
        way_closed=closed,
    )


def _gain(
    rows: tuple[Metric, ...], ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], bootstrap: Bootstrap
) -> Gain:
    """Paired, from the figures of the same clips by metric, [N] each."""
    better = (ours[HEADLINE] > theirs[HEADLINE]).astype(float)
    found = {"share_of_windows": bootstrap.mean(better, share=True)}
    for row in rows:
        if isinstance(row, FrameMetric):
            found[row.gain_key] = bootstrap.mean(row.gain(ours[row.name], theirs[row.name]))
    return Gain.model_validate(found)


def _horizon(
    part: Subset, rows: tuple[Metric, ...], near: dict[str, Measured], made: GeneratedVideos, config: EvaluationConfig
) -> Horizon:
    bootstrap = _drawn(made, part.mask, config)

    def curve(values: np.ndarray) -> Curve:
        mean, low, high = bootstrap.curve(values[part.mask])
        return Curve(mean=mean, low=low, high=high)

    frames = made.truth.shape[1] - made.past_frames
    curves = {
        row.name: {video: curve(one.frames[row.name]) for video, one in near.items()}
        for row in rows
        if isinstance(row, FrameMetric)
    }
    return Horizon.model_validate({"seconds": [(frame + 1) / made.fps for frame in range(frames)], **curves})


def _actions(
    made: GeneratedVideos,
    videos: dict[str, np.ndarray],
    near: dict[str, Measured],
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
    psnr = {name: near[name].frames[HEADLINE].mean(1) for name in (right, SHUFFLED)}
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


def _windows(
    made: GeneratedVideos, rows: tuple[Metric, ...], near: dict[str, Measured], parts: list[Subset]
) -> list[dict[str, Any]]:
    """One row for each (window, set of videos): whoever doubts a mean can look."""
    found = []
    for index, sample in enumerate(made.samples):
        belongs = [part.name for part in parts if part.mask[index]]
        for name, one in near.items():
            means = {row.name: float(one.frames[row.name][index].mean()) for row in rows if row.name in one.frames}
            found.append(
                {
                    "sample_id": str(sample["sample_id"]),
                    "clip_id": str(sample.get("clip_id", "")),
                    "session_id": str(sample["session_id"]),
                    "source": str(sample["source"]),
                    "start_seconds": float(sample["start_seconds"]),
                    "subsets": belongs,
                    "video": name,
                    **means,
                    f"{HEADLINE}_by_frame": one.frames[HEADLINE][index].tolist(),
                }
            )
    return found
