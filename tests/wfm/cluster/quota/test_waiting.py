"""Who waits for whom: the eleventh cluster, in which two teams are at work; from files, and from an API server."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import strict
from tests.wfm.cluster.quota.jobs import job, workload
from wfm.cluster.quota import gangs, judge, read_cluster
from wfm.cluster.quota.waiting import wait

FILE = Path(__file__).parent / "clusters/11_waiting.yaml"
TOLD: dict[str, Any] = yaml.safe_load(FILE.read_text())
OBJECTS = [*TOLD["objects"], *map(workload, TOLD["workloads"])]


def test_workloads_are_as_kueue_keeps_them():
    assert [fault for each in OBJECTS for fault in strict.faults(each) if "restartPolicy" not in fault] == []


@pytest.mark.parametrize("told", TOLD["jobs"], ids=lambda told: told["name"])
def test_what_waits_for_what(told):
    cluster = read_cluster(OBJECTS)
    (gang,) = gangs([job(told)], None)
    found = wait(judge(gang, cluster), cluster)
    assert found.state == told["now"], found
    for name in ("ahead", "preempts"):
        if name in told:
            assert sorted(getattr(found, name)) == sorted(told[name]), found
    assert all(each in "; ".join(found.why) for each in told.get("says", ())), found
