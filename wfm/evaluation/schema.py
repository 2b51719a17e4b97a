"""The shape of `metrics.json`, typed. Public: a newer schema is refused, an unknown field is an error.

Read `Metrics` at the end first, then what it holds. Every figure is over the predicted frames alone. Figures that
could not be computed are None, or stand in `absent` with the reason; nothing is filled in.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from wfm.errors import DataError

SCHEMA_VERSION = 3
"""2: an estimate may have no interval. 3: a metric is named by its row, so there may be others than the first four. What
versions 1 and 2 wrote is read too."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Estimate(_Part):
    """A mean with its 95 % interval (over sessions, see `definitions`) and what it rests on."""

    mean: float
    low: float | None
    high: float | None
    """None (both ends): there is no interval, because a single session says nothing of how sessions differ."""
    windows: int
    """Windows (for objects: tracks) that entered."""
    sessions: int
    """Recordings that entered."""


class _ByMetric(_Part):
    """Beside its own fields one for each declared metric, named by its row (`wfm.evaluation.metric`): whoever reads a report
    need not have the metric that wrote it."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, Estimate | None] = Field(init=False)

    def estimate(self, name: str) -> Estimate | None:
        """The metric's (or gain's) figure; None where it could not be computed or was not asked for."""
        return dict(self).get(name)


class Quality(_ByMetric):
    """One set of videos against the truth, by metric: `psnr_db`, `ssim`, `perceptual_distance`, `kernel_distance`, ..."""

    psnr_db: Estimate | None


class Gain(_ByMetric):
    """A variant against a baseline on the same windows: by how much it is better by each metric (`ssim_gain`, ...)."""

    psnr_gain_db: Estimate | None
    share_of_windows: Estimate | None
    """Share of windows with a gain in PSNR above zero, 0..1."""


class SubsetReport(_Part):
    description: str
    windows: int
    sessions: int
    absent: str = ""
    """Why there is nothing here ("" when there is)."""
    videos: dict[str, Quality] = {}
    gains: dict[str, dict[str, Gain]] = {}
    """variant -> baseline (repeat_last, flow) -> gain."""
    way_closed: dict[str, Estimate] = {}
    """variant -> share of the way from repeat-last to the tokenizer's ceiling that it closes, in PSNR: ratio of
    means, 1 = the ceiling."""


class Curve(_Part):
    """One metric by predicted frame, with its interval."""

    mean: list[float]
    low: list[float]
    high: list[float]
    """Empty where there is no interval."""


class Horizon(_Part):
    """Curves by metric and set of videos; entry k is k + 1 frames after the last given one."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, dict[str, Curve]] = Field(init=False)

    seconds: list[float]

    def curves(self, metric: str) -> dict[str, Curve]:
        """Of each set of videos; empty where the report does not have the metric."""
        return (self.model_extra or {}).get(metric, {})


class ActionSensitivity(_Part):
    """The same past and seeds under the right action and under another window's."""

    right: str
    shuffled: str
    windows: int
    windows_with_another_action: int
    """Windows whose shuffled action differs from the right one: only these enter."""
    outputs_differ: Estimate | None
    """Share of windows whose two videos are not the same, 0..1."""
    mean_difference: Estimate | None
    """Mean absolute difference of the two videos, in 8-bit levels."""
    psnr_gain_db: Estimate | None
    share_of_windows: Estimate | None
    """Share of windows where the right action is nearer to the truth."""
    by_subset: dict[str, Gain] = {}
    absent: str = ""


class WorldScores(_ByMetric):
    """One set of videos by the metrics of a section: `permanence_rate`, `position_error_px`, ... of objects; `flow_error_px`,
    `rate_error` of the camera."""


class ObjectsReport(_Part):
    tracks: int = 0
    placed_within_px: float = 0.0
    skipped: dict[str, int] = {}
    videos: dict[str, WorldScores] = {}
    """Including "truth": the detector's own error, the floor of the others."""
    by_horizon: dict[str, list[float | None]] = {}
    """placed rate by predicted frame."""
    absent: str = ""


class CameraReport(_Part):
    rate_name: str = ""
    rate_unit: str = ""
    rate_calibration_r2: float | None = None
    """How well the reader of the rate does on true frames of sessions it was not fitted on, 1 = perfectly."""
    videos: dict[str, WorldScores] = {}
    absent: str = ""
    rate_absent: str = ""


class Metrics(_Part):
    """What `evaluate_model` says of one model on one split."""

    schema_version: int = SCHEMA_VERSION
    family: str
    title: str = ""
    """What people call the family."""
    labels: dict[str, str] = {}
    """What they call its variants, by name."""
    split: str
    """"test" is looked at once; choices are made on "val"."""
    windows: int
    sessions: int
    past_frames: int
    predicted_frames: int
    height: int
    width: int
    fps: float
    variants: list[str]
    """The model's own videos; the others are baselines and the ceiling."""
    headline_variant: str
    feature_net: str
    feature_net_description: str
    bootstrap_resamples: int
    bootstrap_seed: int
    subsets: dict[str, SubsetReport]
    horizon: dict[str, Horizon]
    action_sensitivity: dict[str, ActionSensitivity]
    objects: ObjectsReport
    camera: CameraReport
    definitions: dict[str, str]


def read_metrics(path: Path) -> Metrics:
    """Read `metrics.json`. Raises DataError for a newer schema or a file of another shape."""
    import json

    try:
        data = json.loads(Path(path).read_bytes())
        version = int(data.get("schema_version", 0))
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{path}: not a metrics file ({error})") from error
    if version > SCHEMA_VERSION:
        raise DataError(
            f"{path}: schema_version {version} is newer than {SCHEMA_VERSION}, the newest this wfm reads: "
            "use a newer wfm, or evaluate again"
        )
    try:
        return Metrics.model_validate(data)
    except ValueError as error:
        raise DataError(f"{path}: not metrics of schema_version {SCHEMA_VERSION}: {error}") from error
