"""A metric is a declared row: what it is called, its unit, how it is computed, where it shows.

    METRIC = FrameMetric(
        name="psnr_db",
        title="PSNR",
        unit="dB",
        better="higher",
        definition="mean over frames of the PSNR of 8-bit RGB, each at most 60 dB",
        of=lambda clips, truth: psnr_per_frame(clips.video, truth.video),
        place=10,
    )

A file of `wfm/evaluation/metrics` that defines such a row is all there is to a metric. From the row follow its figures in
`metrics.json` (means with intervals, paired gains over the baselines, curves by time ahead) and its column in
`windows.parquet`, its columns and charts on the page and in a terminal, what a target may be held against, its definition.
"""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from wfm.errors import ConfigError
from wfm.registry import Registry

if TYPE_CHECKING:
    import numpy as np
    import torch

HEADLINE = "psnr_db"
"""The metric whose gains, shares of windows and way to the ceiling stand for a model."""
PLUG_INS = Registry("wfm.metrics", "metric", {})
"""Metrics of other packages (`METRIC` rows by entry points), which an evaluation names (`EvaluationConfig.metrics`)."""
TAKEN = (
    *("seconds", "share_of_windows"),
    *("sample_id", "clip_id", "session_id", "source", "start_seconds", "subsets", "video"),
)
"""Keys and columns that are there beside the metrics'."""


class Clips:
    """A few windows of one set of videos, predicted frames only."""

    def __init__(self, video: "np.ndarray") -> None:
        self.video = video
        "uint8 [N, T, H, W, 3]."

    @functools.cached_property
    def maps(self) -> "list[torch.Tensor]":
        """What the fixed Gabor pyramid sees of the frames, N * T in a row: see `features.GaborPyramid`."""
        from wfm.evaluation.features import frames_to_tensor, gabor_pyramid

        return gabor_pyramid()(frames_to_tensor(self.video))


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What every metric says of itself; it is a `FrameMetric`, a `SetMetric` or a `WorldMetric`."""

    name: str
    "Its key in `metrics.json`, its column in `windows.parquet`: snake_case, with the unit at the end where it has one."
    title: str
    "What a reader calls it, in the middle of a sentence."
    unit: str = ""
    "Such as dB; empty for a plain number."
    better: Literal["higher", "lower"]
    definition: str
    "In a sentence: what is measured, and what a value means."
    digits: int = 3
    "Behind the point, wherever it is shown."
    place: int
    "Columns go by it, then by name."
    terminal: bool = False
    "Whether the short table in a terminal has a column of it."
    charts: tuple[str, ...] = ()
    "Subsets of windows whose curve by time ahead the page draws (a `FrameMetric` only)."
    chart_note: str = ""
    axis: str = ""
    "Label of the curves' axis, where that is not the unit."
    limit: str = ""
    "What it does not show, for the page's limits: sentences."

    def __post_init__(self) -> None:
        """Raises ConfigError for a name that would not do as a key and a column."""
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name) or self.name in TAKEN:
            raise ConfigError(f"a metric {self.name!r}: name it in snake_case, and not {', '.join(TAKEN)}")

    @property
    def heading(self) -> str:
        """Head of its column."""
        return f"{self.title}, {self.unit}" if self.unit else self.title


@dataclass(frozen=True, kw_only=True)
class FrameMetric(Metric):
    """A figure of each predicted frame against the true one; of a clip, the mean over its frames."""

    of: "Callable[[Clips, Clips], np.ndarray]"
    "(clips, the truth) -> [N, T], all finite. It is given a window or a few at a time."
    gain_name: str = ""
    "Key of its paired gain; `<name>_gain` if empty."

    @property
    def gain_key(self) -> str:
        """Key of its paired gain over a baseline."""
        return self.gain_name or f"{self.name}_gain"

    def gain(self, ours: "np.ndarray", theirs: "np.ndarray") -> "np.ndarray":
        """By how much `ours` is the better one, in the metric's unit: above zero means better, whichever way it counts."""
        return ours - theirs if self.better == "higher" else theirs - ours


@dataclass(frozen=True, kw_only=True)
class SetMetric(Metric):
    """A figure of a set of clips against the set of true ones."""

    describe: "Callable[[Clips], np.ndarray]"
    "Clips -> one descriptor each [N, D], which must not depend on the clips beside it."
    compare: "Callable[[np.ndarray, np.ndarray, list[str]], tuple[float, float | None, float | None] | None]"
    "(descriptors [N, D], the truth's, sessions [N]) -> (figure, low, high), low and high None without an interval; or None."


@dataclass(frozen=True, kw_only=True)
class WorldMetric(Metric):
    """A figure that two sets of pictures do not give: of objects whose places a simulated world knows, or of the camera's
    motion. Title and unit may name fields of the section's report, such as ``{rate_unit}``."""

    section: Literal["objects", "camera"]
    "The report it stands in: `schema.ObjectsReport` or `schema.CameraReport`."
    of: "Callable[[Any], tuple[np.ndarray, np.ndarray] | None]"
    """What was seen of a set of videos (`objects.Marks`, `camera.Moved`) -> (over, under) [K], one entry a track or a window:
    the figure is sum(over) / sum(under). None where it is not known."""
    share: bool = False
    "Whether it lies between 0 and 1, and is shown in percent."
