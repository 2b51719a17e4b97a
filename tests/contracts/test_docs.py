"""All pages are true where a machine can tell: links, commands, options, paths, settings, variables of the environment."""

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.commands.cli import app
from pipelines.needs import ClusterNeeds
from pipelines.nodes import config_class
from pipelines.plan import PIPELINES, recipe, shape
from pipelines.stages import STAGES
from tests.contracts import commands_page
from tests.contracts.documents import (
    FENCE,
    LINK,
    ROOT,
    Line,
    anchors,
    blocks,
    command_tree,
    commands,
    pages,
    refused,
    spans,
)
from wfm.cluster.resources import Resources
from wfm.config import knows
from wfm.errors import ConfigError

DOCS = {name: text for name, text in pages().items() if name.startswith("docs/")}
SETTING = re.compile(r"(?<![\w./-])([a-z_]+)\.([a-z_.]+)=")
VARIABLE = re.compile(r"\bWFM_[A-Z][A-Z_]*[A-Z]\b")
INSIDE = re.compile(r"WFM_(TEST|FUZZ|TOY|BENCHMARK)_")
"""Of tests alone."""
READ = (".py", ".yaml", ".json", ".sh", ".j2")
CHEAP = re.compile(r"wfm (models (list|show (ar|diffusion)-)|cluster lint manifests|run \w+ --profile smoke --dry-run)")
"""Commands that make nothing, and so are run."""
LONGEST_README = 100


def said() -> Iterator[Line]:
    for page, text in pages().items():
        yield from commands(text, page)


