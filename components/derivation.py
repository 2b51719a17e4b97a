"""Keys: what an artifact is called before it exists.

    key      = sha256(stage, code id, ``what`` half of the config, keys of the inputs, external inputs, redo nonce)
    part key = sha256(stage, code id, ``what`` half of the config, digests of the part's own inputs)

The code id is the stage's version if the hash of its import closure equals the one in ``lock.json``, else that hash: a
comment changes nothing, an edited filter changes everything it touches. The closure is read from the source (`meaning.py`:
comments and docstrings stripped), the ground floor and this contract left out. git is never asked.

What a config names (a family, a condition: `wfm.registry.Use`) has a closure, a version and a line in the lock of its own, and
stands in the code id beside the component's: ``v4+diffusion.fit.v1``. So an edit of one family moves no key of another's. A
plug-in of another package enters by the bytes of that package's files, and by what of this repository they import.
"""

import functools
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from components.meaning import Import, KeptMeanings, Meaning
from wfm.artifacts.address import cache_root
from wfm.errors import ConfigError
from wfm.registry import Use

ROOT = Path(__file__).resolve().parent.parent
LOCK_FILE = Path(__file__).resolve().parent / "lock.json"
PACKAGES = ("wfm", "components")
GROUND_FLOOR = (
    "wfm",
    "wfm.artifacts",
    "wfm.records",
    "wfm.caches",
    "wfm.config",
    "wfm.container",
    "wfm.crash_points",
    "wfm.credentials",
    "wfm.errors",
    "wfm.log",
    "wfm.process",
    "wfm.pulse",
    "wfm.registry",
    "wfm.stopping",
    "components",
    "components.entrypoint",
    "components.board",
    "components.gang",
    "components.image",
    "components.other_ranks",
    "components.outside",
    "components.rank_words",
    "components.context",
    "components.derivation",
    "components.make_artifact",
    "components.meaning",
    "components.part_range",
    "components.promotion",
    "components.stage_attempt",
    "components.stage_log",
    "components.usage",
    "wfm.parts",
    "wfm.parts.dask_settings",
    "wfm.parts.in_worker",
    "wfm.parts.workers",
)
"""Modules whose change does not change a code id: they are contracts with versions of their own. `wfm.parts.workers` is the
half of `Context.map_parts` that decides where a part is made; import-linter sees that it knows nothing of what is in one."""


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: the same value gives the same bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def derive_key(
    stage: str,
    code_id: str,
    what: Mapping[str, Any],
    inputs: Mapping[str, str],
    *,
    external_inputs: Any = None,
    redo: str = "",
) -> str:
    """The key of an artifact, 64 hex digits."""
    parts: dict[str, Any] = {"stage": stage, "code": code_id, "what": dict(what), "inputs": dict(inputs)}
    if external_inputs is not None:
        parts["external inputs"] = external_inputs
    if redo:
        parts["redo"] = redo
    return hashlib.sha256(canonical(parts)).hexdigest()


def derive_part_key(stage: str, code_id: str, what: Mapping[str, Any], inputs: Any, *, redo: str = "") -> str:
    """The key of a part, 64 hex digits. Its name is not in it, so equal work is shared."""
    parts: dict[str, Any] = {"part of": stage, "code": code_id, "what": dict(what), "inputs": inputs}
    if redo:
        parts["redo"] = redo
    return hashlib.sha256(canonical(parts)).hexdigest()


def code_id(component: str, uses: tuple[Use, ...] = ()) -> str:
    """The locked version, such as ``v1``, or the closure's own hash when the code has moved on from the lock; then the same of
    each thing that the config names."""
    lock = read_lock()
    ids = [_locked(lock.get(component), closure_hash(component))]
    for use in uses:
        name = ".".join(word for word in (use.name, use.part) if word)
        ids.append(f"{name}.{_locked(lock.get(use.line), use_hash(use))}")
    return "+".join(ids)


def _locked(line: Mapping[str, str] | None, found: str) -> str:
    return f"v{line['version']}" if line is not None and line["hash"] == found else found


def read_lock() -> dict[str, dict[str, str]]:
    """``{component or line of a use: {version, hash}}`` as ``wfm lock`` wrote it; empty without a lock file."""
    return json.loads(LOCK_FILE.read_text()) if LOCK_FILE.exists() else {}


def closure_hash(component: str) -> str:
    """sha256 over the meaning of every module that a component can load from this repository."""
    return hashlib.sha256(canonical(module_hashes(component))).hexdigest()


def use_hash(use: Use) -> str:
    """The same of what a config names."""
    return hashlib.sha256(canonical(_hashes(_roots(use)))).hexdigest()


def module_hashes(component: str, uses: tuple[Use, ...] = ()) -> dict[str, str]:
    """What the hashes of a code id are made from: module (or file of a plug-in) -> hash of its meaning (of its bytes)."""
    return _hashes((f"components.{component}", *(root for use in uses for root in _roots(use))))


def _hashes(roots: Iterable[str]) -> dict[str, str]:
    from wfm.artifacts.verified import hash_file

    found: dict[str, str] = {}
    for module in _reach(tuple(roots)):
        if module.split(".")[0] in PACKAGES:
            found[module] = _meaning(str(_file_of(module))).digest
        else:
            found |= {name: hash_file(path)[1] for name, path in _files_of(module)}
    return found


def _roots(use: Use) -> tuple[str, ...]:
    roots = use.registry.modules(use.name, use.part)
    for root in roots:
        if root.split(".")[0] in PACKAGES and _file_of(root) is None:
            raise ConfigError(f"{use.registry.word} {use.name!r}: its module {root} is not there")
    return roots


def closure(component: str, uses: tuple[Use, ...] = ()) -> tuple[str, ...]:
    """Names of the modules of this repository that ``components.<component>`` and what its config names import, at any depth,
    sorted; of other packages that hold a plug-in, their own names."""
    return _reach((f"components.{component}", *(root for use in uses for root in _roots(use))))


@functools.cache
def _reach(roots: tuple[str, ...]) -> tuple[str, ...]:
    seen: set[str] = set()
    waiting = list(roots)
    while waiting:
        module = waiting.pop()
        if module.partition(".")[0] not in ("", *PACKAGES):
            package = module.partition(".")[0]
            if package not in seen:
                seen.add(package)
                waiting += _imports_of_package(package)
            continue
        if module in seen or in_ground_floor(module) or _file_of(module) is None:
            continue
        seen.add(module)
        waiting += _imports_of(module)
        waiting.append(module.rpartition(".")[0])  # importing a.b.c runs a.b's __init__ too
    return tuple(sorted(seen))


def _files_of(package: str) -> Iterator[tuple[str, Path]]:
    """Every file of a package (or module) from outside, by name. Raises ConfigError where there is none to read."""
    spec = find_spec(package)
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()] if spec is not None else []
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    if not folders and spec is not None and spec.origin is not None and Path(spec.origin).is_file():
        yield Path(spec.origin).name, Path(spec.origin)
        return
    if not files:
        raise ConfigError(
            f"plug-in {package!r}: its files cannot be found, and they are part of the key: install it as files"
        )
    for path in files:
        if "__pycache__" not in path.parts:
            folder = next(folder for folder in folders if path.is_relative_to(folder))
            yield f"{package}/{path.relative_to(folder).as_posix()}", path


def _imports_of_package(package: str) -> Iterator[str]:
    """The modules of this repository that a package from outside imports."""
    for name, path in _files_of(package):
        if path.suffix == ".py":
            inside = ".".join(Path(name).parent.parts)
            yield from _resolved(ROOT, inside, _meaning(str(path)).imports)


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
