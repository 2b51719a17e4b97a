"""What every command puts on a terminal of 80 columns and 24 lines, word for word.

A file of ``snapshots/`` holds command lines (``$ wfm runs``), each with what comes of it on `small_store` and, where it is not
0, the exit code; files with `RICH` in their commands are given `rich_store` as well. To add one write its line and run ``make
snapshots``, which renews all of them and ``docs/schemas/``; read the difference before you commit it. Files of
``snapshots/help/`` make themselves. A command without a snapshot fails here, and so does one that takes ``--json`` and has no
line with it.
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pydantic
import pytest
from wfm_fakes import cli as fakes
from wfm_fakes.workshop import FAKES

from pipelines.commands.catalogue import Card
from pipelines.commands.curate_report import Report
from pipelines.commands.duplicates import Duplicates
from pipelines.commands.submit import Submitted
from pipelines.commands.weights import Inspected
from tests.pipelines.commands import rich_store, small_store
from tests.pipelines.commands.terminal import COLUMNS, Terminal, asked, commands, steady
from tests.pipelines.engines.life_of_a_run import NODES, write_nodes
from wfm.artifacts import Store

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
SNAPSHOTS, HELP, SCHEMAS = HERE / "snapshots", HERE / "snapshots" / "help", ROOT / "docs" / "schemas"
RENEW = bool(os.environ.get("WFM_RENEW_SNAPSHOTS"))
VARIES = "# differs from machine to machine"
"""Behind a command line: only its form is looked at."""
NO_ANSWER = {
    "artifacts watch": "tells until it is stopped",
    "ui": "serves until it is stopped",
    "metrics serve": "serves until it is stopped",
    "cluster captioning": "serves until it is stopped",
}
"""Commands whose output has no snapshot but their help, and why."""
COMMANDS = dict(commands())
LEAVES = [path for path, command in COMMANDS.items() if not hasattr(command, "commands") and not command.hidden]
ELSEWHERE: dict[tuple[str, ...], type[pydantic.BaseModel]] = {
    ("submit",): Submitted, ("rerun",): Submitted, ("curate", "report"): Report, ("curate", "duplicates"): Duplicates,
    ("artifacts", "card"): Card, ("weights", "inspect"): Inspected,
}  # fmt: skip
"""Commands that begin a run, or need files that are not in this store (a curated data set, cards, weights): their answers are
tested there; the schemas are published here."""
FILES = sorted(SNAPSHOTS.glob("*.txt"))
RICH = "--store rich"
OF_FAKES = "life_of_a_run"
"""The file whose commands begin runs: of the fake stages `cut`, `train`, `judge`, as `tests/pipelines/engines/life_of_a_run.py`
has them."""


@contextmanager
def of_one_length() -> Iterator[Path]:
    """A folder whose name has the same length on every machine, wherever pytest has its own: stores remember where their files
    came from, and a line is wrapped by the length of what stands in it."""
    folder = Path(tempfile.mkdtemp(prefix="wfm-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    with of_one_length() as folder:
        small_store.make_files(folder)
        small_store.make(Store.open(folder / "wfm-store", {"fsync": False}))
        yield folder


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with of_one_length() as folder:
        store, films = Store.open(folder / "rich", {"fsync": False}), folder / "films"
        rich_store.make_videos(films)
        rich_store.make(store, films, tmp_path_factory.mktemp("scratch"))
        rich_store.make_files(folder, store, films)
        yield folder


@pytest.fixture
def place(made: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder of one's own, with the store in it, and the rich one for a file that names it."""
    file = request.node.callspec.params.get("file")
    with of_one_length() as folder:
        shutil.copytree(made, folder, dirs_exist_ok=True)
        small_store.make_home(folder / "home", Store.open(folder / "wfm-store"))
        if file is not None and RICH in file.read_text():
            shutil.copytree(request.getfixturevalue("rich"), folder, dirs_exist_ok=True)
        yield folder


