"""What a card says, as typed values. Public: these are the answers of `wfm models show --json` and the files beside a pull.

Sizes are bytes, times UTC in ISO 8601, gains dB. A new field may be added, none changes its meaning.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from wfm.evaluation.schema import Estimate, Metrics


class _Sheet(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Step(_Sheet):
    """One artifact of a lineage; `problem` says why nothing more is known of it."""

    key: str
    kind: str = ""
    stage: str = ""
    created_at: str = ""
    inputs: dict[str, str] = {}
    """Role -> key."""
    problem: str = ""


class Window(_Sheet):
    """What goes in and what comes out."""

    height: int
    width: int
    """Of a frame [px]."""
    fps: float
    past_frames: int
    predicted_frames: int


class Action(_Sheet):
    """One component of what a model is told to do."""

    name: str
    unit: str


class ResultRow(_Sheet):
    """One method on one subset of windows; a figure that is not known is null."""

    method: str
    baseline: bool
    """A baseline, or the tokenizer's ceiling: not the model."""
    psnr_db: Estimate | None
    gain_db: Estimate | None
    """Over holding the last frame."""
    gain_over_flow_db: Estimate | None
    share_of_windows: Estimate | None
    """Better than the last frame held on this share of windows, 0..1."""


class SubsetResult(_Sheet):
    """The table of one subset."""

    subset: str
    heading: str
    windows: int
    sessions: int
    absent: str = ""
    """Why there is no table."""
    rows: list[ResultRow] = []
    losses: list[str] = []
    """Each baseline that is nearer to the truth, and by how much."""


class Result(_Sheet):
    """The newest evaluation of a model that is known."""

    evaluation: str = ""
    """Its key; "" where nothing says it."""
    evaluated_at: str = ""
    published_with: str = ""
    """Key of the evaluation that the bundle holds, where this is a later one."""
    split: str
    windows: int
    sessions: int
    headline: str
    loses: str
    """What it loses to, in a sentence; "" where no baseline is nearer to the truth on average."""
    subsets: list[SubsetResult]
    limits: list[str]


class Right(_Sheet):
    """How many videos and clips stand under one licence and consent."""

    licence: str
    consent: str
    videos: int = 0
    clips: int = 0


class Split(_Sheet):
    clips: int = 0
    sessions: int = 0
    seconds: float = 0.0
    shards: int = 0
    bytes: int = 0


class DataUsed(_Sheet):
    """A data set that a model was made from."""

    key: str
    names: list[str] = []
    clips: int = 0
    videos: int = 0
    simulated_videos: int = 0
    splits: dict[str, Split] = {}
    rights: list[Right] = []
    problem: str = ""
    """Why nothing more is known."""


class ModelSheet(_Sheet):
    """A published world model."""

    schema_version: Literal[1] = 1
    name: str
    family: str
    title: str
    key: str = ""
    """Of the bundle; "" for a folder whose origin is not known."""
    names: list[str] = []
    """What the store calls it now."""
    created_at: str = ""
    size_bytes: int = 0
    window: Window
    actions: list[Action] = []
    action_frame: str = ""
    action_rate_hz: float = 0.0
    reads_text: bool = False
    parameters: dict[str, int] = {}
    """Of `model` and `tokenizer`; one that cannot be counted is left out."""
    sampling: dict[str, object] = {}
    result: Result | None = None
    result_absent: str = ""
    """Why there is no result."""
    data: list[DataUsed] = []
    lineage: list[Step] = []
    card_sha256: str
    """Of the `card.json` that all of this was read from."""
    metrics: Metrics | None = Field(default=None, exclude=True)
    """Every figure behind `result`, for drawings; it stands in `card.json`."""


class DatasetSheet(_Sheet):
    """A curated data set."""

    schema_version: Literal[1] = 1
    key: str
    names: list[str] = []
    created_at: str = ""
    size_bytes: int = 0
    videos: int = 0
    videos_usable: int = 0
    simulated_videos: int = 0
    videos_not_used: dict[str, int] = {}
    """Reason -> files."""
    videos_without_clips: dict[str, int] = {}
    spans_not_cut: dict[str, int] = {}
    clips_cut: int = 0
    clips: int = 0
    images: int = 0
    """Of the clips kept, those that are still images."""
    clips_with_actions: int = 0
    clips_refused: dict[str, int] = {}
    splits: dict[str, Split] = {}
    rights: list[Right] = []
    caption_sources: dict[str, int] = {}
    picture_sizes: dict[str, int] = {}
    scores: dict[str, dict[str, float]] = {}
    """Of the kept clips: score -> min, p05, p50, p95, max."""
    estimated: bool = False
    """Whether quantiles and distinct counts are of a sample."""
    lineage: list[Step] = []
    card_sha256: str
