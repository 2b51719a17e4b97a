"""Keys: what an artifact is called before it exists.

    key      = sha256(stage, code id, ``what`` half of the config, keys of the inputs, what was seen outside, redo nonce)
    part key = sha256(stage, code id, ``what`` half of the config, digests of the part's own inputs)

The code id is the stage's version if the hash of its import closure equals the one in ``lock.json``, else that hash: a
comment changes nothing, an edited filter changes everything it touches. The closure is read from the source, comments and
docstrings stripped, the ground floor and this contract left out. git is never asked.
"""

import ast
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCK_FILE = Path(__file__).resolve().parent / "lock.json"
PACKAGES = ("wfm", "components")
GROUND_FLOOR = (
    "wfm",
    "wfm.artifacts",
    "wfm.records",
    "wfm.config",
    "wfm.credentials",
    "wfm.errors",
    "wfm.log",
    "wfm.process",
    "components",
    "components.entrypoint",
    "components.context",
    "components.derivation",
    "wfm.curation",
    "wfm.curation.run",
)
"""Modules whose change does not change a code id: they are contracts with versions of their own, and `wfm.curation.run`,
which decides where parts are made and never what is in them."""


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: the same value gives the same bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def derive_key(
    stage: str,
    code_id: str,
    what: Mapping[str, Any],
    inputs: Mapping[str, str],
    *,
    outside: Any = None,
    redo: str = "",
) -> str:
    """The key of an artifact, 64 hex digits."""
    parts: dict[str, Any] = {"stage": stage, "code": code_id, "what": dict(what), "inputs": dict(inputs)}
    if outside is not None:
        parts["outside"] = outside
    if redo:
        parts["redo"] = redo
    return hashlib.sha256(canonical(parts)).hexdigest()


def derive_part_key(stage: str, code_id: str, what: Mapping[str, Any], inputs: Any, *, redo: str = "") -> str:
    """The key of a part, 64 hex digits. Its name is not in it, so equal work is shared."""
    parts: dict[str, Any] = {"part of": stage, "code": code_id, "what": dict(what), "inputs": inputs}
    if redo:
        parts["redo"] = redo
    return hashlib.sha256(canonical(parts)).hexdigest()


def code_id(component: str) -> str:
    """The locked version, such as ``v1``, or the closure's own hash when the code has moved on from the lock."""
    found = closure_hash(component)
    locked = read_lock().get(component)
    return f"v{locked['version']}" if locked is not None and locked["hash"] == found else found


def read_lock() -> dict[str, dict[str, str]]:
    """``{component: {version, hash}}`` as ``wfm lock`` wrote it; empty without a lock file."""
    return json.loads(LOCK_FILE.read_text()) if LOCK_FILE.exists() else {}


def closure_hash(component: str) -> str:
    """sha256 over the meaning of every module that a component can load from this repository."""
    return hashlib.sha256(canonical(module_hashes(component))).hexdigest()


def module_hashes(component: str) -> dict[str, str]:
    """What the closure's hash is made from: module name -> hash of its meaning."""
    return {module: _meaning(str(_file_of(module))) for module in closure(component)}


@functools.cache
def closure(component: str) -> tuple[str, ...]:
    """Names of the modules of this repository that ``components.<component>`` imports, at any depth, sorted."""
    seen: set[str] = set()
    waiting = [f"components.{component}"]
    while waiting:
        module = waiting.pop()
        if module in seen or in_ground_floor(module) or _file_of(module) is None:
            continue
        seen.add(module)
        waiting += _imports_of(module)
        waiting.append(module.rpartition(".")[0])  # importing a.b.c runs a.b's __init__ too
    return tuple(sorted(seen))


def in_ground_floor(module: str) -> bool:
    """Whether a module is left out of closures."""
    return module in ("", *GROUND_FLOOR) or module.startswith("wfm.artifacts.")


def _file_of(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _is_package(module: str) -> bool:
    path = _file_of(module)
    return path is not None and path.name == "__init__.py"


def _modules_of(package: str) -> Iterator[str]:
    folder = ROOT.joinpath(*package.split("."))
    yield from (f"{package}.{path.stem}" for path in sorted(folder.glob("*.py")) if path.stem != "__init__")


def _imports_of(module: str) -> Iterator[str]:
    path = _file_of(module)
    if path is None:
        return
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            candidates = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parent, base] if base else parent)
            candidates = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in candidates:
            if name.split(".")[0] not in PACKAGES:
                continue
            if _file_of(name) is not None:
                yield name
            elif _is_package(name.rpartition(".")[0]):
                # A name taken from a package may be re-exported lazily: any of its modules may be the one.
                yield from _modules_of(name.rpartition(".")[0])


@functools.cache
def _meaning(path: str) -> str:
    """Hash of a file's syntax tree without comments, docstrings and positions."""
    tree = ast.parse(Path(path).read_bytes())
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            statements = getattr(node, field, None)
            if isinstance(statements, list):
                setattr(node, field, [statement for statement in statements if not _is_text(statement)])
    return hashlib.sha256(ast.dump(tree, include_attributes=False).encode()).hexdigest()


def _is_text(statement: ast.AST) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
