"""What a source file means: the same hashes as the plain way, kept by content, and nothing kept that is not so."""

import ast
import functools
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from components import derivation
from components.derivation import PACKAGES, ROOT, closure_hash, in_ground_floor, module_hashes
from components.meaning import KeptMeanings, Meaning, read_meaning
from pipelines.stages import TABLE

# -- the plain way: two walks over `ast`, nothing kept (what the locks were written with)


def _file_of(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


@functools.cache
def plain_imports(module: str) -> tuple[str, ...]:
    path = _file_of(module)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = []
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
            owner = name.rpartition(".")[0]
            if name.split(".")[0] not in PACKAGES:
                continue
            if _file_of(name) is not None:
                found.append(name)
            elif (path_of := _file_of(owner)) is not None and path_of.name == "__init__.py":
                found += [f"{owner}.{each.stem}" for each in path_of.parent.glob("*.py") if each.stem != "__init__"]
    return tuple(found)


@functools.cache
def plain_digest(data: bytes) -> str:
    tree = ast.parse(data)
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            statements = getattr(node, field, None)
            if isinstance(statements, list):
                setattr(node, field, [one for one in statements if not _is_text(one) and not _is_list_of_names(one)])
    return hashlib.sha256(ast.dump(tree, include_attributes=False).encode()).hexdigest()


def _is_text(one: ast.AST) -> bool:
    return isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant) and isinstance(one.value.value, str)


def _is_list_of_names(one: ast.AST) -> bool:
    return isinstance(one, ast.Assign) and [ast.unparse(target) for target in one.targets] == ["__all__"]


def plain_hashes(component: str) -> dict[str, str]:
    seen: set[str] = set()
    waiting = [f"components.{component}"]
    while waiting:
        module = waiting.pop()
        if module in seen or in_ground_floor(module) or _file_of(module) is None:
            continue
        seen.add(module)
        waiting += [*plain_imports(module), module.rpartition(".")[0]]
    return {module: plain_digest(_file_of(module).read_bytes()) for module in sorted(seen)}


def test_every_closure_is_what_the_plain_way_gives() -> None:
    for component in {row.component for row in TABLE}:
        assert module_hashes(component) == plain_hashes(component), component


@pytest.mark.parametrize(
    "source",
    [
        "",
        '"doc"\nfrom __future__ import annotations\n',
        'class A:\n    "doc"\n    x: int = 1\n    "of x"\n    def f(self, *a, k=None, **kw) -> "A":\n        "doc"\n',
        "try:\n    'text'\nexcept* ValueError:\n    pass\nelse:\n    'text'\nfinally:\n    'text'\n    f()\n",
        "match x:\n    case {'a': 1, **rest}:\n        'text'\n        f(rest)\n    case [1, *_]: pass\n    case None: pass\n",
        "async def f():\n    async with a as b, c:\n        await d\n    return [x async for x in y if x]\n",
        "x = {**a, 'b': 1}; global_ = lambda *, y=1: (yield)\n",
        "def f():\n    global a, b\n    nonlocal_ = f'{a!r:>{b}} {1.5e300} {1j} {b\"x\"} {...}'\n",
        "from . import a\nfrom .. import b as c\nfrom ..x.y import *\nimport wfm.errors as e, os\n",
        "x = '\\x00 é'\n",
    ],
)
def test_every_form_of_statement_hashes_as_the_plain_way(source: str) -> None:
    assert read_meaning(source.encode()).digest == plain_digest(source.encode())


# -- what is kept


def _never(data: bytes) -> Meaning:
    raise AssertionError("was read again")


def _kept(folder: Path, *sources: bytes) -> Path:
    kept = KeptMeanings(folder)
    for source in sources:
        kept.of(source)
    kept.save()
    (file,) = folder.glob("*.json")
    return file


def test_what_was_read_is_not_read_again(tmp_path: Path) -> None:
    source = b"from wfm.errors import DataError\nx = 1\n"
    file = _kept(tmp_path / "meanings", source)
    assert KeptMeanings(tmp_path / "meanings", _never).of(source) == read_meaning(source)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_an_edit_that_keeps_name_size_and_times_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that goes by path, size and mtime gives the old hash here, and a stale result would pass for new."""
    monkeypatch.setenv("WFM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(derivation, "ROOT", tmp_path)
    (tmp_path / "components").mkdir()
    (tmp_path / "components" / "__init__.py").write_text("")
    toy = tmp_path / "components" / "toy.py"

    def hashed() -> str:
        for cached in (derivation._reach, derivation._meaning, derivation._kept):
            cached.cache_clear()
        found = closure_hash("toy")
        derivation.keep_meanings()
        return found

    toy.write_text("x = 1\n")
    times = toy.stat()
    first = hashed()
    with open(toy, "r+") as file:  # the same inode
        file.write("x = 2\n")
    os.utime(toy, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert hashed() != first
    toy.write_text("x = 1\n")
    assert hashed() == first
    for cached in (derivation._reach, derivation._meaning, derivation._kept):
        cached.cache_clear()


def _damaged(file: Path, other: Path) -> Iterator[None]:
    whole = file.read_text()
    yield file.write_text(whole.replace("9", "8", 1))
    yield file.write_text(whole.replace("wfm.errors", "wfm.xxxxxx"))
    yield file.write_text(whole[: len(whole) // 2])
    yield file.write_text("")
    body = '{"x":["y",[]]}'
    yield file.write_text(f"{hashlib.sha256(body.encode()).hexdigest()}\n{body}")
    yield file.write_bytes(b"\xff\xfe\n[]")
    yield file.write_text(whole), file.chmod(0o666)
    yield file.chmod(0o600), file.parent.chmod(0o777)
    yield file.parent.chmod(0o700), other.write_text(whole), file.unlink(), file.symlink_to(other)
    yield file.unlink(), os.mkfifo(file, 0o600)


def test_a_damaged_forged_or_open_file_is_not_used(tmp_path: Path) -> None:
    source = b"from wfm.errors import DataError\nx = 1\n"
    file = _kept(tmp_path / "meanings", source)
    for number, _ in enumerate(_damaged(file, tmp_path / "other")):
        read = []
        kept = KeptMeanings(tmp_path / "meanings", lambda data, read=read: read.append(data) or read_meaning(data))
        assert kept.of(source) == read_meaning(source)
        assert read == [source], f"damage {number} was used"


def test_a_place_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    kept = KeptMeanings(tmp_path / "file" / "meanings")
    assert kept.of(b"x = 1\n") == read_meaning(b"x = 1\n")
    kept.save()
