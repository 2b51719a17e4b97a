"""A node that would run, as the rules about settings see it (`check_settings.py`, `check_curation.py`)."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from pipelines.nodes import Node, Plan, config_class


@dataclasses.dataclass(frozen=True)
class Asked:
    """A node that would run, with its config parsed, and how to find those behind it."""

    node: Node
    config: Any
    plan: Plan

    def behind(self, name: str) -> Any:
        """The config of the node that makes an input; None where it is not part of this plan."""
        source = self.node.inputs.get(name, "")
        return next((parsed(node) for node in self.plan.nodes if node.name == source), None)

    def before(self, name: str, stage: str) -> Any:
        """The config of the nearest node of a stage behind an input, at any distance; None without one."""
        waiting = [self.node.inputs.get(name, "")]
        nodes = {node.name: node for node in self.plan.nodes}
        while waiting:
            node = nodes.get(waiting.pop(0))
            if node is not None:
                if node.stage == stage:
                    return parsed(node)
                waiting += node.inputs.values()
        return None

    def __call__(self, field: str, advice: str) -> str:
        """The words of a problem: node, field, value, and what to do."""
        value: Any = self.config
        for name in field.split("."):
            value = getattr(value, name)
        return f"{self.node.name}.{field} = {value!r}: {advice}"


def parsed(node: Node) -> Any:
    """A node's config, as its component reads it."""
    return config_class(node.component).parse(node.config)


Rule = Callable[[Asked], Iterator[str]]
"""Yields the words of each problem."""
