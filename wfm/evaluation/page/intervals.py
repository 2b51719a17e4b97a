"""The main figure: every method's gain over repeat-last with its interval, one row each, drawn as inline SVG bars."""

from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup

from wfm.evaluation.metric import HEADLINE
from wfm.evaluation.metrics import all_metrics, world_metrics
from wfm.evaluation.page.cast import Cast
from wfm.evaluation.page.charts import role_class, ticks
from wfm.evaluation.schema import Estimate, Metrics, SubsetReport

WIDTH, ROW = 300, 30


@dataclass(frozen=True)
class Row:
    """One method on one subset."""

    label: str
    role: str
    reference: bool
    """A baseline or the ceiling, not a model."""
    figures: dict[str, Estimate | None]
    """By metric."""
    gain: Estimate | None
    """Over repeat-last [dB]; of references: the difference of means, without an interval of its own."""
    share: Estimate | None
    over_flow: Estimate | None
    closed: Estimate | None


@dataclass(frozen=True)
class Column:
    """One column of the table of every metric."""

    heading: str
    digits: int
    sign: bool
    of: Callable[[Row], Estimate | None]


def columns(shown: list[Row]) -> list[Column]:
    """A column for each metric that the rows have, as its declaration says; one of another's making goes by its name."""
    declared = {metric.name: metric for metric in all_metrics()}
    names = dict.fromkeys(name for row in shown for name in row.figures)
    found = []
    for name in [*(name for name in declared if name in names), *(name for name in names if name not in declared)]:
        metric = declared.get(name)
        heading, digits = (metric.heading, metric.digits) if metric else (name.replace("_", " "), 3)
        found.append(Column(heading, digits, False, lambda row, name=name: row.figures.get(name)))  # type: ignore[misc]
        if name == HEADLINE:
            found.append(Column("gain over flow, dB", 2, True, lambda row: row.over_flow))
    return found


@dataclass(frozen=True)
class WorldColumn:
    """One column of the table of objects and camera."""

    heading: str
    digits: int
    share: bool
    figures: dict[str, Estimate | None]
    """By set of videos."""


def world_columns(metrics: Metrics) -> list[WorldColumn]:
    """A column for each metric of these sections of which anything is known."""
    found = []
    for report, rows_of in ((metrics.objects, world_metrics("objects")), (metrics.camera, world_metrics("camera"))):
        for row in rows_of:
            figures = {name: scores.estimate(row.name) for name, scores in report.videos.items()}
            if any(figures.values()):
                found.append(WorldColumn(row.heading.format(**dict(report)), row.digits, row.share, figures))
    return found


def video_order(metrics: Metrics) -> list[str]:
    """Sets of videos in the order they are listed: the model's own, what has to be beaten, the ceiling, the truth."""
    return [*metrics.variants, "flow", "repeat_last", "tokenizer", "truth"]


def rows(metrics_list: list[Metrics], subset: str) -> list[Row]:
    """Rows of one subset: models first, then baselines, then each ceiling."""
    cast = Cast(metrics_list)
    models: list[Row] = []
    references: list[Row] = []
    for metrics in metrics_list:
        report = metrics.subsets.get(subset)
        if report is None or report.absent:
            continue
        for name in video_order(metrics):
            if name == "shuffled_action" or name not in report.videos:
                continue
            reference = name not in metrics.variants
            row = _row(cast, metrics, report, name, reference=reference)
            known = any(row.label == other.label for other in references)
            if not reference:
                models.append(row)
            elif not known:
                references.append(row)
    order = {"flow": 0, "repeat_last": 1, "tokenizer": 2}
    return [*models, *sorted(references, key=lambda row: order.get(row.role, 2))]


def _row(cast: Cast, metrics: Metrics, report: SubsetReport, name: str, *, reference: bool) -> Row:
    quality, base = report.videos[name], report.videos.get("repeat_last")
    gains = report.gains.get(name, {})
    gain = gains["repeat_last"].psnr_gain_db if "repeat_last" in gains else None
    if reference and quality.psnr_db and base and base.psnr_db:
        apart = quality.psnr_db.mean - base.psnr_db.mean
        gain = quality.psnr_db.model_copy(update={"mean": apart, "low": None, "high": None})
    return Row(
        label=cast.name(metrics.family, name),
        role=cast.role(metrics.family, name),
        reference=reference,
        figures=dict(quality),
        gain=gain,
        share=gains["repeat_last"].share_of_windows if "repeat_last" in gains else None,
        over_flow=gains["flow"].psnr_gain_db if "flow" in gains else None,
        closed=report.way_closed.get(name),
    )


class GainAxis:
    """One axis for all rows of a subset, so that bars can be compared."""

    def __init__(self, shown: list[Row]) -> None:
        gains = [row.gain for row in shown if row.gain]
        values = [v for gain in gains for v in (gain.low, gain.mean, gain.high, 0.0) if v is not None] or [0.0, 1.0]
        margin = (max(values) - min(values)) * 0.06 or 0.5
        self.low, self.high = min(values) - margin, max(values) + margin

    def x(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low) * WIDTH

    def bar(self, row: Row) -> Markup:
        """The bar of one row: from zero to the mean, with a whisker for the interval."""
        zero = self.x(0.0)
        marks = [f'<path class="zero" d="M{zero:.1f} 0V{ROW}"/>']
        if row.gain is not None:
            mean = self.x(row.gain.mean)
            left, wide = min(zero, mean), abs(mean - zero)
            kind = f"{role_class(row.role)}{' reference' if row.reference else ''}"
            marks.append(f'<rect class="bar {kind}" x="{left:.1f}" y="8" width="{wide:.1f}" height="14" rx="2"/>')
            if row.gain.low is not None and row.gain.high is not None and row.gain.high > row.gain.low:
                low, high = self.x(row.gain.low), self.x(row.gain.high)
                marks.append(f'<path class="whisker" d="M{low:.1f} 15H{high:.1f}M{low:.1f} 11v8M{high:.1f} 11v8"/>')
        return Markup(
            f'<svg class="gain" viewBox="0 0 {WIDTH} {ROW}" preserveAspectRatio="none" aria-hidden="true">'
            f"{''.join(marks)}</svg>"
        )

    def scale(self) -> Markup:
        """The axis below the bars: as HTML, so that its text keeps its size on a phone."""
        marks = []
        for value in ticks(self.low, self.high, 5):
            text = f"{value:+.4g}".replace("-", "−") if value else "0"
            marks.append(f'<span style="left:{self.x(value) / WIDTH * 100:.2f}%">{text}</span>')
        return Markup("".join(marks))
