"""A plan written down for an engine: every missing node as the process it will be, before anything starts.

An engine needs no more than these steps to run a plan, on this machine or on a cluster: each is a command line over a spec
that lies in the run (``runs/<id>/specs/<node>.json``), with what it needs, how often it may be tried, and after whom it comes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.nodes import Node, Plan, code_of
from pipelines.stages import Image, Kind, Resources, StageRow
from wfm.cluster.settings import ClusterSettings

if TYPE_CHECKING:
    from wfm.artifacts import Store
    from wfm.artifacts.runs import Run


@dataclass(frozen=True)
class Step:
    """One missing node."""

    node: str
    stage: str
    module: str
    "What ``python -m`` starts."
    spec: str
    "URL of the node's spec."
    inputs: Mapping[str, str]
    "Input name -> node that makes it."
    keys: Mapping[str, str]
    """Input name -> key. Left out are those that only the run will tell: behind an ingest that has yet to look at files
    outside, which may have changed by then."""
    promote: str
    image: Image
    kind: Kind
    resources: Resources
    retries: int
    timeout_seconds: float

    @property
    def cpu(self) -> float:
        """Cores of all its ranks here."""
        return self.resources.cpu * self.resources.ranks

    @property
    def memory_gib(self) -> float:
        """Memory of all its ranks here [GiB]."""
        return self.resources.memory_gib * self.resources.ranks

    def arguments(self, keys: Mapping[str, str], key_out: str) -> list[str]:
        """What follows ``python``; ``keys`` are those of all inputs, ``key_out`` a file for the artifact's own."""
        given = [word for name, key in keys.items() for word in ("--input", f"{name}={key}")]
        return ["-m", self.module, "--spec", self.spec, *given, "--key-out", key_out]


def compile_plan(plan: Plan, run: "Run", store: "Store", rows: Mapping[str, StageRow]) -> tuple[Step, ...]:
    """Write the spec of every missing node into the run, and return the steps, each after those it needs."""
    return tuple(_step(plan, name, run, store, rows) for name in [node.name for node in plan.missing])


def _needs(node: Node, row: StageRow) -> dict[str, Any]:
    """What a launcher reads in a node's spec beside what the stage does (`wfm.cluster.request`), and which code and image
    the planner saw (`components.image`)."""
    cluster = ClusterSettings.here()
    return {
        "inputs": sorted(node.inputs),
        "job_kind": row.kind,
        "image": row.image,
        "resources": node.resources.resolved(),
        "timeout_seconds": row.timeout_seconds,
        "retries": row.retries,
        "parts": node.resources.parts,
        "code": code_of(node) if "." not in node.component else "",  # a component of another package has none of ours
        "image_reference": getattr(cluster.images, row.image) if cluster else "",
    }


def _step(plan: Plan, name: str, run: "Run", store: "Store", rows: Mapping[str, StageRow]) -> Step:
    node = plan.node(name)
    row = rows[node.stage]
    spec = json.dumps({**plan.spec(node, store, run.id), **_needs(node, row)}, indent=1)
    unsure = plan.unsure(rows)
    return Step(
        node=name,
        stage=node.stage,
        module=node.component if "." in node.component else f"components.{node.component}",
        spec=run.write(f"specs/{name}.json", spec, private=True),
        inputs=dict(node.inputs),
        keys={of: key for of, key in plan.input_keys(node).items() if node.inputs[of] not in unsure},
        promote=node.promote,
        image=row.image,
        kind=row.kind,
        resources=node.resources,
        retries=row.retries,
        timeout_seconds=row.timeout_seconds,
    )
