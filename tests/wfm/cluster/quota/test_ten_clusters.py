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
