"""No file outside the families imports one's modules, or asks which family it has: read from the sources."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.derivation import PACKAGES, ROOT
from wfm.models.family import FAMILIES

NETWORKS = {name: f"wfm.models.{name}" for name in FAMILIES.built_in}
OWN = (
    "wfm/families", "wfm/models/convert", "wfm/models/presets.py", "wfm/recipes",
    *(package.replace(".", "/") for package in NETWORKS.values()),
)  # fmt: skip
"""Families, their network packages, converters, presets and recipes: here a family may be named."""
WORDS = frozenset(FAMILIES.built_in) - {"tokenizer"}
"""Names that stand for families wherever they are met; `tokenizer` is the name of a role too, and is one beside `family`."""


ASKED = ("family", "family.name", "['family']")
"""How an expression ends that is a family's name."""


def outside() -> list[Path]:
    files = [path for package in (*PACKAGES, "pipelines") for path in sorted((ROOT / package).rglob("*.py"))]
    return [path for path in files if not path.relative_to(ROOT).as_posix().startswith(OWN)]


def faults(tree: ast.Module, constants: frozenset[str] = frozenset()) -> Iterator[str]:
    """What a file does that only a family may; `constants`: names of other files that hold a family's name."""
    named = constants | constants_of(tree)
    told = _docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (_imported(node, alias.name) for alias in node.names if _is_of_a_family(alias.name))
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (_imported(node, name) for name in names if _is_of_a_family(name))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in told:
            if _is_of_a_family(node.value.partition(":")[0]):
                yield _imported(node, node.value)
        elif isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            asks = any(ast.unparse(side).endswith(ASKED) for side in sides)
            if any(_names(side, named, FAMILIES.built_in if asks else WORDS) for side in sides):
                yield f"line {node.lineno}: compares with a family: {ast.unparse(node)}"
        elif isinstance(node, ast.Dict):
            if any(key is not None and _names(key, named, WORDS) for key in node.keys):
                yield f"line {node.lineno}: a family is a key: {ast.unparse(node)[:80]}"
        elif isinstance(node, ast.Subscript) and _names(node.slice, named, WORDS):
            yield f"line {node.lineno}: looks a family up: {ast.unparse(node)}"
        elif isinstance(node, ast.MatchValue) and _names(node.value, named, WORDS):
            yield f"line {node.lineno}: matches a family: {ast.unparse(node)}"


def constants_of(tree: ast.Module) -> frozenset[str]:
    """Names at the top of a file that hold a family's name, or several."""
    found = set()
    for node in tree.body:
        if (
            isinstance(node, ast.Assign | ast.AnnAssign)
            and node.value is not None
            and _names(node.value, frozenset(), WORDS)
        ):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                parts = target.elts if isinstance(target, ast.Tuple) else [target]
                found |= {part.id for part in parts if isinstance(part, ast.Name) and part.id != "__all__"}
    return frozenset(found)


def _names(node: ast.AST, constants: frozenset[str], words: object) -> bool:
    """Whether an expression is a family's name, a constant that holds one, or a collection with one in it."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str) and node.value in words  # type: ignore[operator]
    if isinstance(node, ast.Name):
        return node.id in constants
    if isinstance(node, ast.Attribute):
        return node.attr in constants
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return any(_names(each, constants, words) for each in node.elts)
    return False


def _is_of_a_family(module: str) -> bool:
    packages = [*NETWORKS.values(), *(f"wfm.families.{name}" for name in FAMILIES.built_in)]
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def _imported(node: ast.stmt | ast.expr, name: str) -> str:
    return f"line {node.lineno}: a family's module: {name}"


def _docstrings(tree: ast.Module) -> set[ast.expr]:
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def test_nothing_outside_names_a_family() -> None:
    trees = {path: ast.parse(path.read_text()) for path in outside()}
    constants = frozenset(name for tree in trees.values() for name in constants_of(tree))
    found = [f"{path.relative_to(ROOT)}, {fault}" for path, tree in trees.items() for fault in faults(tree, constants)]
    assert found == [], "\n".join(found)


@pytest.mark.parametrize(
    ("planted", "says"),
    [
        (
            "def f():\n    from wfm.models.diffusion.denoiser import Denoiser\n",
            "a family's module: wfm.models.diffusion.den",
        ),
        ("from wfm.families import diffusion\n", "a family's module: wfm.families.diffusion"),
        ("load('wfm.families.autoregressive.fit:FITTING')\n", "a family's module: wfm.families.auto"),
        ("if config.family == 'diffusion':\n    pass\n", "compares with a family"),
        ("if card.family != 'tokenizer':\n    pass\n", "compares with a family"),
        ("if name in ('greedy', 'autoregressive'):\n    pass\n", "compares with a family"),
        ("STEPS = {'diffusion': 4, 'autoregressive': 1}[name]\n", "a family is a key"),
        ("head = titles['diffusion_decoder']\n", "looks a family up"),
        ("match name:\n    case 'diffusion':\n        pass\n", "matches a family"),
        ("DREAMER = 'diffusion'\nif name == DREAMER:\n    pass\n", "compares with a family"),
        ("from pipelines.words import DREAMER\nif name == DREAMER:\n    pass\n", "compares with a family"),
    ],
)
def test_what_is_planted_is_found(planted: str, says: str) -> None:
    elsewhere = frozenset({"DREAMER"} if "import DREAMER" in planted else ())
    assert any(says in fault for fault in faults(ast.parse(planted), elsewhere))


def test_a_role_that_is_called_tokenizer_is_none() -> None:
    assert list(faults(ast.parse("if video == 'tokenizer':\n    inputs['tokenizer'] = {'tokenizer': 1}\n"))) == []
