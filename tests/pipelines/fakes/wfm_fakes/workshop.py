"""Small pipelines of fake stages, run as real processes through the real engine and a real store.

``python -m wfm_fakes.workshop FOLDER NODES_JSON ENGINE`` runs one in a process of its own, for tests that kill it.
"""

import dataclasses
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.engines.engine import RunSummary, run_plan
from pipelines.engines.run_node import EngineOptions
from pipelines.nodes import Node, Plan
from pipelines.stages import Resources, StageRow
from wfm.artifacts import Store
from wfm.artifacts.runs import Run
from wfm_fakes.stage import fake_key

FAKES = Path(__file__).parent.parent
ROOT = FAKES.parents[2]
Nodes = Mapping[str, tuple[list[str], dict[str, Any]]]
"""``{name: (inputs, config)}``; fields of the stage's row (cpu, retries, ...) may stand in the config under ``row``."""


class FakePlan(Plan):
    """A plan whose stages are not in the table."""

    def spec(self, node: Node, store: Store, run_id: str) -> dict[str, Any]:
        return {
            "schema_version": 1, "store": store.url, "options": {}, "run_id": run_id, "node": node.name, "stage": node.stage,
            "component": node.component, "kind": "fake", "config": node.config, "redo": node.redo, "promote": node.promote,
        }  # fmt: skip


def refresh_fake(plan: Plan, store: Store) -> None:
    for node in plan.missing:
        node.key = fake_key(node.name, node.config, plan.input_keys(node), node.redo)
        node.done = store.has(node.key)


@dataclasses.dataclass
class Workshop:
    """A store and a way to run pipelines of fake stages in it."""

    folder: Path
    store: Store
    engine: str = "local"
    rows: dict[str, StageRow] = dataclasses.field(default_factory=dict)
    options: EngineOptions = dataclasses.field(
        default_factory=lambda: EngineOptions(
            backoff_seconds=0.05, grace_seconds=1.0, environment={"PYTHONPATH": _path()}
        )
    )

    def plan(self, nodes: Nodes, redo: Mapping[str, str] | None = None) -> Plan:
        made = []
        for name, (inputs, given) in nodes.items():
            config = dict(given)
            row = {"cpu": 0.1, "memory_gib": 0.1, "retries": 3, **config.pop("row", {})}
            needs = Resources.parse({field: row.pop(field) for field in ("cpu", "memory_gib")})
            self.rows[name] = StageRow.parse({"name": name, "output": "fake", "image": "control", **row})
            config["folder"] = str(self.folder)
            again = (redo or {}).get(name, "")
            made.append(
                Node(name, name, "wfm_fakes.stage", config, {f"in_{of}": of for of in inputs}, needs, redo=again)
            )
        plan = FakePlan("fake", "test", made, {})
        refresh_fake(plan, self.store)
        return plan

    def run(self, plan: Plan, cpu: float = 4.0, memory_gib: float = 4.0) -> tuple[RunSummary, Run]:
        run = self.store.runs.create({"pipeline": "fake"})
        summary = run_plan(
            plan, run, self.store, engine=self.engine, cpu_budget=cpu, memory_budget_gib=memory_gib,
            engine_options=self.options, rows=self.rows, refresh_plan=refresh_fake,
        )  # fmt: skip
        return summary, run

    def events(self) -> list[dict[str, Any]]:
        path = self.folder / "events"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def started(self) -> list[str]:
        return [event["node"] for event in self.events() if event["event"] == "start"]

    def forget(self) -> None:
        (self.folder / "events").unlink(missing_ok=True)


def _path() -> str:
    return os.pathsep.join([str(FAKES), str(ROOT)])


def main() -> None:
    folder = Path(sys.argv[1])
    workshop = Workshop(folder / "notes", Store.open(folder / "store"), sys.argv[3])
    summary, _ = workshop.run(workshop.plan(json.loads(sys.argv[2])))
    sys.stderr.flush()
    os._exit(summary.exit_code)


if __name__ == "__main__":
    main()
