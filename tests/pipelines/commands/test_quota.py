"""``wfm quota``: which jobs a plan becomes, and what people read of them."""

import json

import pytest
import yaml
from typer.testing import CliRunner

from pipelines.commands.cli import app
from pipelines.commands.quota import jobs_of
from pipelines.request import Request
from tests.wfm.cluster.quota.jobs import job, workload
from tests.wfm.cluster.quota.test_waiting import TOLD
from wfm.artifacts import Store
from wfm.cluster.quota import gangs
from wfm.cluster.settings import ClusterSettings


def test_what_is_made_already_asks_for_nothing_and_ranges_are_closed_by_one_pod(tmp_path):
    plan = Request("world_model", profile="demo_cluster").plan(Store.open(str(tmp_path)))
    settings = ClusterSettings(queue="research")
    for node in plan.nodes:
        node.done = node.name != "split_clips"
    assert [each["kind"] for each in jobs_of(plan, settings)] == ["DaskJob"]
    (node,) = plan.missing
    node.resources = node.resources.model_copy(update={"parts": 64})
    ranges, closing = gangs(jobs_of(plan, settings), settings)
    assert (ranges.kind, ranges.pods, ranges.copies) == ("Job", node.resources.replicas, 1)
    assert ranges.total()["nvidia.com/gpu"] == 32
    assert (closing.kind, closing.pods) == ("Job", 1)
    assert not closing.total().get("nvidia.com/gpu")
    node.done = True
    assert jobs_of(plan, settings) == []


@pytest.mark.parametrize("as_json", [False, True])
def test_a_file_of_what_a_cluster_has_tells_what_waits(tmp_path, as_json):
    told = [each for each in TOLD["jobs"] if each["name"] in ("important", "small")]
    objects = [*TOLD["objects"], *map(workload, TOLD["workloads"]), *map(job, told)]
    file = tmp_path / "all.yaml"
    file.write_text("---\n".join(yaml.safe_dump(json.loads(json.dumps(each))) for each in objects))
    asked = ["quota", "--manifests", str(file), *(["--json"] if as_json else [])]
    done = CliRunner().invoke(app, asked, env={"WFM_CLUSTER": ""}, catch_exceptions=False)
    assert done.exit_code == 0
    if as_json:
        now = {row["job"]: row["now"] for row in json.loads(done.stdout)["stages"]}
        assert (now["small"]["state"], now["important"]["preempts"]) == ("free", ["their-borrower", "our-regular"])
        return
    text = " ".join(done.stdout.split())
    assert "16 x (nvidia.com/gpu 1), all at once" in text
    assert "2 fits" in text
    for words in ("there is room now", "12 is missing", "put out"):
        assert words in text
