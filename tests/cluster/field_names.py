"""Names of the fields of every kind that the lint looks at, taken out of their schemas: `wfm/cluster/lint/field_names.json`.

    python -m tests.cluster.field_names      # writes it anew, after a schema in `crds/` has changed

A node of the tree is a table of fields, ``["each", node]`` for lists and maps, or 0 where anything may stand. Equal nodes are
one (a pod stands there some hundred times); a node is named by its place in the list, from 1 on.
"""

import functools
import importlib.resources
import json
from pathlib import Path
from typing import Any

from tests.cluster import strict
from wfm.cluster.lint.naming import KINDS

FILE = Path(__file__).parents[2] / "wfm" / "cluster" / "lint" / "field_names.json"


class Tree:
    """Collects nodes."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self._places: dict[str, int] = {}
        self._refs: dict[str, int] = {}

    def of(self, schema: Any) -> int:
        """The node of a schema; ``$ref`` points into the definitions of Kubernetes."""
        name = str(schema.get("$ref", "")).rpartition("/")[2]
        if name:
            if name not in self._refs:
                self._refs[name] = self.of(_definitions()[name])
            return self._refs[name]
        if schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("x-kubernetes-int-or-string"):
            return 0
        if "properties" in schema:
            return self._place({field: self.of(inner) for field, inner in sorted(schema["properties"].items())})
        inner = schema.get("items") if "items" in schema else schema.get("additionalProperties")
        node = self.of(inner) if isinstance(inner, dict) else 0
        return self._place(["each", node]) if node else 0

    def _place(self, node: Any) -> int:
        text = json.dumps(node)
        if text not in self._places:
            self.nodes.append(node)
            self._places[text] = len(self.nodes)
        return self._places[text]


def _file(name: str) -> Any:
    folder = f"kubernetes-json-schema/v{strict.VERSION}.0-local-strict"
    return json.loads(importlib.resources.files("kubernetes_validate").joinpath(folder, name).read_text())


@functools.cache
def _definitions() -> Any:
    return _file("_definitions.json")["$defs"]


def made() -> dict[str, Any]:
    """What the file holds: ``roots`` (``apiVersion/kind`` -> node) and ``nodes``."""
    tree, roots = Tree(), {}
    custom = {(f"{group}/{version}", kind): one for (group, version, kind), one in _custom().items()}
    metadata = {"$ref": "#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}
    for kind, versions in sorted(KINDS.items()):
        for version in versions:
            schema = custom.get((version, kind))
            if schema is not None:
                schema = {"properties": {**schema["properties"], "metadata": metadata, "apiVersion": {}, "kind": {}}}
            elif not version.startswith("monitoring.coreos.com/"):  # of which no schema is kept
                group, _, number = version.rpartition("/")
                schema = _file("-".join(filter(None, (kind.lower(), group.partition(".")[0], number))) + ".json")
            if schema is not None:
                roots[f"{version}/{kind}"] = tree.of(schema)
    return {"roots": roots, "nodes": tree.nodes}


def _custom() -> dict[tuple[str, str, str], Any]:
    return {**strict.schemas(), **strict.argo()}


def text() -> str:
    """The file, a node a line."""
    found = made()
    lines = ",\n".join(json.dumps(node, separators=(",", ":")) for node in found["nodes"])
    return f'{{"roots": {json.dumps(found["roots"], indent=1)},\n"nodes": [\n{lines}\n]}}\n'


if __name__ == "__main__":
    FILE.write_text(text())
