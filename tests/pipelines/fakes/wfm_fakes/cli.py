"""``wfm`` with pipelines of fake stages: ``python -m wfm_fakes.cli submit curate ...``, in processes of their own as any other.

What the pipeline ``curate`` is stands in the file that ``WFM_FAKE_NODES`` names (`workshop.Nodes` as JSON), which a test may
write anew between two commands. All else is the command line, the engines and the store as they are.
"""

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

from pipelines import background, start_run
from pipelines.commands.cli import main
from pipelines.engines.engine import run_plan
from pipelines.nodes import Node, Plan
from pipelines.start_run import Request
from wfm.artifacts import Store
from wfm_fakes.workshop import Workshop, refresh_fake

NODES = "WFM_FAKE_NODES"


def plan(self: Request, store: Store) -> Plan:
    """The plan of a request, which fails a stage when ``--set NODE.FIELD=V`` says so."""
    file = Path(os.environ[NODES])
    nodes: dict[str, Any] = json.loads(file.read_text())
    for override in self.overrides:
        path, _, value = override.partition("=")
        node, _, name = path.partition(".")
        nodes[node][1][name] = json.loads(value)
    if self.videos:
        nodes = {name: (inputs, {**config, "value": self.videos}) for name, (inputs, config) in nodes.items()}
    workshop = Workshop(file.parent, store)
    made = workshop.plan(nodes, self.redo)
    made.pipeline, made.profile = self.pipeline, self.profile
    start_run.run_plan = partial(  # type: ignore[assignment]
        run_plan, rows=workshop.rows, refresh_plan=refresh_fake
    )
    return made


def written(name: str, of: Plan) -> dict[str, Any]:
    """What the spec says of a node that has no component."""
    node = of.node(name)
    told = {
        field: getattr(node, field) for field in ("name", "stage", "component", "key", "config", "redo", "done", "why")
    }
    return {**told, "sources": node.inputs, "inputs": of.input_keys(node), "resources": node.resources.resolved()}


def hashes(_node: Node) -> dict[str, str]:
    return {}


if __name__ == "__main__":
    Request.plan = plan  # type: ignore[method-assign]
    start_run._written, start_run._short_hashes = written, hashes
    background.MODULE = "wfm_fakes.cli"
    main()
