"""Keys: what an artifact is called before it exists.

    key      = sha256(stage, code id, ``what`` half of the config, keys of the inputs, what was seen outside, redo nonce)
    part key = sha256(stage, code id, ``what`` half of the config, digests of the part's own inputs)

The code id is the stage's version if the hash of its import closure equals the one in ``lock.json``, else that hash: a
comment changes nothing, an edited filter changes everything it touches. The closure is read from the source (`meaning.py`:
comments and docstrings stripped), the ground floor and this contract left out. git is never asked.
"""

import functools
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from components.meaning import Import, KeptMeanings, Meaning
from wfm.artifacts.address import cache_root

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
    "components.meaning",
    "wfm.curation",
    "wfm.parts",
    "wfm.parts.workers",
)
"""Modules whose change does not change a code id: they are contracts with versions of their own, and `wfm.parts.workers`,
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
    return {module: _meaning(str(_file_of(module))).digest for module in closure(component)}


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


def keep_meanings() -> None:
    """Keep what was read of the sources for the next process. Planners call it; a stage that follows one finds all."""
    _kept().save()


def _file_of(module: str) -> Path | None:
    return _file_below(ROOT, module)


@functools.cache  # asked thousands of times for a plan
def _file_below(root: Path, module: str) -> Path | None:
    base = os.path.join(root, *module.split("."))
    return next((Path(path) for path in (f"{base}.py", f"{base}/__init__.py") if os.path.isfile(path)), None)


def _is_package(module: str) -> bool:
    path = _file_of(module)
    return path is not None and path.name == "__init__.py"


def _modules_of(package: str) -> Iterator[str]:
    folder = ROOT.joinpath(*package.split("."))
    yield from (f"{package}.{path.stem}" for path in sorted(folder.glob("*.py")) if path.stem != "__init__")


def _imports_of(module: str) -> tuple[str, ...]:
    path = _file_of(module)
    if path is None:
        return ()
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return _resolved(ROOT, package, _meaning(str(path)).imports)


@functools.cache
def _resolved(root: Path, package: str, imports: tuple[Import, ...]) -> tuple[str, ...]:
    """The modules of this repository that imports written in ``package`` may load."""
    found = []
    for level, module, names in imports:
        base = module
        if level:
            parent = package.split(".")[: len(package.split(".")) - level + 1]
            base = ".".join([*parent, base] if base else parent)
        for name in (base, *(f"{base}.{each}" for each in names)):
            if name.split(".")[0] not in PACKAGES:
                continue
            if _file_of(name) is not None:
                found.append(name)
            elif _is_package(name.rpartition(".")[0]):
                # A name taken from a package may be re-exported lazily: any of its modules may be the one.
                found += _modules_of(name.rpartition(".")[0])
    return tuple(found)


@functools.cache
def _kept() -> KeptMeanings:
    return KeptMeanings(cache_root() / "meanings")


@functools.cache
def _meaning(path: str) -> Meaning:
    """What a file means, as it was when this process first asked."""
    return _kept().of(Path(path).read_bytes())
