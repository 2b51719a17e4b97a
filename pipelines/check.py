"""Static rules a pipeline must keep, checked before anything runs: one small function each.

``wfm run --dry-run`` and every emitter call `check_graph`; a broken rule is a `ConfigError` that names the node.
"""

import tomllib
from collections.abc import Callable, Iterator, Sequence

from components.derivation import ROOT
from pipelines.dags.graph import Graph
from pipelines.nodes import Node
from pipelines.stages import STAGES
from wfm.errors import ConfigError

Rule = Callable[[Graph, set[str]], Iterator[str]]

QUOTA = {"cpu": 512.0, "gpu": 1024, "memory_gib": 2048.0}
"""The most one node may ask for, replicas included for devices; platform teams lower it in ``manifests/base``."""


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
        for name, kind in row.inputs.items():
            if name not in node.inputs and not kind.endswith("?") and not name.endswith("*"):
                yield f"node {node.name!r} lacks its input {name!r} of kind {kind!r}"
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


def check_resources(nodes: Sequence[Node]) -> None:
    """Raise `ConfigError` for every node that asks for more than the quota, or for ranks that its stage cannot use."""
    problems = []
    for node in nodes:
        if node.resources.ranks > 1 and STAGES[node.stage].kind != "torchjob":
            trainings = sorted(name for name, row in STAGES.items() if row.kind == "torchjob")
            problems.append(
                f"{node.name}.ranks = {node.resources.ranks}: {node.stage} is one process; ranks share a training "
                f"({', '.join(trainings)}). Leave it out, or set 1"
            )
        asked = {"cpu": node.resources.cpu, "memory_gib": node.resources.memory_gib}
        asked["gpu"] = node.resources.gpu * node.resources.replicas
        problems += [
            f"node {node.name!r} asks for {amount:g} {resource}, the quota is {QUOTA[resource]:g}"
            for resource, amount in asked.items()
            if amount > QUOTA[resource]
        ]
    if problems:
        raise ConfigError("; ".join(problems))


RULES: tuple[Rule, ...] = (
    names_are_unique,
    stages_exist,
    acyclic,
    kinds_join,
    images_exist,
    components_exist,
)
