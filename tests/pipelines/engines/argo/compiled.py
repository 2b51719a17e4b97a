"""Compiled flows that tests begin with, and how their commands run on this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from components.derivation import ROOT
from pipelines.engines.argo.emit import emit
from pipelines.engines.argo.templates import OUT, PLAN
from pipelines.engines.flow import Flow, tasks_of
from pipelines.plan import shape
from tests.pipelines.engines.argo.interpreter import End
from wfm.cluster.pod import KEY_FILE
from wfm.cluster.settings import ClusterSettings
from wfm.stopping import CANCELLED

Json = dict[str, Any]
IMAGES = {
    role: f"registry.example/wfm-{role}@sha256:{digit * 64}"
    for role, digit in (("curation", "1"), ("training", "2"), ("control", "3"))
}
SETTINGS = ClusterSettings.parse(
    {
        "images": IMAGES,
        "queue": "research",
        "secrets": ["wfm-store"],
        "integrations": ["job", "jobset", "trainjob", "pytorchjob", "pod", "deployment"],
    }
)


def flow(pipeline: str = "world_model", profile: str = "demo_cluster", **more: Any) -> Flow:
    """A flow as ``wfm compile`` makes it; `more` are videos, dataset, overrides, or fields of the flow."""
    asked = {name: more.get(name) for name in ("videos", "dataset")}
    plan = shape(pipeline, profile=profile, overrides=more.get("overrides", ()), **asked)
    return Flow(f"{pipeline}-{profile}".replace("_", "-"), pipeline, profile, tasks_of(plan.nodes), **more)


def template_of(one: Flow, settings: ClusterSettings = SETTINGS) -> Json:
    """Its WorkflowTemplate."""
    return emit(one, settings)["workflowtemplate.yaml"][0]


def only(compiled: Json, *nodes: str) -> Json:
    """The workflow with these tasks alone."""
    made: Json = json.loads(json.dumps(compiled))
    graph = made["spec"]["templates"][0]["dag"]
    graph["tasks"] = [task for task in graph["tasks"] if task["name"].rsplit("-", 1)[0] in (PLAN, *nodes)]
    return made


def run_here(container: Json, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """The very command of a container on this machine: ``/tmp`` is `folder`, the settings lie in it, and this Python runs."""
    words = container["command"]
    assert words[:3] == ["tini", "--", "python"]
    places = {OUT: str(folder / Path(OUT).name), KEY_FILE: str(folder / Path(KEY_FILE).name)}
    here = [sys.executable, *(places.get(word, word) for word in words[3:])]
    own = {one["name"]: one["value"] for one in container.get("env", ()) if one["name"] in (CANCELLED, "WFM_ENGINE")}
    environment = {**os.environ, **own, "PYTHONPATH": str(ROOT), "WFM_CLUSTER": str(folder / "cluster.json"), **more}
    return subprocess.run(here, env=environment, capture_output=True, text=True, timeout=300)


def end_of(done: subprocess.CompletedProcess[str]) -> End:
    """As Argo tells the end of a process."""
    if done.returncode == 0:
        return End()
    return End("Failed", done.returncode, f"main: Error (exit code {done.returncode})")
