"""A pipeline as data: nodes over the table of stages. The DAG files are functions that return one of these."""

from collections.abc import Callable, Mapping
from typing import Any

from pipelines.dags.promotion import Promotion
from wfm.config import Config
from wfm.evaluation.gate import Gate


class GraphNode(Config):
    """A stage in a pipeline: the same stage may stand in it twice under two names."""

    name: str
    stage: str
    inputs: dict[str, str] = {}
    "Input name -> node that makes it."
    settings: dict[str, Any] = {}
    "Values for the component's config; what is not named keeps its default."
    follows: dict[str, str] = {}
    "Field that nobody sets -> node whose config says what it is, by the rule in ``FOLLOWS`` of the component."
    promote: str = ""
    "``kind/name`` that points at the result once it is committed."
    gate: Gate | None = None
    "What its evaluation must show for that; None: nothing."


class Graph(Config):
    """A pipeline, in an order in which every node follows its inputs."""

    name: str
    nodes: tuple[GraphNode, ...]
    page: str = ""
    "Node whose artifact holds ``report/index.html``, if any."

    def node(self, name: str) -> GraphNode:
        """A node by name."""
        return next(node for node in self.nodes if node.name == name)


Settings = Mapping[str, dict[str, Any]]
"""Values by node name, as the recipes give them."""

Builder = Callable[[Settings, str, Promotion], Graph]
"""(settings, videos or "", what the results are called) -> graph."""


def node(name: str, stage: str, settings: Settings, *, promote: str = "", **inputs: str) -> GraphNode:
    """A node whose settings are the recipe's for its name."""
    return GraphNode(name=name, stage=stage, inputs=inputs, settings=dict(settings.get(name, {})), promote=promote)


def gated(made: GraphNode, gate: Gate | None) -> GraphNode:
    """The node, with what its result must show for its name."""
    return made.model_copy(update={"gate": gate})


def following(made: GraphNode, **nodes: str) -> GraphNode:
    """The node, with fields of its config that follow those of other nodes."""
    return made.model_copy(update={"follows": nodes})
