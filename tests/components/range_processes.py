"""Stage processes of one component, several after each other: each is a fork of a process that has loaded the component, so
that seven ranges cost one start. What runs in them is the component's own ``main``, with its exit code, signals and records.

    python -m tests.components.range_processes '{"component": "split_clips", "jobs": [[["--parts", "0/7"], {}]]}'

prints the exit codes (negative: the signal) as JSON.
"""

import importlib
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from components.derivation import ROOT
from components.make_artifact import SCHEDULER
from wfm.artifacts import Artifact, Store
from wfm.artifacts.runs import Run

Job = tuple[list[str], dict[str, str]]
"""Arguments and variables of one stage process."""
LOADS = {
    "split_clips": ["wfm.curation.cut.split"],
    "encode_latents": ["torch", "pandas", "wfm.training.encode", "wfm.training.moments"],
    "generate_videos": ["torch", "pandas", "wfm.generation.held_out", "wfm.generation.held_out_plan"],
}


class Node:
    """A node of a run on a store, and processes for it."""

    def __init__(
        self, store: Store, folder: Path, component: str, config: Mapping[str, Any], inputs: Mapping[str, Artifact],
        *, redo: str = "",
    ) -> None:  # fmt: skip
        self.store, self.component = store, component
        self.run: Run = store.runs.create({"pipeline": "test", "nodes": [{"name": component, "stage": component}]})
        spec = {
            "schema_version": 1, "store": store.url, "run_id": self.run.id, "node": component, "stage": component,
            "component": component, "kind": "things", "config": dict(config), "redo": redo, "promote": "things/named",
            "reads_truth": False,
        }  # fmt: skip
        self.key_file = folder / f"key-{self.run.id}"
        self.arguments = ["--spec", self.run.write("specs/node.json", json.dumps(spec))]
        self.arguments += [f"--input={role}={artifact.key}" for role, artifact in inputs.items()]

    def part(self, text: str, crash: str = "", **variables: str) -> Job:
        """A process that makes a range, and dies at a crash point."""
        return [*self.arguments, "--parts", text], {**({"WFM_CRASH_AT": crash} if crash else {}), **variables}

    @property
    def plain(self) -> Job:
        """The call without a range."""
        return [*self.arguments, "--key-out", str(self.key_file)], {}

    def outcomes(self) -> list[dict[str, Any]]:
        """What the processes wrote at their ends, a killed one ``{}``, each with the range of its record."""
        found = self.run.read_outcomes(self.component)
        return [{**(one.outcome or {}), "parts": one.record.get("parts", "")} for one in found]

    def made(self) -> int:
        """How many parts those of them made that came to their ends."""
        return sum(one.get("parts_made", {}).get("made", 0) for one in self.outcomes())


def start(component: str, jobs: Iterable[Job]) -> "subprocess.Popen[str]":
    """A process that runs `jobs`, one after the other."""
    asked = {"component": component, "jobs": list(jobs)}
    command = [sys.executable, "-m", "tests.components.range_processes", json.dumps(asked)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop(SCHEDULER, None)
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def side_by_side(component: str, *processes: Sequence[Job]) -> list[list[int]]:
    """Run several such processes at once; the exit codes of each."""
    started = [start(component, jobs) for jobs in processes]
    return [json.loads(process.communicate(timeout=300)[0]) for process in started]


def main(asked: dict[str, Any]) -> list[int]:
    """Run the jobs, each in a fork."""
    for module in LOADS.get(asked["component"], []):
        importlib.import_module(module)
    codes = []
    for arguments, variables in asked["jobs"]:
        child = os.fork()
        if not child:
            sys.argv = [asked["component"], *arguments]
            os.environ.update(variables)
            os.dup2(2, 1)
            try:
                runpy.run_module(f"components.{asked['component']}", run_name="__main__")
            finally:
                os._exit(99)  # `main` of a component never returns
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    return codes


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
