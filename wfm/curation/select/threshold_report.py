"""What each threshold would drop, before it is chosen: an offline page of histograms with example frames at the thresholds.

For every number of the tables ``scores`` and ``measures``, and for the aesthetic score: its distribution; the clips on either
side of the threshold in force, or at its 5th and 95th percentile where there is none; and, for every filter that is on, how
many clips it drops by itself, how many it drops that no other would, and how many all drop together. Nothing is decided here,
nothing is stored.
"""

import base64
import dataclasses
import io
import operator
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wfm.curation.measure.measurements import Measures, measurements
from wfm.curation.rows import AestheticRow, Score
from wfm.curation.select.select import Scored, SelectConfig, filters, join_scores
from wfm.errors import DataError, MissingPackage, WfmError
from wfm.records import Clip

if TYPE_CHECKING:
    from wfm.artifacts import Artifact, Store

BARS, FRAME_HEIGHT, EXAMPLES = 40, 80, 3
WIDTH, HEIGHT = 800, 90
TEMPLATE = Path(__file__).with_suffix(".html.j2")
OPTIONS = {
    **{row.name: limit.option for row in measurements() for limit in row.limits if limit.of is None},
    "aesthetic": "minimum_aesthetic",
}
"""Column -> the option of select_clips that is a threshold on it."""
Fetch = Callable[[Clip], Path]


@dataclasses.dataclass(frozen=True)
class Drop:
    """What one filter does."""

    name: str
    alone: int
    "Clips it refuses, whatever the others say."
    only: int
    "Clips that it refuses and no other does."


def drops(scored: Sequence[Scored], config: SelectConfig) -> tuple[list[Drop], int]:
    """(each filter's share, clips that all filters drop together). Duplicates are left to select_clips."""
    rules = filters(config)
    refused = np.array([[bool(rule.reason(item)) for rule in rules] for item in scored]).reshape(
        len(scored), len(rules)
    )
    single = refused & (refused.sum(axis=1, keepdims=True) == 1)
    found = [Drop(r.name, int(refused[:, k].sum()), int(single[:, k].sum())) for k, r in enumerate(rules)]
    return found, int(refused.any(axis=1).sum())


def limits(config: SelectConfig) -> dict[str, float]:
    """Column -> the threshold in force."""
    held = {column: operator.attrgetter(option)(config) for column, option in OPTIONS.items()}
    return {column: value for column, value in held.items() if value is not None}


def columns(scored: Sequence[Scored]) -> dict[str, np.ndarray]:
    """Every numeric column -> float64 [N], NaN for what was not measured; columns nobody measured are left out."""
    found = {}
    for record, pick in ((Score, lambda s: s.score), (Measures, lambda s: s.measures)):
        for field in dataclasses.fields(record):
            values = [getattr(pick(item), field.name, None) for item in scored]
            numbers = [v for v in values if isinstance(v, (int, float))]
            if numbers:
                found[field.name] = np.array([np.nan if v is None else float(v) for v in values])
    pleasing = [np.nan if item.aesthetic is None else item.aesthetic for item in scored]
    return found if np.isnan(pleasing).all() else {**found, "aesthetic": np.array(pleasing)}


def read(store: "Store", key: str) -> "tuple[list[Scored], Fetch]":
    """Clips with scores and measures, and where their files are, of a ``scores`` or ``dataset`` artifact.

    Raises `DataError` for another kind.
    """
    from wfm.parts.tables import read_optional, read_parts, read_rows

    given = store.artifact(key)
    if given.kind not in ("scores", "dataset"):
        raise DataError(f"{key!r} is of kind {given.kind!r}: give a dataset or scores")
    behind = {entry.kind: entry.key for entry in store.lineage(given.key)}  # also of one from which clips were excluded
    if given.kind == "dataset" and "scores" not in behind:
        raise DataError(f"{given!r} was made without scores (imported?): curate its clips, or name scores")
    scores = given if given.kind == "scores" else store.artifact(behind["scores"])
    clips: Artifact = store.artifact(scores.manifest.inputs["clips"])
    by_part = read_parts(clips, "clips", Clip)
    part_of = {clip.clip_id: name for name, rows in by_part.items() for clip in rows}
    embeddings = behind.get("embeddings")
    pleasing = read_optional(store.artifact(embeddings) if embeddings else None, "aesthetic", AestheticRow)
    ordered = sorted((clip for rows in by_part.values() for clip in rows), key=lambda clip: clip.clip_id)
    measured = read_optional(scores, "measures", Measures)
    rows = join_scores(ordered, read_rows(scores, "scores", Score), measured or (), pleasing or ())
    return rows, lambda clip: clips.part(part_of[clip.clip_id]).fetch(clip.path)


