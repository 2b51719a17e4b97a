"""A run stays small enough for a cluster to keep, however much data it is over and however often its tasks fail."""

import json
from pathlib import Path

import pytest
import yaml

from pipelines.engines.argo.sizes import FAILED, MESSAGE, MOST_BYTES, check_sizes, size_of, status_of
from tests.cluster import strict
from tests.pipelines.engines.argo.compiled import SETTINGS, Json, flow, template_of
from tests.wfm.cluster.requests import request
from wfm.cluster.entry import object_of, phases
from wfm.errors import ConfigError


def test_the_status_is_built_as_argo_stored_one() -> None:
    """Ids, names, kinds, phases and who hangs on whom; every field that stands there. (Since 2018 Argo writes more.)"""
    text = Path(__file__).with_name("stored_status.yaml").read_text()
    stored = yaml.load(text, yaml.BaseLoader)["nodes"]
    pod = {"name": "randomly-fail", "container": {"image": "alpine"}}
    dag = {"name": "dag-with-retries", "dag": {"tasks": [{"name": "step1", "template": "randomly-fail"}]}}
    template = {"metadata": {"name": "x"}, "spec": {"entrypoint": "dag-with-retries", "templates": [dag, pod]}}
    built = status_of(template, "dag-with-retries-4wkh8", failed=2, message="failed with exit code 1")["nodes"]
    assert sorted(built) == sorted(stored)
    for name, node in stored.items():
        same = {field for field in node if field not in ("startedAt", "finishedAt")}
        assert {field: built[name].get(field) for field in same} == {field: node[field] for field in same}
        assert set(node) <= set(built[name])


@pytest.mark.parametrize("pipeline", ["world_model", "curate", "decoder"])
def test_a_run_in_which_every_task_failed_twice_is_below_a_mebibyte(pipeline: str) -> None:
    template = template_of(flow(pipeline))
    status = status_of(template)
    tasks = len(template["spec"]["templates"]) - 1
    tries = [node for node in status["nodes"].values() if node["type"] == "Pod"]
    assert len(tries) == tasks * (FAILED + 1)
    assert sum(node.get("message") == MESSAGE for node in tries) == tasks * FAILED
    workflow = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": "w"},
        "spec": {"workflowTemplateRef": {"name": template["metadata"]["name"]}},
        "status": status,
    }
    assert strict.faults(workflow) == [], "as Argo's own schema has it"
    size = size_of(workflow)
    print(f"{pipeline}: template {size_of(template)} bytes, status {size} bytes")
    assert size < MOST_BYTES / 2
    assert size_of(template) < 128 * 1024


def test_a_graph_that_would_grow_too_large_is_refused() -> None:
    template = template_of(flow())
    spec: Json = json.loads(json.dumps(template["spec"]))
    graph, step = spec["templates"][0]["dag"], spec["templates"][-1]
    for number in range(180):
        spec["templates"].append({**step, "name": f"more-{number}"})
        graph["tasks"].append({**graph["tasks"][-1], "name": f"more-{number}", "template": f"more-{number}"})
    with pytest.raises(ConfigError, match="Divide the pipeline"):
        check_sizes({**template, "spec": spec})


def test_ten_thousand_parts_are_one_job_and_no_larger_workflow() -> None:
    plain, divided = template_of(flow()), template_of(flow(overrides=("split_clips.resources.parts=10000",)))
    assert len(divided["spec"]["templates"]) == len(plain["spec"]["templates"])
    assert size_of(divided) - size_of(plain) < 100, "the option itself"
    whole = request("split_clips", parts=10_000, inputs={"videos": "1" * 64}, resources={"replicas": 200})
    jobs = [object_of(phase, SETTINGS) for phase in phases(whole)]
    assert [(job["kind"], job["spec"]["completions"]) for job in jobs] == [("Job", 10_000), ("Job", 1)]
    assert jobs[0]["spec"]["parallelism"] == 200
    assert "JOB_COMPLETION_INDEX/10000" in jobs[0]["spec"]["template"]["spec"]["containers"][0]["command"]
    assert all(size_of(job) < 10_000 for job in jobs)
