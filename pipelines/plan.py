"""What has to run, and why: a pipeline with every config resolved and every key known, against a store.

Keys are derived before anything runs, so a plan with nothing missing starts no engine. Resolving costs a listing of the
input folder and one look at the store per node; torch is never loaded.
"""

import importlib
import pkgutil
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from components.derivation import keep_meanings
from components.entrypoint import node_key
from pipelines.check import check_graph, check_resources
from pipelines.check_settings import check_settings
from pipelines.dags.curate import OPTIONAL as CURATION_OPTIONAL
from pipelines.dags.curate import curate
from pipelines.dags.decoder import decoder, decoder_of_dataset
from pipelines.dags.from_dataset import SIMULATION_NODE, begin
from pipelines.dags.graph import Builder, Graph, GraphNode, Settings
from pipelines.dags.promotion import PROMOTION, Promotion
from pipelines.dags.world_model import OPTIONAL as MODEL_OPTIONAL
from pipelines.dags.world_model import is_plug_in, models_of_dataset, world_model
from pipelines.needs import CLUSTER, NEEDS, ClusterNeeds, NodeNeeds, apart, follow_devices, give_devices, section
from pipelines.nodes import Node, Plan, code_of, config_class
from pipelines.stages import stage as stage_row
from wfm.cluster.settings import ClusterSettings
from wfm.config import Config, assign, knows, parse_assignment, unknown
from wfm.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from wfm.artifacts import Store

PIPELINES: dict[str, Builder] = {"world_model": world_model, "curate": curate, "decoder": decoder}
AFTER_DATASET: dict[str, Callable[[Settings, bool, Promotion], Graph]] = {
    "world_model": models_of_dataset,
    "decoder": decoder_of_dataset,
}
"""The same from a dataset on: (settings, whether what simulation knows is there, what the results are called) -> graph."""
OPTIONAL = (*CURATION_OPTIONAL, *MODEL_OPTIONAL)
"""Stages that are there only if a setting is made for them."""
_RANKS = "ranks"


def resolve(
    pipeline: str,
    *,
    profile: str,
    store: "Store",
    overrides: Sequence[str] = (),
    videos: str | None = None,
    dataset: str | None = None,
    redo: Mapping[str, str] | None = None,
    name: str | None = None,
    promote: bool = True,
) -> Plan:
    """Build, check and key a pipeline: its `shape`, with every key and what is made already. Raises as that does."""
    plan = shape(
        pipeline, profile=profile, store=store, overrides=overrides, videos=videos, dataset=dataset, redo=redo, name=name,
        promote=promote,
    )  # fmt: skip
    refresh(plan, store)
    check_settings(plan)
    return plan


