"""Artifacts in, `PageData` out. The page is assembled here; its sections have files of their own."""

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

from wfm.evaluation.generated import read_generated
from wfm.evaluation.metrics import all_metrics
from wfm.evaluation.page.cast import Cast
from wfm.evaluation.page.config import PageConfig
from wfm.evaluation.page.data import Chart, PageData, Series, short_source
from wfm.evaluation.page.gather_curation import funnel, rejected
from wfm.evaluation.page.gather_examples import Judged, action_videos, prediction_videos
from wfm.evaluation.page.gather_stages import configs, lineage_nodes, stage_costs, training_charts
from wfm.evaluation.page.intervals import video_order
from wfm.evaluation.page.limits import limits
from wfm.evaluation.page.verdict import headline, judge
from wfm.evaluation.page.words import SUBSETS
from wfm.evaluation.schema import Metrics, read_metrics
from wfm.models.family import FAMILIES

if TYPE_CHECKING:
    from wfm.artifacts import Artifact, Store

SHOWN_SOURCES = 20
EVALUATED = "evaluated_"
"""What the name of the input begins with that is the report of a family's model."""


def gather(inputs: Mapping[str, "Artifact"], store: "Store", config: PageConfig, *, run_id: str = "") -> PageData:
    """Everything the page shows. Inputs that are not there leave their section empty, which the page says."""
    judged = [_judged(inputs, name) for name in FAMILIES.names() if f"{EVALUATED}{name}" in inputs]
    metrics = [one.metrics for one in judged]
    cast = Cast(metrics)
    ancestors = list({a.key: a for artifact in inputs.values() for a in store.lineage(artifact.key)}.values())
    manifests = {a.key: store.artifact(a.key).manifest for a in ancestors if not a.problem}
    sources = [short_source(source) for source in _sources(inputs.get("dataset"))]
    sentence, lines = headline(metrics)
    return PageData(
        title=config.title,
        headline=sentence,
        sublines=lines,
        facts=_facts(metrics, run_id),
        verdicts=judge(config.targets, metrics) if metrics else [],
        metrics=metrics,
        predictions=prediction_videos(judged, config.examples),
        prediction_note=_prediction_note(cast, judged, config.examples),
        actions=action_videos(judged, config.action_examples),
        horizon=horizon_charts(metrics),
        training=training_charts(cast, inputs),
        funnel=funnel(inputs.get("dataset")),
        rejected=rejected(inputs.get("dataset"), inputs.get("clips"), config.rejected),
        stages=stage_costs(manifests, store),
        lineage=lineage_nodes(manifests, inputs),
        sources=sources[:SHOWN_SOURCES],
        source_count=len(sources),
        configs=configs(manifests),
        limits=limits(cast, metrics),
    )


def _judged(inputs: Mapping[str, "Artifact"], family: str) -> Judged:
    import pyarrow.parquet as pq

    report = inputs[f"{EVALUATED}{family}"]
    metrics = read_metrics(report.fetch("metrics.json"))
    with report.open("windows.parquet") as file:
        rows = pq.read_table(io.BytesIO(file.read())).to_pylist()
    generated = inputs.get(f"generated_{family}")
    made = read_generated(generated, metrics.split) if generated is not None else None
    return Judged(metrics, rows, made, generated.key if generated is not None else "")


def _sources(dataset: "Artifact | None") -> list[str]:
    if dataset is None:
        return []
    return sorted(set(dataset.table("videos", ["source"]).column("source").to_pylist()))


def _facts(metrics: list[Metrics], run_id: str) -> list[str]:
    facts = [f"run {run_id}"] if run_id else []
    if metrics:
        one = metrics[0]
        facts += [
            f"{one.split} split",
            f"{one.windows} windows from {one.sessions} session{'s' * (one.sessions != 1)}",
            f"{one.past_frames} frames given, {one.predicted_frames} predicted",
            f"{one.width}×{one.height} px at {one.fps:.4g} frames/s",
        ]
    return facts


def _prediction_note(cast: Cast, judged: list[Judged], number: int) -> str:
    if not judged or judged[0].made is None or not number:
        return ""
    name = cast.name(judged[0].metrics.family, judged[0].metrics.headline_variant)
    return (
        f"Held-out windows, not hand-picked: evenly by rank from the worst gain of {name} to the best. "
        "The grey part of the bar is what the models were given."
    )


def horizon_charts(metrics: list[Metrics]) -> list[Chart]:
    """Figures by time ahead: the metrics where their rows say, objects in place."""
    charts, cast = [], Cast(metrics)
    fixed = any("fixed_rate" in one.horizon for one in metrics)
    for metric in all_metrics():
        for subset in metric.charts if fixed else metric.charts and ("all",):
            series = _horizon_series(cast, metrics, metric.name, subset)
            if series:
                where = f"where {SUBSETS[subset]}" if subset != "all" else "all windows"
                title = f"{metric.title[:1].upper()}{metric.title[1:]}, {where}"
                label = metric.axis or metric.unit or metric.title
                charts.append(
                    Chart(title=title, x_label="time ahead, s", y_label=label, series=series, note=metric.chart_note)
                )
    objects = _objects_series(cast, metrics)
    if objects:
        within = metrics[0].objects.placed_within_px
        charts.append(
            Chart(
                title=f"Objects found within {within:g} px of their place",
                x_label="time ahead, s",
                y_label="% of objects in sight",
                series=objects,
                note="Of those the same detector finds in the true frame.",
            )
        )
    return charts


def _horizon_series(cast: Cast, metrics: list[Metrics], metric: str, subset: str) -> list[Series]:
    found: dict[str, Series] = {}
    for one in metrics:
        horizon = one.horizon.get(subset)
        if horizon is None:
            continue
        curves = horizon.curves(metric)
        for name in video_order(one):
            curve = curves.get(name)
            if curve is None:
                continue
            label, own = cast.name(one.family, name), name in one.variants
            if (
                name == "shuffled_action"
                or label in found
                or (own and name != one.headline_variant and one is not metrics[0])
            ):
                continue
            banded = name == one.headline_variant
            found[label] = Series(
                name=label,
                role=cast.role(one.family, name),
                x=horizon.seconds,
                y=curve.mean,
                low=curve.low if banded else [],
                high=curve.high if banded else [],
                dashed=not own,
            )
    return sorted(found.values(), key=lambda series: series.dashed)


def _objects_series(cast: Cast, metrics: list[Metrics]) -> list[Series]:
    found: dict[str, Series] = {}
    for one in metrics:
        seconds = [(frame + 1) / one.fps for frame in range(one.predicted_frames)]
        for name in video_order(one):
            rates, label = one.objects.by_horizon.get(name), cast.name(one.family, name)
            if rates is None or name in ("truth", "shuffled_action", "tokenizer") or label in found:
                continue
            known = [(x, rate * 100) for x, rate in zip(seconds, rates, strict=True) if rate is not None]
            role = cast.role(one.family, name)
            xs, ys = [x for x, _ in known], [y for _, y in known]
            found[label] = Series(name=label, role=role, x=xs, y=ys, dashed=name not in one.variants)
    return sorted(found.values(), key=lambda series: series.dashed)
