"""Static rules a pipeline must keep, checked before anything runs: one small function each.

``wfm run --dry-run`` and every emitter call `check_graph`; a broken rule is a `ConfigError` that names the node.
"""

import math
import tomllib
from collections.abc import Callable, Iterator, Sequence

from components.derivation import ROOT
from components.part_range import IN_PARTS
from pipelines.dags.graph import Graph
from pipelines.nodes import Node
from pipelines.stages import STAGES, Kind, Resources
from wfm.cluster.settings import ClusterSettings
from wfm.errors import ConfigError

Rule = Callable[[Graph, set[str]], Iterator[str]]

QUOTA = {"cpu": 128 * 128.0, "gpu": 128 * 8.0, "memory_gib": 128 * 2048.0}
"""The most one node may ask for, with all its replicas, where the settings of the cluster (``quota`` in the file that
``WFM_CLUSTER`` names) do not say: 128 machines of 8 devices. More is a slip of the keyboard."""
MOST_GPUS = 16
"""Devices of the largest machines there are."""


def check_graph(graph: Graph, given: set[str] | None = None) -> None:
    """Raise `ConfigError` with every broken rule; ``given`` are nodes whose artifacts are there already."""
    problems = [problem for rule in RULES for problem in rule(graph, given or set())]
    if problems:
        raise ConfigError(f"pipeline {graph.name!r} cannot run: " + "; ".join(problems))


def names_are_unique(graph: Graph, given: set[str]) -> Iterator[str]:
    """Two nodes may share a stage, never a name."""
    names = [node.name for node in graph.nodes]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"node {name!r} stands in it twice"


def stages_exist(graph: Graph, given: set[str]) -> Iterator[str]:
    """Every stage is a row of the table."""
    for node in graph.nodes:
        if node.stage not in STAGES:
            yield f"node {node.name!r} has the unknown stage {node.stage!r}, choices: {', '.join(STAGES)}"


def acyclic(graph: Graph, given: set[str]) -> Iterator[str]:
    """Every node follows its inputs, which forbids cycles and absent nodes alike."""
    seen = set(given)
    everywhere = seen | {node.name for node in graph.nodes}
    for node in graph.nodes:
        for source in node.inputs.values():
            if source not in everywhere:
                yield f"node {node.name!r} needs {source!r}, which is not in the pipeline"
            elif source not in seen:
                yield f"node {node.name!r} comes before its input {source!r}: a cycle, or a wrong order"
        seen.add(node.name)


def kinds_join(graph: Graph, given: set[str]) -> Iterator[str]:
    """What a node is given is of the kind its stage takes, and nothing it needs is left out."""
    stage_of = {node.name: node.stage for node in graph.nodes}
    for node in graph.nodes:
        row = STAGES.get(node.stage)
        if row is None:
            continue
        for name in row.lacking(node.inputs):
            yield f"node {node.name!r} lacks its input {name!r} of kind {row.inputs[name]!r}"
        for name, source in node.inputs.items():
            wanted = row.kind_of(name).rstrip("?")
            made = STAGES[stage_of[source]].output if source in stage_of and stage_of[source] in STAGES else wanted
            if not wanted:
                yield f"node {node.name!r} has the unknown input {name!r}, choices: {', '.join(row.inputs) or 'none'}"
            elif made != wanted:
                yield f"node {node.name!r}: input {name!r} wants {wanted!r}, {source!r} makes {made!r}"


def images_exist(graph: Graph, given: set[str]) -> Iterator[str]:
    """The image of every stage has its table in images/roles.toml, where that is: an image holds no images."""
    path = ROOT / "images" / "roles.toml"
    if not path.exists():
        return
    roles = tomllib.loads(path.read_text())
    for image in sorted({STAGES[node.stage].image for node in graph.nodes if node.stage in STAGES} - roles.keys()):
        yield f"image {image!r} has no table in images/roles.toml, choices: {', '.join(roles)}"


def components_exist(graph: Graph, given: set[str]) -> Iterator[str]:
    """Every stage has its component file."""
    for name in sorted({node.stage for node in graph.nodes if node.stage in STAGES}):
        if not (ROOT / "components" / f"{STAGES[name].component}.py").is_file():
            yield f"stage {name!r} has no components/{STAGES[name].component}.py"


def check_resources(nodes: Sequence[Node], settings: ClusterSettings | None = None) -> None:
    """Raise `ConfigError` for every node that asks for more than the quota, for ranks, replicas or part ranges that
    its stage cannot use. ``settings``: those of the cluster, where there is one."""
    quota = {**QUOTA, **(settings.quota.limits() if settings is not None else {})}
    problems = []
    for node in nodes:
        needs, kind = node.resources, STAGES[node.stage].kind
        if needs.ranks > 1 and kind != "torchjob":
            trainings = sorted(name for name, row in STAGES.items() if row.kind == "torchjob")
            problems.append(
                f"{node.name}.ranks = {needs.ranks}: {node.stage} is one process; ranks share a training "
                f"({', '.join(trainings)}). Leave it out, or set 1"
            )
        if needs.pod()["gpu"] > MOST_GPUS:
            of_ranks = f" for each of {needs.ranks} ranks" if needs.ranks > 1 else ""
            problems.append(
                f"{node.name}.resources.gpu = {needs.gpu}{of_ranks}: no machine has {needs.pod()['gpu']:g} devices. "
                "It counts for each rank of a replica; replicas are further machines"
            )
        if needs.replicas > 1 and kind == "container":
            problems.append(
                f"{node.name}.resources.replicas = {needs.replicas}: {node.stage} is one process. Leave it out, or set 1"
            )
        if needs.parts and node.component not in IN_PARTS:
            problems.append(
                f"{node.name}.resources.parts = {needs.parts}: {node.stage} does not work in parts. Leave it out, or set 0; "
                f"those that do: {', '.join(IN_PARTS)}"
            )
        problems += [
            f"node {node.name!r} asks for {amount:g} {name}{_spelt_out(needs, kind, name)}, the quota is {quota[name]:g}"
            for name, amount in needs.total(kind).items()
            if amount > quota.get(name, math.inf)
        ]
    if problems:
        raise ConfigError("; ".join(problems))


def _spelt_out(needs: Resources, kind: Kind, name: str) -> str:
    """What an amount is made of, where it is not that of one pod."""
    one, beside = needs.pod()[name], needs.beside(kind)
    words = [
        f"{one:g} a {'worker' if beside else 'replica'}" + (f" times {needs.replicas}" if needs.replicas > 1 else "")
    ]
    words += [f"its {who} {of.pod()[name]:g}" for who, of in beside.items()]
    return f" ({', '.join(words)})" if needs.replicas > 1 or beside else ""


RULES: tuple[Rule, ...] = (
    names_are_unique,
    stages_exist,
    acyclic,
    kinds_join,
    images_exist,
    components_exist,
)
