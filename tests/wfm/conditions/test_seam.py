"""Outside the conditions, families and networks no file imports one or asks which it has: read from the sources."""

import ast
from collections.abc import Iterator

import pytest

from components.derivation import PACKAGES, ROOT
from wfm.conditions.condition import CONDITIONS
from wfm.models.family import FAMILIES

OWN = (
    "wfm/conditions", "wfm/families", "wfm/models/convert", "wfm/models/presets.py", "wfm/recipes",
    *(f"wfm/models/{name}" for name in FAMILIES.built_in),
)  # fmt: skip
"""Here a condition may be named: the networks have fields of their own for some."""
ASKED = ("slots", "conditions", "condition", "condition.name", "replaced", "replaces", "readers")
"""How an expression ends that holds names of conditions. (`text`, `action` and `camera` are words of much else.)"""

LEFT = {"wfm/generation/reading.py: imports past", "wfm/generation/reading.py: imports action"}
"""Every world model continues a past, whether its configuration says so or not, and every model's card says what its actions
mean: a stage that opens one runs their code, which must be in its key even where its config names no condition."""


def faults(tree: ast.Module) -> Iterator[str]:
    """What a file does with a particular condition."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from _imports(*(alias.name for alias in node.names))
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from _imports(*(f"{node.module}.{alias.name}" for alias in node.names))
        elif isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(ast.unparse(side).endswith(ASKED) for side in sides):
                yield from (f"asks for {name}" for side in sides for name in _named(side))
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith(ASKED):
            yield from (f"asks for {name}" for name in _named(node.slice))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(tuple(f"{one}.get" for one in ASKED)):
            yield from (f"asks for {name}" for name in _named(node.args[0]))


def _imports(*names: str) -> Iterator[str]:
    for module in names:
        for condition in CONDITIONS.built_in:
            own = CONDITIONS.path(condition).partition(":")[0]
            if f"{module}.".startswith(f"{own}."):
                yield f"imports {condition}"


def _named(node: ast.expr) -> list[str]:
    """The conditions whose names an expression holds."""
    inside = node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]
    return [each.value for each in inside if isinstance(each, ast.Constant) and each.value in CONDITIONS.built_in]


def test_no_file_outside_names_a_condition() -> None:
    found = set()
    for package in (*PACKAGES, "pipelines"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if not name.startswith(OWN):
                found |= {f"{name}: {fault}" for fault in faults(ast.parse(path.read_text()))}
    assert found == LEFT


@pytest.mark.parametrize(
    ("planted", "says"),
    [
        ("from wfm.conditions.text import Text\n", "imports text"),
        ("from wfm.conditions import camera\n", "imports camera"),
        ("def f():\n    import wfm.conditions.past\n", "imports past"),
        ("if 'camera' in model.config.slots:\n    pass\n", "asks for camera"),
        ("if condition.name in ('past', 'depth'):\n    pass\n", "asks for past"),
        ("width = config.slots['action'].width\n", "asks for action"),
        ("width = config.conditions.get('text')\n", "asks for text"),
    ],
)
def test_what_is_planted_is_found(planted: str, says: str) -> None:
    assert says in list(faults(ast.parse(planted)))


def test_what_is_called_by_the_same_words_is_none() -> None:
    assert list(faults(ast.parse("if kind == 'text':\n    table['action'] = inputs.get('camera')\n"))) == []