def shape(
    pipeline: str,
    *,
    profile: str,
    store: "Store | None" = None,
    overrides: Sequence[str] = (),
    videos: str | None = None,
    dataset: str | None = None,
    redo: Mapping[str, str] | None = None,
    name: str | None = None,
    promote: bool = True,
) -> Plan:
    """Which nodes a pipeline has, with their configs and needs, and no keys yet: nothing outside is looked at, and no store
    but for a dataset to begin with.

    ``dataset`` is a dataset in the store to start from (`begin`); with ``videos``, or for the curation itself, it is the name
    the new dataset is published under. ``name`` is what all results are called in place of the recipe's names; without
    ``promote`` they get none. Raises `ConfigError` for an unknown pipeline, profile, node or field, `InputError` for
    a name that is none.
    """
    asked = list(overrides)
    if pipeline not in PIPELINES:
        raise ConfigError(
            f"unknown pipeline {pipeline!r}.{did_you_mean(pipeline, PIPELINES)} Choices: {', '.join(PIPELINES)}"
        )
    recipe_, overrides = _known(recipe(profile), profile), list(overrides)
    promotion, overrides = section(recipe_, overrides, PROMOTION, Promotion)
    settings, resources, cluster, overrides = apart(recipe_, overrides)
    settings = _with_optional(settings, overrides)
    given: dict[str, str] = {}
    notes: list[str] = []
    if dataset and not videos and pipeline in AFTER_DATASET:
        if store is None:
            raise ValueError(f"dataset = {dataset!r}: to begin with it give the store in which it is")
        beginning = begin(dataset, store)
        given = beginning.given
        names = promotion.called(name or "", beginning.name)
        graph = AFTER_DATASET[pipeline](settings, SIMULATION_NODE in {**given, **beginning.lost}, names)
        notes = _go_without(graph, beginning.lost)
    else:
        graph = PIPELINES[pipeline](settings, videos or "", promotion.called(name or "", dataset or ""))
    graph = _without_absent(graph, set(given))
    given = {name: key for name, key in given.items() if any(name in node.inputs.values() for node in graph.nodes)}
    nodes = [_node(node, dict(redo or {}), resources.get(node.name, {})) for node in graph.nodes]
    _follow(nodes, graph, ())
    give_devices(nodes, cluster)
    _override(nodes, overrides)
    follow_devices(nodes, settings, overrides)
    _follow(nodes, graph, overrides)
    check_graph(graph, given=set(given))
    check_resources(nodes, ClusterSettings.here())
    if not promote:
        for made in nodes:
            made.promote, made.gate = "", {}
    requested = {
        "overrides": asked, "videos": videos, "dataset": dataset, "redo": dict(redo or {}), "name": name, "promote": promote,
    }  # fmt: skip
    return Plan(pipeline, profile, nodes, requested, given, page=graph.page, notes=notes)


def refresh(plan: Plan, store: "Store") -> None:
    """Derive the keys and look which are committed. What is done stays as it is: a file that arrives while a run goes on
    is the next run's."""
    for node in plan.nodes:
        if node.done:
            continue
        spec = plan.spec(node, store, run_id="")
        with _said_of(node):
            node.key = node_key(spec, plan.input_keys(node), store)
        node.done = store.has(node.key)
        node.why = f"committed as {node.key[:12]}" if node.done else _why(node, plan)
    keep_meanings()


def recipe(profile: str) -> dict[str, dict[str, Any]]:
    """The settings of a profile by node name; raises `ConfigError` with the choices."""
    import wfm.recipes

    choices = sorted(module.name for module in pkgutil.iter_modules(wfm.recipes.__path__))
    if profile not in choices:
        raise ConfigError(f"unknown profile {profile!r}.{did_you_mean(profile, choices)} Choices: {', '.join(choices)}")
    settings: dict[str, dict[str, Any]] = importlib.import_module(f"wfm.recipes.{profile}").settings()
    return settings


def _known(settings: dict[str, dict[str, Any]], profile: str) -> dict[str, dict[str, Any]]:
    """The settings, if each is of a node that some pipeline has: a misspelt one would be ignored."""
    everything = {**settings, **{name: {} for name in OPTIONAL}}
    names = {node.name for build in PIPELINES.values() for node in build(everything, "", Promotion()).nodes}
    names |= {CLUSTER, PROMOTION}
    wrong = [unknown(name, names).replace("field", "node", 1) for name in settings if name not in names]
    if wrong:
        raise ConfigError(f"recipe {profile!r}: " + "; ".join(wrong))
    return settings


def _node(node: GraphNode, redo: dict[str, str], resources: dict[str, Any]) -> Node:
    config = config_class(node.stage).parse(node.settings)
    needs = {NEEDS: {**stage_row(node.stage).resources.resolved(), **resources}}
    return Node(
        name=node.name,
        stage=node.stage,
        component=stage_row(node.stage).component,
        config=config.resolved(),
        inputs=dict(node.inputs),
        resources=NodeNeeds.parse(needs).resources,
        redo=redo.get(node.name, ""),
        promote=node.promote,
        gate=node.gate.resolved() if node.gate else {},
    )


