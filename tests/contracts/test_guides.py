"""Guides are true: what README, CONTRIBUTING and the packages' own guides name is there."""

import ast
import functools
import importlib
import importlib.util
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.contracts import documents
from tests.contracts.documents import wrong

ROOT = Path(__file__).parents[2]
OURS = ("wfm", "components", "pipelines")
DOTTED = re.compile(r"(?<![\w./-])(?:wfm|components|pipelines|tests)(?:\.[A-Za-z_]\w*)+")
PATH = re.compile(r"(?<![\w./-])(?:wfm|components|pipelines|tests|images|manifests|docs|examples)/[\w./<>*-]*[\w>*/]")
CODE = re.compile(r"``([^`]+)``|`([^`]+)`")
ROOM = re.compile(r"^ *((?:[a-z_]\w*/?(?:, |  ))*[a-z_]\w*/?) {2,}\S", re.MULTILINE)
GROUPS = {"wfm.families", "wfm.conditions", "wfm.metrics"}
"""Groups of entry points, which are no modules."""
DOMAIN = "wfm.dev"
"""Of our labels on objects of a cluster."""


@functools.cache
def sources() -> dict[str, Path]:
    """Module -> its file, of everything of ours."""
    found = {}
    for top in OURS:
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def guides() -> dict[str, str]:
    """Package -> its guide."""
    packages = {name: path for name, path in sources().items() if path.name == "__init__.py"}
    return {name: ast.get_docstring(ast.parse(path.read_bytes())) or "" for name, path in packages.items()}


def pages() -> dict[str, str]:
    """Every text that is to be true."""
    return documents.pages() | guides()


def spans(text: str) -> Iterator[str]:
    """What stands in backticks, and in lines of code."""
    yield from (double or single for double, single in CODE.findall(text))
    yield from re.findall(r"^ {4}(\S.*)$", text, re.MULTILINE)


def there(name: str) -> bool:
    """Whether a dotted name is a module, or leads to something in one."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        module = ".".join(parts[:end])
        if (ROOT.joinpath(*parts[:end]).with_suffix(".py")).is_file() or ROOT.joinpath(*parts[:end]).is_dir():
            return end == len(parts) or has(module, parts[end:])
    return False


def has(module: str, names: list[str]) -> bool:
    found = importlib.import_module(module)
    for name in names:
        fields = getattr(found, "model_fields", {}) | getattr(found, "__dataclass_fields__", {})
        if name in fields and not hasattr(found, name):
            return True
        if not hasattr(found, name):
            return False
        found = getattr(found, name)
    return True


@pytest.mark.parametrize("package", sorted(guides()))
def test_names_that_a_package_offers_are_there(package: str) -> None:
    module = importlib.import_module(package)
    names = getattr(module, "__all__", ())
    assert len(set(names)) == len(names)
    missing = [
        name for name in names if not hasattr(module, name) and importlib.util.find_spec(f"{package}.{name}") is None
    ]
    assert missing == []


def test_modules_that_offer_names_have_them() -> None:
    for name, path in sources().items():
        if path.name != "__init__.py" and re.search(r"^__all__ = ", path.read_text(), re.MULTILINE):
            module: ModuleType = importlib.import_module(name)
            assert [one for one in module.__all__ if not hasattr(module, one)] == [], name


def test_dotted_names_are_there() -> None:
    texts = pages() | {f"{name} (source)": "\n".join(docstrings(path)) for name, path in sources().items()}
    missing = [
        f"{where}: {name}"
        for where, text in texts.items()
        for span in spans(text)
        for name in DOTTED.findall(span)
        if name not in (*GROUPS, DOMAIN) and not there(name)
    ]
    assert not missing, "not there: " + "; ".join(sorted(set(missing)))


def docstrings(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def test_paths_are_there() -> None:
    missing = [
        f"{where}: {path}"
        for where, text in pages().items()
        for span in spans(text)
        for path in PATH.findall(span)
        if not list(ROOT.glob(re.sub(r"<[^>]*>", "*", path).rstrip("/")))
    ]
    assert not missing, "not there: " + "; ".join(sorted(set(missing)))


def test_commands_are_there() -> None:
    told = {words for text in pages().values() for words in spans(text) if words.startswith(("wfm ", "make "))}
    assert {"wfm lock", "make check"} <= told
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    lines = [re.split(r"\s{2,}|[,;…#]", words)[0].split() for words in told]
    assert [
        line for line in lines if line[0] == "make" and not {word for word in line[1:] if "=" not in word} <= targets
    ] == []
    assert {" ".join(line): says for line in lines if line[0] == "wfm" and (says := wrong(line))} == {}


@pytest.mark.parametrize("package", sorted(guides()))
def test_rooms_are_there(package: str) -> None:
    """The words that the lines of a guide's table begin with are modules of the package (the root's: storeys)."""
    folder = ROOT if package == "wfm" else sources()[package].parent
    modules = {found.name for found in pkgutil.iter_modules([str(folder)])}
    rooms = [re.split(r"[ ,/]+", words) for words in ROOM.findall(guides()[package])]
    assert [room for room in rooms if not set(room) - {""} <= modules] == []


def test_what_is_not_there_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's own twin: one planted case of each kind."""
    package = "wfm.evaluation.metrics"
    guide = (
        f"Ask `{package}.nothing` or `wfm.records.Clip.nothing`, see `wfm/evaluation/<metric>/nothing.py`, `wfm nothing`.\n\n"
        "    psnr  nothing    what it is"
    )
    only = {package: sources()[package]}
    monkeypatch.setitem(globals(), "guides", lambda: {package: guide})
    monkeypatch.setitem(globals(), "sources", lambda: only)
    with pytest.raises(AssertionError, match=r"wfm\.evaluation\.metrics\.nothing.*wfm\.records\.Clip\.nothing"):
        test_dotted_names_are_there()
    with pytest.raises(AssertionError, match="metric>/nothing"):
        test_paths_are_there()
    with pytest.raises(AssertionError, match="no command 'nothing'"):
        test_commands_are_there()
    with pytest.raises(AssertionError, match="psnr"):
        test_rooms_are_there(package)
    monkeypatch.setattr(f"{package}.__all__", ["all_metrics", "nothing"])
    with pytest.raises(AssertionError, match="nothing"):
        test_names_that_a_package_offers_are_there(package)
