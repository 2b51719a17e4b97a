"""Clusters written from the documentation of Kueue, and what can be admitted there."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.wfm.cluster.quota.jobs import job
from wfm.cluster.quota import gangs, judge, read_cluster

FILES = sorted((Path(__file__).parent / "clusters").glob("[0-9]*.yaml"))
CASES = [
    pytest.param(file, told, id=f"{file.stem}-{told['name']}")
    for file in FILES
    for told in yaml.safe_load(file.read_text())["jobs"]
]


def test_there_are_ten():
    assert len(FILES) >= 10
    assert all(yaml.safe_load(file.read_text())["reference"] for file in FILES)


@pytest.mark.parametrize(("file", "told"), CASES)
def test_what_can_be_admitted(file: Path, told: dict[str, Any]):
    cluster = read_cluster(yaml.safe_load(file.read_text())["objects"])
    (gang,) = gangs([job(told)], None)
    found = judge(gang, cluster)
    text = " | ".join((*found.reasons, *found.notes, *(found.choice or {}).values()))
    assert found.state == told["expected"], text
    assert all(str(each) in text for each in told.get("because", ())), text


def test_sets_of_a_jobset_are_added_up():
    """Two sets of 9 do not fit into 16 devices, which each would alone."""
    cluster = read_cluster(yaml.safe_load((FILES[0].parent / "06_gangs.yaml").read_text())["objects"])
    for gpus, state in ((8, "fits"), (9, "never")):
        told = {"name": "s", "queue": "research", "pods": 1, "requests": {"cpu": 1, "nvidia.com/gpu": gpus}}
        one = job(told)
        several = [{"name": name, "template": {"spec": one["spec"]}} for name in ("actor", "learner")]
        made = {**one, "apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "spec": {"replicatedJobs": several}}
        (gang,) = gangs([made], None)
        assert [each.name for each in gang.sets] == ["actor", "learner"]
        assert judge(gang, cluster).state == state