def _with_optional(settings: dict[str, dict[str, Any]], overrides: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The settings, with an empty entry for each optional stage that something is set for: so it is in the pipeline."""
    asked = dict.fromkeys(parse_assignment(text)[0][0] for text in overrides)
    return {**settings, **{name: settings.get(name, {}) for name in asked if name in OPTIONAL or is_plug_in(name)}}


def _override(nodes: list[Node], overrides: Sequence[str]) -> None:
    """``node.field=value`` or ``stage.field=value`` (every node of that stage that has the field: families differ);
    ``node.resources.gpu=8`` for what it needs, ``node.ranks=2`` being short for ``node.resources.ranks=2``."""
    for text in overrides:
        path, value = parse_assignment(text)
        matching = [node for node in nodes if path[0] in (node.name, node.stage)]
        if not matching or len(path) < 2:
            raise ConfigError(
                f"override {text!r} names no stage of this pipeline; write stage.field=value."
                f"{did_you_mean(path[0], [*(node.name for node in nodes), CLUSTER, PROMOTION])} "
                f"Choices: {', '.join(node.name for node in nodes)}, {CLUSTER} ({', '.join(ClusterNeeds.model_fields)}) and "
                f"{PROMOTION} ({', '.join(Promotion.model_fields)})"
            )
        if path[1:] == [_RANKS]:
            path = [path[0], NEEDS, _RANKS]
        if path[1] == NEEDS:
            for node in matching:
                needs = {NEEDS: node.resources.resolved()}
                with _said_of(node):
                    assign(needs, path[1:], value, NodeNeeds)
                    node.resources = NodeNeeds.parse(needs).resources
            continue
        kinds: dict[str, type[Config]] = {}
        for node in matching:
            with _said_of(node):
                kinds[node.name] = config_class(node.component, node.config)
        having = [node for node in matching if knows(path[1:], kinds[node.name])]
        for node in having or matching:
            with _said_of(node):
                assign(node.config, path[1:], value, kinds[node.name])
    for node in nodes:  # when all are set: two fields that need each other come in any order
        with _said_of(node):
            node.config = config_class(node.component).parse(node.config).resolved()


@contextmanager
def _said_of(node: Node) -> Iterator[None]:
    """Inside, an error of a config says whose it is."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{node.name}: {error}") from None


def _sets(overrides: Sequence[str], *path: str) -> bool:
    """Whether an override sets this field, or one inside of it."""
    return any(tuple(parse_assignment(text)[0][: len(path)]) == path for text in overrides)


def _follow(nodes: Sequence[Node], graph: Graph, overrides: Sequence[str]) -> None:
    """Give every field that follows another node's config, and that nobody sets, what it is by now."""
    by_name = {node.name: node for node in nodes}
    for given in graph.nodes:
        node = by_name[given.name]
        for field, other in given.follows.items():
            said = field in given.settings or any(_sets(overrides, name, field) for name in (node.name, node.stage))
            if not said and other in by_name:
                rule = importlib.import_module(f"components.{node.component}").FOLLOWS[field]
                config = {**node.config, field: rule(by_name[other].config)}
                node.config = config_class(node.component).parse(config).resolved()


def _without_absent(graph: Graph, given: set[str]) -> Graph:
    """The graph without optional inputs whose node is not in it."""
    present = given | {node.name for node in graph.nodes}
    nodes = []
    for node in graph.nodes:
        row = stage_row(node.stage)
        inputs = {
            name: source
            for name, source in node.inputs.items()
            if source in present or not row.kind_of(name).endswith("?")
        }
        nodes.append(node.model_copy(update={"inputs": inputs}))
    return graph.model_copy(update={"nodes": tuple(nodes)})


def _go_without(graph: Graph, lost: Mapping[str, str]) -> list[str]:
    """Which nodes have no input that the dataset's own run had, and why."""
    readers = {name: [node.name for node in graph.nodes if name in node.inputs.values()] for name in lost}
    return [
        f"{', '.join(readers[name])} without {name} and what it was made from: {why}"
        for name, why in lost.items()
        if readers[name]
    ]


def _why(node: Node, plan: Plan) -> str:
    changed = [other.name for other in plan.nodes if other.name in node.inputs.values() and not other.done]
    if changed:
        return f"follows {', '.join(changed)}"
    if node.redo:
        return "asked for again"
    return f"no artifact {typing.cast(str, node.key)[:12]} yet (code {code_of(node)[:12]})"
