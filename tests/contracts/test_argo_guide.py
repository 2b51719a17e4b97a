"""The guide to Argo is true: its commands are taken, its files and parameters are what is compiled, its words are said."""

import re
import shlex
from pathlib import Path

from pipelines.engines.argo.emit import emit, parameters
from pipelines.engines.argo.remote import NAMESPACE, VARIABLES
from pipelines.engines.flow import Notice, Times
from tests.contracts.documents import wrong
from tests.pipelines.engines.argo.compiled import SETTINGS, flow

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "argo.md").read_text()


def commands() -> list[str]:
    return [line.strip().partition("  ")[0] for line in TEXT.splitlines() if re.match(r" {4}wfm ", line)]


def test_its_commands_are_taken() -> None:
    assert len(commands()) >= 4
    assert [(line, fault) for line in commands() if (fault := wrong(shlex.split(line)))] == []


def test_its_files_and_parameters_are_those_that_are_compiled() -> None:
    one = flow("curate", "smoke", times=Times(("0 3 * * *",), "Etc/UTC"), notice=Notice(f"c@sha256:{'d' * 64}", "chat"))
    for file in emit(one, SETTINGS):
        assert f"`{file}`" in TEXT
    for parameter in parameters(one):
        assert f"`{parameter['name']}`" in TEXT
    assert "workflowtemplate/world-model-demo-cluster" in TEXT


def test_its_variables_are_those_that_are_read() -> None:
    read = {VARIABLES.server, VARIABLES.token, VARIABLES.token_file, VARIABLES.ca_file, NAMESPACE}
    assert set(re.findall(r"ARGO_(?!POD)[A-Z_]+", TEXT)) == read


def test_its_words_are_said() -> None:
    code = "".join(path.read_text() for path in (ROOT / "pipelines").rglob("*.py"))
    for said in re.findall(r"^\| plan: `([^`]+)`", TEXT, re.MULTILINE):
        for piece in filter(None, (piece.strip(" :") for piece in said.split("…"))):
            assert piece in code or piece in (ROOT / "wfm" / "artifacts" / "runs.py").read_text(), piece