@pytest.fixture
def terminal(place: Path, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.chdir(place)
    monkeypatch.setenv("WFM_HOME", str(place / "home"))
    for name in ("WFM_STORE", "WFM_ENGINE", "WFM_CLUSTER", "WFM_STORE_OPTIONS"):
        monkeypatch.delenv(name, raising=False)
    return Terminal(monkeypatch)


def hold(file: Path, text: str) -> None:
    """Compare with what is kept, or keep it."""
    if RENEW:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert file.exists(), (
        f"{file.relative_to(ROOT)} is not there: `make snapshots` makes it; look at it before you commit it"
    )
    assert text == file.read_text(), f"{file.relative_to(ROOT)} says otherwise: if that is meant, `make snapshots`"


def faults(text: str) -> list[str]:
    """Lines that do not fit, words that were cut, escapes meant for a markup. A word that is longer than a line stays whole."""
    too_long = [line for line in text.splitlines() if len(line.rstrip()) > COLUMNS and " " in line.strip()]
    whole = [line for line in too_long if max(map(len, line.split())) >= COLUMNS // 2]
    cut = [line for line in text.splitlines() if re.search(r"[A-Za-z0-9]…", line) or "\\[" in line]
    return [line for line in too_long if line not in whole] + cut


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: " ".join(path) or "wfm")
def test_help(terminal: Terminal, path: tuple[str, ...]) -> None:
    code, shown, _ = terminal(" ".join(["wfm", *path, "--help"]))
    assert code == 0
    assert faults(shown) == []
    hold(HELP / f"{'-'.join(path) or 'wfm'}.txt", shown)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_answers(terminal: Terminal, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if file.stem == OF_FAKES:
        as_fakes(monkeypatch)
    told: list[pydantic.BaseModel] = []
    dump = pydantic.BaseModel.model_dump_json
    monkeypatch.setattr(
        pydantic.BaseModel, "model_dump_json", lambda self, **how: told.append(self) or dump(self, **how)
    )
    whole = []
    for line in asked(file):
        told.clear()
        code, shown, out = terminal(line.removesuffix(VARIES))
        if "--json" in line.split() and (told or code in (0, 75)):
            valid(line, out, told)
        else:
            assert faults(shown) == []
        assert code != 1, f"{line}: a bug of ours: {shown}"
        text = "" if line.endswith(VARIES) else steady(shown, sizes=RICH not in line)
        whole += [f"$ {line}\n", text, "" if text.endswith("\n") or not text else "\n"]
        whole.append(f"(exit {code})\n" if code and not line.endswith(VARIES) else "")
    hold(file, "".join(whole))


def as_fakes(patch: pytest.MonkeyPatch) -> None:
    """Runs are of stages that do nothing, in processes of their own as any other."""
    Path("notes").mkdir()
    write_nodes(Path("notes/nodes.json").absolute(), NODES)
    patch.setenv("PYTHONPATH", os.pathsep.join([str(FAKES), str(ROOT)]))
    patch.setenv(fakes.NODES, str(Path("notes/nodes.json").absolute()))
    for where, name, what in fakes.PATCHES:
        patch.setattr(where, name, what)


def valid(line: str, shown: str, told: list[pydantic.BaseModel]) -> None:
    """One document and nothing else, of the model that the command gave to `say_json`, by the schema that is published."""
    answer = told[-1] if told else None  # sheets are written by the command before
    assert answer is not None, f"{line}: its answer is no model given to `say_json` (pipelines/commands/json_output.py)"
    schema = publish(command_of(line), type(answer))
    jsonschema.Draft202012Validator(schema).validate(json.loads(shown))


def publish(path: tuple[str, ...], model: type[pydantic.BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema(mode="serialization")
    hold(SCHEMAS / f"{'-'.join(path)}.json", json.dumps(schema, indent=1, sort_keys=True) + "\n")
    return schema


def test_schemas_of_answers_that_are_tested_elsewhere() -> None:
    for path, model in ELSEWHERE.items():
        publish(path, model)


def command_of(line: str) -> tuple[str, ...]:
    """The path of the command that a line calls: ``wfm artifacts show x`` -> ``("artifacts", "show")``."""
    words = line.split()[1:]
    return max((path for path in COMMANDS if tuple(words[: len(path)]) == path), key=len)


def test_every_command_is_here() -> None:
    there = {command_of(line) for file in FILES for line in asked(file)}
    lacking = [" ".join(path) for path in LEAVES if path not in there and " ".join(path) not in NO_ANSWER]
    assert lacking == [], "write a line `$ wfm COMMAND ...` into a file of tests/pipelines/commands/snapshots"
    in_json = {path for path in COMMANDS if (SCHEMAS / f"{'-'.join(path)}.json").exists()}
    takes = {path for path, command in COMMANDS.items() if any("--json" in each.opts for each in command.params)}
    takes -= {path for path in takes if " ".join(path) in NO_ANSWER}
    assert takes == in_json, "write a line with --json for each"
    helps = {file.stem for file in HELP.glob("*.txt")} - {"-".join(path) or "wfm" for path in COMMANDS}
    assert helps == set(), "snapshots of commands that are gone"
    schemas = {file.stem for file in SCHEMAS.glob("*.json")} - {"-".join(path) for path in in_json}
    assert schemas == set(), "schemas of answers that are gone"


def test_what_is_looked_for_is_found() -> None:
    """A twin of each fault."""
    assert faults("a word " * 12) != []
    assert faults("/a/long/path" * 10) == []
    assert faults("20260101T03…") != []
    assert faults("kind/name\\[@alias]") != []
    assert re.fullmatch(r"k{64} at 2026-01-01 00:00:00", steady("0a" * 32 + " at 2031-12-24 17:45:59"))
