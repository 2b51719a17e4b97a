"""What has one home has no second: read from the source of every file, and shown to go red on a planted twin."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(path for room in ("wfm", "components", "pipelines") for path in (ROOT / room).rglob("*.py"))
TREES = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text()) for path in FILES}


def calls(tree: ast.AST) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def name_of(call: ast.Call) -> str:
    return ast.unparse(call.func)


def gives_a_name(tree: ast.AST) -> bool:
    """Renames or links a file: os.replace, os.rename, os.link, shutil.move, or a path's own rename, replace, hardlink_to.

    `str.replace` takes two arguments; the store's `replace(path, data)` and a record's `replace(**fields)` are no path's.
    """
    for call in calls(tree):
        module, _, verb = name_of(call).rpartition(".")
        if module in ("os", "shutil") and verb in ("replace", "rename", "renames", "link", "move"):
            return True
        if module and verb in ("rename", "replace", "hardlink_to") and len(call.args) == 1 and not call.keywords:
            return True
    return False


def hashes_a_file(tree: ast.AST) -> bool:
    """sha256 of a file's bytes: hashlib.file_digest, sha256(path.read_bytes()), or one digest of what a function opens."""
    if any(name_of(call).endswith("file_digest") for call in calls(tree)):
        return True
    for call in calls(tree):
        of = call.args[0] if call.args else None
        if name_of(call).endswith("sha256") and isinstance(of, ast.Call) and name_of(of).endswith(".read_bytes"):
            return True
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            names = [name_of(call).rpartition(".")[2] for call in calls(function)]
            if "open" in names and "sha256" in names and "update" in names and "write" not in names:
                return True
    return False


def seeds(tree: ast.AST) -> bool:
    """A whole number of 8 bytes or more of a digest, shifted into the range of a seed."""
    shifts = [node for node in ast.walk(tree) if isinstance(node, ast.BinOp) and isinstance(node.op, ast.RShift)]
    return any("from_bytes" in ast.unparse(node) for node in shifts)


def takes_decibels(tree: ast.AST) -> bool:
    """Ten times a logarithm of base 10."""
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            sides = [ast.unparse(side) for side in (node.left, node.right)]
            if any(side in ("10", "-10", "10.0", "-10.0", "20", "-20") for side in sides) and "log10" in "".join(sides):
                return True
    return False


def opens_an_artifacts_model(tree: ast.AST) -> bool:
    """Copies a folder out of an artifact and loads a model from it."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            text = {name_of(call).rpartition(".")[2] for call in calls(function)}
            if "load_model" in text and text & {"fetch_tree", "fetch_model"}:
                return True
    return False


def writes_a_windows_row(tree: ast.AST) -> bool:
    """A dictionary of where a window comes from, key by key."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            keys = {key.value for key in node.keys if isinstance(key, ast.Constant)}
            if {"sample_id", "start_frame", "start_seconds", "source"} <= keys:
                return True
    return False


HOMES = [
    # the guard is a script of its own, which imports nothing of ours
    (
        gives_a_name,
        {"wfm/artifacts/atomic.py", "pipelines/engines/guard.py"},
        "def f(a, b):\n    a.with_suffix('.tmp').replace(b)",
    ),
    (hashes_a_file, {"wfm/artifacts/verified.py"}, "x = hashlib.sha256(path.read_bytes()).hexdigest()"),
    (seeds, {"wfm/data/seeds.py"}, "x = int.from_bytes(digest[:8], 'big') >> 1"),
    # decibels of a ratio of two powers, no PSNR: tiles' edges
    (
        takes_decibels,
        {"wfm/data/psnr.py", "wfm/models/tokenizer/tiling.py"},
        "x = -10 * error.clamp(min=1e-10).log10()",
    ),
    (
        opens_an_artifacts_model,
        {"wfm/models/folder.py"},
        "def f(a, b):\n    a.fetch_tree('m/', b)\n    return load_model(b)",
    ),
    (
        writes_a_windows_row,
        {"wfm/data/windows.py"},
        "{'sample_id': 1, 'start_frame': 2, 'start_seconds': 3, 'source': 4}",
    ),
]


@pytest.mark.parametrize(("does", "homes", "twin"), HOMES, ids=[does.__name__ for does, _, _ in HOMES])
def test_it_is_done_in_one_place(does, homes, twin) -> None:
    found = {path for path, tree in TREES.items() if does(tree)}
    assert found - homes == set()
    assert does(ast.parse(twin)), "the planted twin was not seen"
