"""``wfm`` with pipelines of fake stages: ``python -m wfm_fakes.cli submit curate ...``, in processes of their own as any other.

What a pipeline is stands in the file that ``WFM_FAKE_NODES`` names (`workshop.Nodes` as JSON), which a test may write anew
between two commands; ``--set NODE.FIELD=JSON`` changes a field, ``--videos`` the keys. All else is the command line, the
engines and the store as they are.
"""

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

from pipelines import background, start_run
from pipelines.engines.engine import RunSummary, run_plan
from pipelines.nodes import Node, Plan
from pipelines.request import Request
from wfm.artifacts import Store
from wfm_fakes.workshop import Workshop, refresh_fake

NODES = "WFM_FAKE_NODES"
FAKE = "wfm_fakes.cli"


def plan(request: Request, store: Store) -> Plan:
    """The plan of a request."""
    file = Path(os.environ[NODES])
    nodes: dict[str, Any] = json.loads(file.read_text())
    for override in request.overrides:
        path, _, value = override.partition("=")
        node, _, name = path.partition(".")
        nodes[node][1][name] = json.loads(value)
    if request.videos:
        nodes = {name: (inputs, {**config, "value": request.videos}) for name, (inputs, config) in nodes.items()}
    workshop = Workshop(file.parent, store)
    made = workshop.plan(nodes, request.redo)
    made.pipeline, made.profile = request.pipeline, request.profile
    start_run.run_plan = partial(run_fakes, workshop)
    return made


def run_fakes(workshop: Workshop, *given: Any, **more: Any) -> RunSummary:
    """The engine, with the rows of fakes and their short waits."""
    more |= {"rows": workshop.rows, "refresh_plan": refresh_fake, "engine_options": workshop.options}
    return run_plan(*given, **more)


def written(name: str, of: Plan) -> dict[str, Any]:
    """What the spec says of a node that has no component."""
    node = of.node(name)
    told = {
        field: getattr(node, field) for field in ("name", "stage", "component", "key", "config", "redo", "done", "why")
    }
    return {**told, "sources": node.inputs, "inputs": of.input_keys(node), "resources": node.resources.resolved()}


def hashes(_node: Node) -> dict[str, str]:
    """Of no code."""
    return {}


PATCHES: tuple[tuple[Any, str, Any], ...] = (
    (Request, "plan", plan),
    (start_run, "_written", written),
    (start_run, "_short_hashes", hashes),
    (start_run, "run_plan", run_plan),
    (background, "MODULE", FAKE),
)
"""Where the fakes stand in for stages, for tests that call commands in their own process."""


if __name__ == "__main__":
    from pipelines.commands.cli import main

    for where, name, what in PATCHES:
        setattr(where, name, what)
    main()