def page(scored: Sequence[Scored], config: SelectConfig, fetch: Fetch, title: str) -> str:
    """The whole page as one file of HTML: no script, no font, no picture from outside. Every value is escaped by the template.

    Raises MissingPackage without jinja2.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        raise MissingPackage("jinja2", extra="curate", purpose="writing a page") from error
    found, together = drops(scored, config)
    held, pictures = limits(config), _Pictures(fetch)
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(TEMPLATE.name).render(
        title=title,
        count=len(scored),
        total=max(len(scored), 1),
        drops=found,
        together=together,
        width=WIDTH,
        height=HEIGHT,
        sections=[_section(name, values, held.get(name), scored, pictures) for name, values in columns(scored).items()],
    )


def _section(
    name: str, values: np.ndarray, limit: float | None, scored: Sequence[Scored], pictures: "_Pictures"
) -> dict[str, Any]:
    """What the template shows of one column."""
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        return {"name": name, "absent": True}
    sorted_values = values[known]
    marks = [limit] if limit is not None else [float(v) for v in np.quantile(sorted_values, [0.05, 0.95])]
    strips = []
    for mark in dict.fromkeys(marks):
        near = known[np.argsort(np.abs(sorted_values - mark), kind="stable")[:EXAMPLES]]
        strips.append(
            {
                "at": mark,
                "below": int((sorted_values < mark).sum()),
                "above": int((sorted_values > mark).sum()),
                "examples": [
                    {"value": values[i], "clip": scored[i].clip.clip_id[:8], **pictures.of(scored[i].clip)}
                    for i in sorted(near, key=lambda i: values[i])
                ],
            }
        )
    option = OPTIONS.get(name, "")
    return {
        "name": name,
        "absent": False,
        "limit": limit,
        "option": option,
        "side": "above" if "maximum" in option else "below",
        "missing": len(values) - len(known),
        "strips": strips,
        **_histogram(sorted_values, limit),
    }


def _histogram(values: np.ndarray, limit: float | None) -> dict[str, Any]:
    """Bars [pixels] and the line of the threshold in force; no bars where all values are one, to the last bits of a float."""
    low, high = float(values.min()), float(values.max())
    if limit is not None:
        low, high = min(low, limit), max(high, limit)
    if high - low <= 2 * BARS * np.spacing(max(abs(low), abs(high))):
        return {"bars": [], "line": None, "low": low, "high": high}
    counts, _ = np.histogram(values, BARS, (low, high))
    step = WIDTH / BARS
    return {
        "bars": [
            {"x": k * step, "width": step - 1, "height": HEIGHT * c / counts.max(), "clips": int(c)}
            for k, c in enumerate(counts)
        ],
        "line": None if limit is None else (limit - low) / (high - low) * WIDTH,
        "low": low,
        "high": high,
    }


class _Pictures:
    """Middle frames, each clip opened once."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._made: dict[str, dict[str, str]] = {}

    def of(self, clip: Clip) -> dict[str, str]:
        """``jpeg`` (base64), or "" and what is the ``problem``."""
        if clip.clip_id not in self._made:
            try:
                jpeg = _middle_frame(self._fetch(clip), (clip.end_seconds - clip.start_seconds) / 2)
                self._made[clip.clip_id] = {"jpeg": jpeg, "problem": ""}
            except WfmError as error:
                self._made[clip.clip_id] = {"jpeg": "", "problem": str(error)[:80]}
        return self._made[clip.clip_id]


def _middle_frame(path: Path, seconds: float) -> str:
    """The first frame at or after ``seconds``, as base64 of a JPEG."""
    from PIL import Image

    from wfm.data.decode import VideoError, iter_frames
    from wfm.data.images import format_of, read_image

    still = read_image(path) if format_of(path) else None
    frame = still if still is not None else next((shown for shown, _ in iter_frames(path, start_seconds=seconds)), None)
    if frame is None:
        raise VideoError(path, "no_frames", f"the clip holds no frame after {seconds:.2f} s")
    image = Image.fromarray(frame)
    image = image.resize((max(1, round(image.width * FRAME_HEIGHT / image.height)), FRAME_HEIGHT))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=80)
    return base64.b64encode(data.getvalue()).decode()
