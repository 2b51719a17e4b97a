"""The sections that manifests tell: curves of training, what each stage took, lineage, configs."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from wfm.errors import InputError
from wfm.evaluation.page.cast import Cast
from wfm.evaluation.page.data import Chart, ConfigBlock, LineageNode, StageCost
from wfm.evaluation.page.training_curves import curves_of
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
    """The curves of everything that was trained (`training_curves`)."""
    found = (curves_of(title, inputs[name]) for name, title in _trained(cast, inputs).items())
    return [chart for charts in found for chart in charts]


def _trained(cast: Cast, inputs: Mapping[str, "Artifact"]) -> dict[str, str]:
    """Input of the page -> what was trained there: tokenizers first, then the models in the page's order."""
    tokenizers = sorted(name for name in inputs if name.startswith(TOKENIZER))
    models = [f"{MODEL}{family}" for family in FAMILIES.names() if f"{MODEL}{family}" in inputs]
    return {
        **{name: f"Tokenizer, {name.removeprefix(TOKENIZER)}" for name in tokenizers},
        **{name: f"{cast.title(name.removeprefix(MODEL))} model" for name in models},
    }
