"""No circle between files, be it by imports in functions or for types only: what two files share lies in a third."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("wfm", "components", "pipelines")


def test_no_circle() -> None:
    found = circles(imports(ROOT))
    assert not found, "\n".join(" <-> ".join(circle) for circle in found)


@pytest.mark.parametrize(
    "back",
    [
        "from wfm import seen",
        "from wfm.seen import look",
        "import wfm.seen",
        "from .seen import look",
        "def late():\n    from wfm.seen import look",
        "class Late:\n    def late(self):\n        import wfm.seen as seen",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from wfm.seen import look",
        "try:\n    from wfm import nothing, seen\nexcept ImportError:\n    pass",
    ],
)
def test_a_planted_circle_is_found(tmp_path: Path, back: str) -> None:
    """Each of `back` closes a circle of three; without it there is none, nor by what stands in a text."""
    files = {
        "wfm/__init__.py": '"""Not: from wfm import seen."""',
        "wfm/seen.py": "from wfm import between\ndef look(): ...",
        "wfm/between.py": "from wfm.below import deepest",
        "wfm/below.py": "import json\ndeepest = 'import wfm.seen'",
        "wfm/alone.py": "from wfm.seen import look",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert circles(imports(tmp_path)) == []
    (tmp_path / "wfm/below.py").write_text(f"deepest = 1\n{back}\n")
    assert circles(imports(tmp_path)) == [["wfm.below", "wfm.between", "wfm.seen"]]


def imports(root: Path) -> dict[str, set[str]]:
    """Module -> the modules of `PACKAGES` that it names in an import, wherever in the file it stands."""
    files: dict[str, Path] = {}
    for path in (path for package in PACKAGES for path in (root / package).rglob("*.py")):
        words = path.relative_to(root).with_suffix("").parts
        files[".".join(words[:-1] if words[-1] == "__init__" else words)] = path
    found: dict[str, set[str]] = {}
    for module, path in files.items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        named = set(_named(ast.parse(path.read_text()), package, files))
        found[module] = named - {module}
    return found


def _named(tree: ast.Module, package: str, files: dict[str, Path]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            words = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*words, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:  # `from wfm.seen import look` names wfm.seen, `from wfm import seen` too
            home = name if name in files else name.rpartition(".")[0]
            if home in files:
                yield home


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one module (Tarjan), each sorted."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        number[module] = lowest[module] = len(number)
        path.append(module)
        for other in sorted(graph[module]):
            if other not in number:
                visit(other)
            if other in path:
                lowest[module] = min(lowest[module], lowest[other])
        if lowest[module] == number[module]:
            circle = path[path.index(module) :]
            del path[path.index(module) :]
            if len(circle) > 1:
                found.append(sorted(circle))

    for module in sorted(graph):
        if module not in number:
            visit(module)
    return sorted(found)
