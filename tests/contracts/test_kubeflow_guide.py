"""The guide to Kubeflow Pipelines is true: its commands are there, its objects are taken, its parameters are the template's."""

import ast
import inspect
import re
from pathlib import Path

import yaml
from kfp.client import Client

from pipelines.engines.flow import Flow, tasks_of
from pipelines.engines.kubeflow.emit import ACCOUNT, emit
from pipelines.engines.kubeflow.remote import EXPERIMENT, NAMESPACE, PATIENCE_SECONDS, VARIABLES
from pipelines.plan import shape
from tests.cluster import strict
from tests.contracts.documents import wrong
from tests.contracts.test_cluster_guide import example
from wfm.artifacts import Store

TEXT = (Path(__file__).parents[2] / "docs" / "kubeflow.md").read_text()
BLOCKS = re.findall(r"(?:^    .*\n|^\n(?=    ))+", TEXT, re.MULTILINE)
CODE = [re.sub("^    ", "", one, flags=re.MULTILINE).strip() for one in BLOCKS]


def test_its_objects_are_taken() -> None:
    (text,) = [one for one in CODE if one.startswith("apiVersion")]
    policy = yaml.safe_load(text)
    assert strict.faults(policy) == []
    policy["spec"]["egres"] = policy["spec"].pop("egress")
    assert strict.faults(policy)


def test_its_commands_are_there() -> None:
    lines = [line for one in CODE for line in one.splitlines() if line.startswith("wfm ")]
    assert len(lines) > 2
    assert {line: says for line in lines if (says := wrong(line.partition("#")[0].split()))} == {}
    (text,) = [re.search(r"<<'END'\n(.*)END", one, re.DOTALL) for one in CODE if "<<'END'" in one]
    assert text is not None
    call = ast.parse(text[1]).body[-1].value  # type: ignore[attr-defined]
    words = {one.arg: ast.literal_eval(one.value) for one in call.keywords}
    inspect.signature(getattr(Client, call.func.attr)).bind(None, *call.args, **words)
    assert words["service_account"] == ACCOUNT


def test_its_variables_are_those_that_are_read() -> None:
    read = {VARIABLES.server, VARIABLES.token, VARIABLES.token_file, VARIABLES.ca_file, NAMESPACE}
    assert set(re.findall(r"KF_PIPELINES_[A-Z_]+", TEXT)) == read
    assert f"ended in {PATIENCE_SECONDS:.0f} seconds" in TEXT
    assert f"experiment *{EXPERIMENT}*" in TEXT


def test_its_parameters_and_files_are_the_templates(tmp_path: Path) -> None:
    plan = shape("curate", profile="demo_cluster", store=Store.open(tmp_path / "store"))
    made = emit(Flow("curate", "curate", "demo_cluster", tasks_of(plan.nodes)), example())
    rows = re.findall(r"^\| (`.*?) \| ", TEXT, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([\w.-]+)`", row)}
    assert named - {"recurringrun-1.yaml"} == {
        *made,
        *made["pipeline.yaml"][0]["root"]["inputDefinitions"]["parameters"],
    }