def wrong_links(page: str, text: str) -> list[str]:
    """Links of a page that lead nowhere, or from the documents to what a site of them does not have."""
    wrong = []
    for target in LINK.findall(re.sub(r"`[^`]*`", "", FENCE.sub("", text))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        outside = page.startswith("docs/") and ROOT / "docs" not in path.resolve().parents
        if outside or not path.is_file() or (anchor and anchor not in anchors(path.read_text())):
            wrong.append(target)
    return wrong


def test_links_lead_somewhere() -> None:
    assert {name: wrong for name, text in pages().items() if (wrong := wrong_links(name, text))} == {}


def test_every_page_is_found_from_the_first() -> None:
    reached, todo = set(), ["docs/index.md"]
    while todo:
        page = todo.pop()
        if page in reached:
            continue
        reached.add(page)
        names = {target.partition("#")[0] for target in LINK.findall(DOCS[page])}
        todo += [f"docs/{name}" for name in names if name.endswith(".md") and "://" not in name]
    assert reached == set(DOCS)
    listed = re.findall(r"- .*: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(f"docs/{name}" for name in listed) == sorted(DOCS)


def test_each_page_begins_with_what_it_is_for() -> None:
    assert [name for name, text in DOCS.items() if not re.match(r"# \S.*\n\n[A-Za-z`]", text)] == []
    assert [name for name, text in DOCS.items() if re.search(r"<(?!br>)[a-z]+[ >]", _prose(text))] == [], "HTML"


def _prose(text: str) -> str:
    for block in blocks(text):
        for line in block.splitlines():
            text = text.replace(line, "")
    return re.sub(r"`[^`]*`", "", text)


def test_the_first_page_is_short() -> None:
    assert len(pages()["README.md"].splitlines()) <= LONGEST_README


def test_commands_are_taken() -> None:
    lines = [line for line in said() if line.words[0] == "wfm"]
    assert len(lines) > 100
    assert {str(line): says for line in lines if (says := refused(list(line.words)))} == {}


def test_what_costs_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("WFM_STORE", str(tmp_path / "store"))
    cheap = {line.words for line in said() if CHEAP.match(" ".join(line.words))}
    assert len(cheap) >= 4
    for words in sorted(cheap):
        done = CliRunner().invoke(app, words[1:])
        assert done.exit_code == 0, f"{shlex.join(words)}\n{done.output}"


def test_modules_and_targets_are_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    faults = []
    for line in said():
        if line.words[0] == "make":
            faults += [str(line) for word in line.words[1:] if "=" not in word and word not in targets]
        elif line.words[0] == "python":
            faults += [str(line)] * (importlib.util.find_spec(line.words[2]) is None)
            faults += [f"{line}: {word}" for word in _options(line) if f'"{word}"' not in _source(line.words[2])]
    assert faults == []


def _options(line: Line) -> list[str]:
    words = [word.partition("=")[0] for word in line.words[3:] if word.startswith("--")]
    ours = line.words[2].startswith(("components.", "tests.", "wfm.", "pipelines."))
    return words if ours else []


def _source(module: str) -> str:
    """What may read the options of a module: its own text, or that of the entry of all components."""
    text = (ROOT / f"{module.replace('.', '/')}.py").read_text()
    return text + "".join((ROOT / f"components/{name}.py").read_text() for name in ("entrypoint", "part_range"))


def test_settings_that_are_named_are_there() -> None:
    nodes = _nodes()
    named = {
        (page, *match)
        for page, text in pages().items()
        for code in (*blocks(text), *spans(text))
        for match in SETTING.findall(code)
        if match[0] in nodes or match[0] == "cluster"
    }
    assert len(named) > 20
    assert [one for one in sorted(named) if not _known(nodes, *one[1:])] == []


def _nodes() -> dict[str, str]:
    """Node or stage -> stage, of all pipelines and of what is optional in them."""
    shapes = [shape(pipeline, profile=profile) for pipeline in PIPELINES for profile in ("demo", "demo_cluster")]
    return {name: name for name in STAGES} | {node.name: node.stage for one in shapes for node in one.nodes}


def _known(nodes: dict[str, str], name: str, field: str) -> bool:
    """Whether a node (or a node of the stage) has the field, or the need."""
    path = field.split(".")
    if name not in nodes:
        return path[0] in ClusterNeeds.model_fields
    if path[0] in ("resources", "ranks"):
        return path[-1] in Resources.model_fields
    meant = [node for node, stage in nodes.items() if name in (node, stage)]
    given = [recipe("demo").get(node, {}) for node in meant]
    classes = [config_class(nodes[name], values if "family" in values else None) for values in given]
    return any(knows(path, one) for one in classes)


def test_options_of_a_run_are_taken() -> None:
    """Each `--set` of a command that runs or compiles, by the recipe that it names, or is told what file it lacks."""
    faults = {}
    for line in said():
        words = list(line.words)
        values = [words[index + 1] for index, word in enumerate(words[:-1]) if word == "--set"]
        if not values or words[1] not in ("run", "compile", "quota", "rerun"):
            continue
        profile = words[words.index("--profile") + 1] if "--profile" in words else "demo"
        try:
            shape(words[2], profile=profile, overrides=values)
        except ConfigError as error:
            faults[str(line)] = str(error)
    assert faults == {}


def test_the_page_of_commands_is_that_of_today() -> None:
    """Renewed by `make render`."""
    text = DOCS["docs/commands.md"]
    assert commands_page.renewed(text) == text, "docs/commands.md is not what the commands say: make render"
    shown = {" ".join(line.words[: name.count(" ") + 1]) for line in commands(text) for name in command_tree()}
    leaves = {name for name, one in command_tree().items() if not hasattr(one, "commands") and not one.hidden}
    assert leaves - shown == set(), "no example"


def test_variables_of_the_environment_are_described() -> None:
    folders = ("wfm", "components", "pipelines", "images", "manifests")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    texts = "\n".join(path.read_text() for path in files if path.suffix in READ or path.name == "Containerfile")
    read = {name for name in VARIABLE.findall(texts) if not INSIDE.match(name)}
    rows = re.findall(r"^\| `(WFM_[A-Z_]+)`", DOCS["docs/environment.md"], re.MULTILINE)
    assert len(set(rows)) == len(rows)
    assert set(rows) == read


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("See [there](nowhere.md).", "nowhere.md"),
        ("See [there](index.md#no-such-part).", "index.md#no-such-part"),
        ("See [the root](../README.md).", "../README.md"),
    ],
)
def test_a_link_that_leads_nowhere_is_found(text: str, fault: str) -> None:
    assert wrong_links("docs/start.md", text) == [fault]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("    wfm nothing x\n", "nothing"),
        ("    WFM_STORE=s here | wfm run curate --profle demo  # said\n", "--profle"),
        ("```\nwfm explain last\n```\n", "stage"),
        ("    wfm runs --limit many\n", "--limit"),
        ("    wfm artifacts pull \\\n        dataset/x\n", "out'"),
    ],
)
def test_a_command_that_is_not_taken_is_found(text: str, fault: str) -> None:
    (line,) = commands(text)
    assert fault in refused(list(line.words)).lower()


def test_anchors_are_those_of_both_worlds() -> None:
    """GitHub makes two dashes of a sign between blanks where a site tool makes one: no heading of ours has that."""
    text = "# The `wfm run` command\n\n## 4. What it says, and why\n\n## Twice\n\n## Twice\n"
    assert anchors(text) == {"the-wfm-run-command", "4-what-it-says-and-why", "twice", "twice-1"}
    assert [name for name, text in pages().items() if any("--" in anchor for anchor in anchors(text))] == []


def test_a_setting_that_is_not_there_is_found() -> None:
    nodes = _nodes()
    assert _known(nodes, "select_clips", "minimum_motion")
    assert not _known(nodes, "select_clips", "minimum_motoin")
    assert _known(nodes, "train_world_model", "training.learning_rate")
    assert not _known(nodes, "train_autoregressive", "diffusion.fps_positions")
    assert not _known(nodes, "encode_latents", "resources.gpus")
    assert not _known(nodes, "cluster", "gpus_of_it")
