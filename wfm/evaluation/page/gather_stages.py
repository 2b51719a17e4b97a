"""The sections that manifests tell: curves of training, what each stage took, lineage, configs."""

import itertools
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from wfm.errors import InputError
from wfm.evaluation.page.cast import Cast
from wfm.evaluation.page.data import Chart, ConfigBlock, LineageNode, Series, StageCost
from wfm.models.family import FAMILIES

if TYPE_CHECKING:
    from wfm.artifacts import Artifact, Store
    from wfm.artifacts.manifest import Manifest
    from wfm.artifacts.runs import AttemptRecord

TOKENIZER, MODEL = "tokenizer_", "model_"
"""What the names of inputs begin with that were trained: a tokenizer by its kind, a model by its family."""
PAGE_KEY = "this page"
SPENT = ("cpu_seconds", "gpu_seconds")
RUNS_LOOKED_AT = 20
"""So many of the newest runs are asked for tries that failed."""


def node_name(manifest: "Manifest") -> str:
    """The node a manifest was made by; its stage where the node is not recorded."""
    return str(manifest.extra.get("node") or manifest.stage)


def in_order(manifests: Mapping[str, "Manifest"]) -> list["Manifest"]:
    """Manifests by when their work ended, so that a table reads as the run did."""
    return sorted(manifests.values(), key=lambda m: (m.timings.get("finished", 0.0), m.created_at, m.key))


def stage_costs(manifests: Mapping[str, "Manifest"], store: "Store | None" = None) -> list[StageCost]:
    """What each stage took; processor and device time of all its tries, those that made nothing too, as the `store` says."""
    runs = [] if store is None else [run.id for run in store.runs.list(RUNS_LOOKED_AT)]
    return [_cost(manifest, store, runs) for manifest in in_order(manifests)]


def _cost(manifest: "Manifest", store: "Store | None", runs: list[str]) -> StageCost:
    own = {name: manifest.resources.get(name, 0.0) for name in SPENT}
    good, failed = ([], []) if store is None else _tries(manifest, store, runs)
    spent = {name: max(own[name], _used(good, name)) for name in SPENT}
    lost = {name: _used(failed, name) for name in SPENT}
    return StageCost(
        node=node_name(manifest),
        stage=manifest.stage,
        key=manifest.key,
        seconds=max(0.0, manifest.timings.get("finished", 0.0) - manifest.timings.get("started", 0.0)),
        cpu_seconds=spent["cpu_seconds"] + lost["cpu_seconds"],
        gpu_seconds=spent["gpu_seconds"] + lost["gpu_seconds"],
        failed_tries=len(failed),
        failed_cpu_seconds=lost["cpu_seconds"],
        failed_gpu_seconds=lost["gpu_seconds"],
        peak_bytes=manifest.resources.get("peak_bytes", 0.0),
        counts=manifest.counts,
        skipped=manifest.skipped,
    )


def _used(tries: "list[AttemptRecord]", name: str) -> float:
    return sum(sum(one.used(name)) for one in tries)


def _tries(manifest: "Manifest", store: "Store", runs: list[str]) -> "tuple[list[AttemptRecord], list[AttemptRecord]]":
    """The tries that ended well and those that made nothing: all at its node in the run that made an artifact, and in `runs`
    those that say they were for its key, such as of the run that was given up and submitted again."""
    maker, node = manifest.extra.get("run_id"), manifest.extra.get("node")
    if not isinstance(maker, str) or not isinstance(node, str):
        return [], []
    found: list[AttemptRecord] = []
    for run_id in dict.fromkeys([maker, *runs]):
        try:
            tries = store.runs.of(run_id).read_outcomes(node)
        except InputError:  # records of another wfm, or names that are none
            continue
        found += [one for one in tries if run_id == maker or (one.outcome or {}).get("key") == manifest.key]
    ended = [str((one.outcome or {}).get("outcome", "")) for one in found]
    good = [one for one, how in zip(found, ended, strict=True) if how == "done"]
    return good, [one for one, how in zip(found, ended, strict=True) if how not in ("done", "cached")]


