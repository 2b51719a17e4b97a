"""KFP's own local runner over a compiled template: it resolves parameters and conditions, and starts what the template says.

There is no cluster here on which launchers could make jobs, so each is replaced by its stage, which has the same command line,
in the image of its role. All else stays as it was compiled.
"""

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kfp.components
import kfp.local
import yaml

from pipelines.engines.flow import Flow, tasks_of
from pipelines.engines.kubeflow.emit import emit
from pipelines.engines.kubeflow.template import SAID
from pipelines.plan import shape
from wfm.artifacts import Store
from wfm.cluster.settings import ClusterSettings, Image

Environment = Callable[[Image], Mapping[str, str]]


def flow_for(pipeline: str, profile: str, store: Store, *overrides: str) -> Flow:
    """A flow with a store of this machine."""
    plan = shape(pipeline, profile=profile, store=store, overrides=overrides)
    name = f"{pipeline}-{profile}".replace("_", "-")
    return Flow(name, pipeline, profile, tasks_of(plan.nodes), store=store.url, overrides=overrides)


def stages_in_place(
    flow: Flow, settings: ClusterSettings, folder: Path, environment: Environment, image: Callable[[Image], str]
) -> list[dict[str, Any]]:
    """The template with stages for launchers, and what else a machine has that is no cluster: ``folder`` holds what the plan
    step says, ``environment`` and ``image`` are those of a role."""
    documents: list[dict[str, Any]] = copy.deepcopy(emit(flow, settings)["pipeline.yaml"])
    of_node = {task.node: task for task in flow.tasks}
    for executor in documents[0]["deploymentSpec"]["executors"].values():
        container, role = executor["container"], "control"
        words = [word.replace(SAID, str(folder)) for word in container["args"]]
        if "components.launch_job" in words:
            spec = words[words.index("--spec") + 1]
            task = of_node[spec.rpartition("/")[2].removesuffix(".json")]
            words[words.index("components.launch_job")] = f"components.{task.component}"
            role = task.image
        given = {**{one["name"]: one["value"] for one in container["env"]}, **environment(role)}
        container |= {"args": words, "image": image(role), "env": [{"name": n, "value": v} for n, v in given.items()]}
    return documents


@contextmanager
def local_runner(runner: Any, root: Path) -> Iterator[Callable[..., None]]:
    """KFP's local execution; yields ``run(documents, **arguments)``, which raises where a task failed."""

    def run(documents: list[dict[str, Any]], **arguments: Any) -> None:
        kfp.components.load_component_from_text(yaml.safe_dump_all(documents))(**arguments)

    kfp.local.init(runner=runner, pipeline_root=str(root), raise_on_error=True)
    try:
        yield run
    finally:
        kfp.local.config.LocalExecutionConfig.instance = None


def outputs(root: Path) -> dict[str, dict[str, str]]:
    """Task -> its outputs, of the only run below a root."""
    (run,) = root.iterdir()
    return {task.name: {one.name: one.read_text() for one in task.iterdir()} for task in run.iterdir()}


def write_settings(settings: ClusterSettings, file: Path) -> None:
    file.write_text(json.dumps(settings.resolved()))
