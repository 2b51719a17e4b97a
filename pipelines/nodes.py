"""A pipeline with every config resolved and every key known: what planning gives (`plan.py`) and all else reads."""

import dataclasses
import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from components.derivation import code_id, module_hashes
from components.entrypoint import SPEC_VERSION
from pipelines.stages import STAGES, Resources, StageRow
from pipelines.stages import stage as stage_row
from wfm.config import Config
from wfm.errors import ConfigError, did_you_mean
from wfm.registry import uses

if TYPE_CHECKING:
    from wfm.artifacts import Store


@dataclasses.dataclass
class Node:
    """A node with everything known that is needed to run it."""

    name: str
    stage: str
    component: str
    config: dict[str, Any]
    inputs: dict[str, str]
    "Input name -> node name."
    resources: Resources = dataclasses.field(default_factory=Resources)
    "What it needs to run: the profile's word, else the stage's."
    redo: str = ""
    promote: str = ""
    gate: dict[str, Any] = dataclasses.field(default_factory=dict)
    "What its evaluation must show to be promoted (`wfm.evaluation.gate`); empty: nothing."
    seen: dict[str, Any] = dataclasses.field(default_factory=dict)
    "Where what the plan saw of the outside is kept (`components.outside`); empty: the stage looks itself."
    key: str | None = None
    done: bool = False
    why: str = ""


@dataclasses.dataclass
class Plan:
    """A resolved pipeline."""

    pipeline: str
    profile: str
    nodes: list[Node]
    requested: dict[str, Any]
    "What the user asked for: overrides, videos, dataset, redo, name, promote."
    given: dict[str, str] = dataclasses.field(default_factory=dict)
    "Nodes that are not run because their artifact was named: node name -> key."
    page: str = ""
    notes: list[str] = dataclasses.field(default_factory=list)
    "What people should know before it runs."

    def node(self, name: str) -> Node:
        """A node by name; raises `ConfigError` with the choices."""
        for node in self.nodes:
            if node.name == name:
                return node
        names = [node.name for node in self.nodes]
        raise ConfigError(f"unknown stage {name!r} in this run.{did_you_mean(name, names)} Choices: {', '.join(names)}")

    def input_keys(self, node: Node) -> dict[str, str]:
        """Input name -> key; raises `KeyError` while an input's key is unknown."""
        keys = {**self.given, **{other.name: other.key for other in self.nodes if other.key}}
        return {name: keys[source] for name, source in node.inputs.items()}

    def followers(self, name: str) -> list[Node]:
        """The nodes that need ``name``, at any distance, in order."""
        reached = {name}
        found = []
        for node in self.nodes:
            if reached & set(node.inputs.values()):
                reached.add(node.name)
                found.append(node)
        return found

    @property
    def missing(self) -> list[Node]:
        """The nodes that have to run."""
        return [node for node in self.nodes if not node.done]

    def unsure(self, rows: Mapping[str, StageRow] = STAGES) -> set[str]:
        """Nodes whose keys the run may find to be others: an ingest that has yet to look at files outside, and what follows."""
        watching = {node.name for node in self.missing if rows[node.stage].watches and not node.inputs}
        return {name for first in watching for name in (first, *(node.name for node in self.followers(first)))}

    def spec(self, node: Node, store: "Store", run_id: str) -> dict[str, Any]:
        """What the stage process is given (`components/entrypoint.py`)."""
        row = stage_row(node.stage)
        return {
            "schema_version": SPEC_VERSION,
            "store": store.url,
            "run_id": run_id,
            "node": node.name,
            "stage": node.stage,
            "component": node.component,
            "kind": row.output,
            "config": node.config,
            "redo": node.redo,
            "promote": node.promote,
            "reads_truth": row.reads_truth,
            **({"gate": node.gate} if node.gate else {}),
            **({"seen": node.seen} if node.seen else {}),
        }


def config_class(component: str, values: Mapping[str, Any] | None = None) -> type[Config]:
    """The configuration class of a component; with `values`, the one that they are read by (`FamilyConfig`)."""
    found: type[Config] = importlib.import_module(f"components.{component}").CONFIG
    return found.class_of(values) if values is not None else found


def code_of(node: Node) -> str:
    """The code id of a node: of its component, and of what its config names."""
    return code_id(node.component, uses(config_class(node.component).parse(node.config)))


def modules_of(node: Node) -> dict[str, str]:
    """What that id is made from: module -> hash."""
    return module_hashes(node.component, uses(config_class(node.component).parse(node.config)))
