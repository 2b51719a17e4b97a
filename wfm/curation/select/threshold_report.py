"""What each threshold would drop, before it is chosen: an offline page of histograms with example frames at the thresholds.

For every number of the tables ``scores`` and ``measures``, and for the aesthetic score: its distribution; the clips on either
side of the threshold in force, or at its 5th and 95th percentile where there is none; and, for every filter that is on, how
many clips it drops by itself, how many it drops that no other would, and how many all drop together. Nothing is decided here,
nothing is stored.
"""

import base64
import dataclasses
import html
import io
import operator
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wfm.curation.measure.measurements import Measures, measurements
from wfm.curation.rows import AestheticRow, Score
from wfm.curation.select.select import Scored, SelectConfig, filters, join_scores
from wfm.errors import DataError, WfmError
from wfm.records import Clip

if TYPE_CHECKING:
    from wfm.artifacts import Artifact, Store

BARS, FRAME_HEIGHT, EXAMPLES = 40, 80, 3
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
    """The whole page as one file of HTML: no script, no font, no picture from outside."""
    found, together = drops(scored, config)
    total = max(len(scored), 1)
    rows = "".join(f"<tr><td>{d.name}<td>{d.alone}<td>{d.alone / total:.1%}<td>{d.only}" for d in found)
    shown = columns(scored)
    held, pictures = limits(config), _Pictures(fetch)
    sections = "".join(_section(name, values, held.get(name), scored, pictures) for name, values in shown.items())
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title><style>{_STYLE}</style>"
        f"<h1>What thresholds would drop</h1><p>{html.escape(title)}: {len(scored)} clips; the filters together drop "
        f"<b>{together}</b> ({together / total:.1%}), before duplicates.<table><tr><th>filter<th>drops<th>share"
        f"<th>only this one{rows}</table><p>Try others with <code>--set select_clips.maximum_static_share=0.8</code>; "
        f"nothing is dropped until select_clips runs with them.{sections}"
    )


_STYLE = (
    "body{font:15px system-ui,sans-serif;margin:2em auto;max-width:1000px;padding:0 1em;color:#222;background:#fff}"
    "h2{font-size:1.05em;margin:2em 0 .3em}td,th{text-align:left;padding:.15em 1.2em .15em 0}td+td{text-align:right}"
    "svg{display:block}.s{display:flex;gap:14px;flex-wrap:wrap}figure{margin:.3em 0}figcaption{font-size:12px;color:#555}"
    "img{height:80px;border:1px solid #ccc}.t{color:#b00020}"
)


def _section(
    name: str, values: np.ndarray, limit: float | None, scored: Sequence[Scored], pictures: "_Pictures"
) -> str:
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        return f"<h2>{name}</h2><p>no clip has it"
    sorted_values = values[known]
    marks = [limit] if limit is not None else [float(v) for v in np.quantile(sorted_values, [0.05, 0.95])]
    words = f"threshold {limit:g}" if limit is not None else "no threshold; examples at the 5th and 95th percentile"
    if name in OPTIONS:
        side = "above" if "maximum" in OPTIONS[name] else "below"
        words += f"; <code>select_clips.{OPTIONS[name]}</code> drops what is {side} it"
    strips = []
    for mark in dict.fromkeys(marks):
        below, above = int((sorted_values < mark).sum()), int((sorted_values > mark).sum())
        near = known[np.argsort(np.abs(sorted_values - mark), kind="stable")[:EXAMPLES]]
        figures = "".join(_figure(scored[i].clip, values[i], pictures) for i in sorted(near, key=lambda i: values[i]))
        strips.append(f"<p>at {mark:.4g}: {below} clips below, {above} above<div class=s>{figures}</div>")
    missing = len(values) - len(known)
    note = f", {missing} not measured" if missing else ""
    shown = _histogram(sorted_values, limit)
    return f"<h2>{name}</h2><p>{words}{note}{shown}{''.join(strips)}"


def _histogram(values: np.ndarray, limit: float | None) -> str:
    """SVG bars; the threshold in force is a red line."""
    low, high = float(values.min()), float(values.max())
    if limit is not None:
        low, high = min(low, limit), max(high, limit)
    if high == low:
        return f"<p>all clips: {low:.4g}"
    counts, _ = np.histogram(values, BARS, (low, high))
    width, height = 800, 90
    step = width / BARS
    bars = "".join(
        f'<rect x="{k * step:.1f}" y="{height - height * c / counts.max():.1f}" width="{step - 1:.1f}" '
        f'height="{height * c / counts.max():.1f}" fill="#4878a8"><title>{c} clips</title></rect>'
        for k, c in enumerate(counts)
    )
    line = ""
    if limit is not None:
        x = (limit - low) / (high - low) * width
        line = f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height}" stroke="#b00020" stroke-width="2"/>'
    labels = (
        f'<text x="0" y="{height + 14}" font-size="12">{low:.4g}</text>'
        f'<text x="{width}" y="{height + 14}" font-size="12" text-anchor="end">{high:.4g}</text>'
    )
    return f'<svg viewBox="0 0 {width} {height + 18}" width="{width}" height="{height + 18}">{bars}{line}{labels}</svg>'


def _figure(clip: Clip, value: float, pictures: "_Pictures") -> str:
    words = f"{value:.4g} <code>{clip.clip_id[:8]}</code>"
    return f"<figure>{pictures.of(clip)}<figcaption>{words}</figcaption></figure>"


class _Pictures:
    """Middle frames as HTML, each clip opened once."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._made: dict[str, str] = {}

    def of(self, clip: Clip) -> str:
        if clip.clip_id not in self._made:
            try:
                data = _middle_frame(self._fetch(clip), (clip.end_seconds - clip.start_seconds) / 2)
                self._made[clip.clip_id] = f'<img alt="middle frame" src="data:image/jpeg;base64,{data}">'
            except WfmError as error:
                self._made[clip.clip_id] = f"<em>{html.escape(str(error))[:80]}</em>"
        return self._made[clip.clip_id]


def _middle_frame(path: Path, seconds: float) -> str:
    """The first frame at or after ``seconds``, as base64 of a JPEG."""
    from PIL import Image

    from wfm.data.decode import VideoError, iter_frames

    frame = next((picture for picture, _ in iter_frames(path, start_seconds=seconds)), None)
    if frame is None:
        raise VideoError(path, "no_frames", f"the clip holds no frame after {seconds:.2f} s")
    image = Image.fromarray(frame)
    image = image.resize((max(1, round(image.width * FRAME_HEIGHT / image.height)), FRAME_HEIGHT))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=80)
    return base64.b64encode(data.getvalue()).decode()
