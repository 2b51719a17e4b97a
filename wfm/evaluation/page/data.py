"""What the page shows, as plain typed values. Anything that may be missing is an empty list, and the page says so."""

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict

from wfm.evaluation.schema import Metrics


class _Shown(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VideoPanels(_Shown):
    """One mp4 with panels side by side, and what stands in each."""

    title: str
    notes: list[str] = []
    """Short facts under the title: rank, gains, subsets."""
    trace: list[str] = []
    """From this video back to its source, one step an entry."""
    mp4_base64: str
    last_jpeg_base64: str
    """Its last frame, the furthest prediction: shown where nothing plays."""
    labels: list[str]
    """One a panel, row by row."""
    columns: int
    width: int
    height: int
    """Of the whole mp4, in px."""
    frames: int
    past_frames: int
    fps: float


class Series(_Shown):
    """One line of a chart; `role` picks its colour (truth, model_0, model_0_1, flow, repeat_last, ceiling_0,
    ...)."""

    name: str
    role: str
    x: list[float]
    y: list[float]
    low: list[float] = []
    high: list[float] = []
    dashed: bool = False


class Chart(_Shown):
    title: str
    x_label: str
    y_label: str
    series: list[Series]
    note: str = ""
    log_y: bool = False


class Segment(_Shown):
    """A share of one step of the funnel."""

    name: str
    count: int
    kind: Literal["kept", "lost", "part"]
    """kept: goes on; lost: left out, `name` says why; part: one side of a split."""


class FunnelStep(_Shown):
    title: str
    """What was counted, such as "clips cut"."""
    count: int
    segments: list[Segment]


class Rejected(_Shown):
    """A clip that was left out, three frames of it, and why."""

    reason: str
    detail: str
    source: str
    span: str
    jpeg_base64: str


class StageCost(_Shown):
    node: str
    stage: str
    key: str
    seconds: float
    cpu_seconds: float
    gpu_seconds: float
    failed_tries: int = 0
    """Tries that made nothing; what they used is in `cpu_seconds` and `gpu_seconds` too."""
    failed_cpu_seconds: float = 0.0
    failed_gpu_seconds: float = 0.0
    peak_bytes: float
    counts: dict[str, int] = {}
    skipped: dict[str, int] = {}


class LineageNode(_Shown):
    key: str
    name: str
    kind: str
    parents: list[str]
    """Keys of its inputs."""


class ConfigBlock(_Shown):
    name: str
    key: str
    json_text: str


class Verdict(_Shown):
    """One target and what was measured; `met` None: could not be measured, and `measured` says why."""

    text: str
    basis: str = ""
    """Which end of the interval, and on which windows."""
    measured: str
    met: bool | None


class PageData(_Shown):
    title: str
    headline: str
    sublines: list[str] = []
    facts: list[str] = []
    """Short facts under the headline: split, windows, sessions, date, run."""
    verdicts: list[Verdict] = []
    metrics: list[Metrics] = []
    predictions: list[VideoPanels] = []
    prediction_note: str = ""
    actions: list[VideoPanels] = []
    horizon: list[Chart] = []
    training: list[Chart] = []
    funnel: list[FunnelStep] = []
    rejected: list[Rejected] = []
    stages: list[StageCost] = []
    lineage: list[LineageNode] = []
    sources: list[str] = []
    """A few of the source files the lineage ends in."""
    source_count: int = 0
    configs: list[ConfigBlock] = []
    limits: list[str] = []
    """What this result does not show, in sentences."""


def short_source(source: str) -> str:
    """A source whose 64-digit keys are cut to ten: `wfm://0123456789…/videos/x.mp4`."""
    return re.sub(r"\b([0-9a-f]{10})[0-9a-f]{54}\b", r"\1…", source)