def lineage_nodes(manifests: Mapping[str, "Manifest"], inputs: Mapping[str, "Artifact"]) -> list[LineageNode]:
    """Every artifact upstream, and the page itself at the end."""
    found = [
        LineageNode(key=m.key, name=node_name(m), kind=m.kind, parents=list(m.inputs.values()))
        for m in in_order(manifests)
    ]
    # What another input is made from already is not drawn to the page once more.
    inner = {parent for node in found for parent in node.parents}
    ends = [artifact.key for artifact in inputs.values() if artifact.key not in inner]
    return [*found, LineageNode(key=PAGE_KEY, name="write_report", kind="page", parents=ends)] if found else []


def configs(manifests: Mapping[str, "Manifest"]) -> list[ConfigBlock]:
    """The resolved config of every stage that has one."""
    return [
        ConfigBlock(
            name=node_name(m), key=m.key, json_text=json.dumps(m.config, indent=2, sort_keys=True, ensure_ascii=False)
        )
        for m in in_order(manifests)
        if m.config
    ]


def training_charts(cast: Cast, inputs: Mapping[str, "Artifact"]) -> list[Chart]:
    """Loss by step of everything that was trained, and whatever was watched in dB on validation."""
    charts = []
    for name, title in _trained(cast, inputs).items():
        points = read_points(inputs[name])
        charts += [chart for chart in (_loss(title, points), _decibels(title, points)) if chart is not None]
    return charts


def _trained(cast: Cast, inputs: Mapping[str, "Artifact"]) -> dict[str, str]:
    """Input of the page -> what was trained there: tokenizers first, then the models in the page's order."""
    tokenizers = sorted(name for name in inputs if name.startswith(TOKENIZER))
    models = [f"{MODEL}{family}" for family in FAMILIES.names() if f"{MODEL}{family}" in inputs]
    return {
        **{name: f"Tokenizer, {name.removeprefix(TOKENIZER)}" for name in tokenizers},
        **{name: f"{cast.title(name.removeprefix(MODEL))} model" for name in models},
    }


def read_points(artifact: "Artifact") -> list[dict[str, Any]]:
    """The lines of an artifact's `metrics.jsonl`; none where it has no such file."""
    if not artifact.has_file("metrics.jsonl"):
        return []
    with artifact.open("metrics.jsonl") as file:
        return [json.loads(line) for line in file.read().decode().splitlines() if line.strip()]


def _column(points: list[dict[str, Any]], name: str) -> tuple[list[float], list[float]]:
    known = [(float(p["step"]), float(p[name])) for p in points if isinstance(p.get(name), int | float)]
    known = [(x, y) for x, y in known if math.isfinite(y)]
    return [x for x, _ in known], [y for _, y in known]


def thinned(xs: list[float], ys: list[float], most: int = 160) -> tuple[list[float], list[float]]:
    """At most `most` points, each the mean of a stretch, so that a long run does not make a heavy page."""
    if len(xs) <= most:
        return xs, ys
    borders = [round(k * len(xs) / most) for k in range(most + 1)]
    spans = list(itertools.pairwise(borders))
    return [xs[b - 1] for _, b in spans], [sum(ys[a:b]) / (b - a) for a, b in spans]


def _loss(title: str, points: list[dict[str, Any]]) -> Chart | None:
    series = []
    for name, label, role in (("loss", "training", "training"), ("validation_loss", "validation", "validation")):
        xs, ys = _column(points, name)
        if xs:
            xs, ys = thinned(xs, ys)
            series.append(Series(name=label, role=role, x=xs, y=ys))
    if not series:
        return None
    values = [y for one in series for y in one.y]
    log = min(values) > 0 and max(values) > 4 * min(values)
    return Chart(title=f"{title}: loss", x_label="step", y_label="loss", series=series, log_y=log)


def _decibels(title: str, points: list[dict[str, Any]]) -> Chart | None:
    names = sorted({name for point in points for name in point if name.startswith("validation_") and "psnr" in name})
    series = []
    for place, name in enumerate(names):
        xs, ys = _column(points, name)
        if xs:
            label = name.removeprefix("validation_").removesuffix("_db").replace("_", " ")
            roles = ("validation", "training", "flow", "ceiling_0")
            series.append(Series(name=label, role=roles[place % len(roles)], x=xs, y=ys))
    if not series:
        return None
    return Chart(title=f"{title}: validation PSNR", x_label="step", y_label="dB", series=series)
