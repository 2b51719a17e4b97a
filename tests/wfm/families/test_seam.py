"""No file outside the families imports one's modules, or asks which family it has: read from the sources."""

import ast
from collections.abc import Iterable, Iterator
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


ASKED = ("family", "family.name", "['family']", "family_name")
"""How an expression ends that is a family's name."""
HOMES = {"wfm/models/family.py", "wfm/training/config.py"}
"""The registry of families, and the default of the stage that trains decoders: here a name is written out, and not compared."""


def outside() -> list[Path]:
    return [path for path in sources() if not path.relative_to(ROOT).as_posix().startswith(OWN)]


def sources() -> list[Path]:
    return [path for package in (*PACKAGES, "pipelines") for path in sorted((ROOT / package).rglob("*.py"))]


def faults(
    tree: ast.Module, constants: frozenset[str] = frozenset(), *, package: str = "wfm.generation", home: bool = False
) -> Iterator[str]:
    """What a file of `package` does that only a family may; `constants`: names of other files that hold a family's name;
    `home`: whether it may write a name out."""
    named = constants | constants_of(ast.walk(tree))
    silent = _docstrings(tree) | _offered(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (_imported(node, alias.name) for alias in node.names if _is_of_a_family(alias.name))
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, package)
            names = [f"{base}.{alias.name}" for alias in node.names]
            yield from (_imported(node, name) for name in names if _is_of_a_family(name))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in silent:
            if _is_of_a_family(node.value.partition(":")[0]):
                yield _imported(node, node.value)
            elif node.value in WORDS and not home:
                yield f"line {node.lineno}: names a family: {node.value}"
        elif isinstance(node, ast.keyword) and node.arg in WORDS:
            yield f"line {node.lineno}: names a family: {node.arg}"
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
        elif isinstance(node, ast.Match):
            words = FAMILIES.built_in if ast.unparse(node.subject).endswith(ASKED) else WORDS
            patterns = [each for case in node.cases for each in ast.walk(case.pattern)]
            for each in patterns:
                if isinstance(each, ast.MatchValue) and _names(each.value, named, words):
                    yield f"line {each.lineno}: matches a family: {ast.unparse(each)}"


def constants_of(nodes: Iterable[ast.AST]) -> frozenset[str]:
    """Names that hold a family's name, or several, by what is assigned among `nodes`."""
    found = set()
    for node in nodes:
        if not isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) or node.value is None:
            continue
        if _names(node.value, frozenset(), WORDS):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
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
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("frozenset", "set", "tuple", "list"):
        return any(_names(each, constants, words) for each in node.args)
    return False


def _base(node: ast.ImportFrom, package: str) -> str:
    """The module that names are taken from, dots resolved."""
    if not node.level:
        return node.module or ""
    words = package.split(".")
    return ".".join([*words[: len(words) + 1 - node.level], *([node.module] if node.module else [])])


def _is_of_a_family(module: str) -> bool:
    packages = [*NETWORKS.values(), *(f"wfm.families.{name}" for name in FAMILIES.built_in)]
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def _imported(node: ast.stmt | ast.expr, name: str) -> str:
    return f"line {node.lineno}: a family's module: {name}"


def _docstrings(tree: ast.Module) -> set[ast.expr]:
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def _offered(tree: ast.Module) -> set[ast.expr]:
    """What stands in `__all__`: rooms of a package, which may be called as a family is."""
    lists = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and ast.unparse(node.targets[0]) == "__all__"
        and isinstance(node.value, ast.List)
    ]
    return {each for one in lists for each in one.elts}


def test_nothing_outside_names_a_family() -> None:
    trees = {path: ast.parse(path.read_text()) for path in sources()}
    constants = frozenset(name for tree in trees.values() for name in constants_of(tree.body))
    found = []
    for path in outside():
        name = path.relative_to(ROOT)
        seen = faults(trees[path], constants, package=".".join(name.parent.parts), home=name.as_posix() in HOMES)
        found += [f"{name}, {fault}" for fault in seen]
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
        ("import words\nmatch card.family:\n    case words.DREAMER:\n        pass\n", "matches a family"),
        ("match card.family:\n    case 'tokenizer':\n        pass\n", "matches a family"),
        ("def f(card):\n    ours = 'diffusion'\n    return card.family == ours\n", "compares with a family"),
        (
            "class A:\n    OURS = 'diffusion'\n\n    def f(self, card):\n        return card.family == self.OURS\n",
            "compares",
        ),
        ("OURS = frozenset({'diffusion'})\nif name in OURS:\n    pass\n", "compares with a family"),
        ("from ..models.diffusion import network\n", "a family's module: wfm.models.diffusion"),
        ("if name.startswith('diffusion'):\n    pass\n", "names a family"),
        ("if card is FAMILIES.load('diffusion'):\n    pass\n", "names a family"),
        ("steps = dict(diffusion=4)\n", "names a family"),
        ("if card.family_name == 'tokenizer':\n    pass\n", "compares with a family"),
    ],
)
def test_what_is_planted_is_found(planted: str, says: str) -> None:
    elsewhere = frozenset({"DREAMER"} if "words" in planted else ())
    assert any(says in fault for fault in faults(ast.parse(planted), elsewhere))


def test_a_role_that_is_called_tokenizer_is_none() -> None:
    assert list(faults(ast.parse("if video == 'tokenizer':\n    inputs['tokenizer'] = {'tokenizer': 1}\n"))) == []
