"""What a source file means: the hash of its syntax tree without comments, docstrings, positions and the list of what it offers
(``__all__``: a guide for readers), and what it imports.

Parsing is most of what planning costs, so a meaning is kept by the sha256 of the file's bytes, for this very reader (its own
source and Python's version name the file it is kept in). No name, time or size of a file is believed: other bytes have no
entry, and are parsed. The folder must be the user's own and closed to others, as the sources themselves are; what does not
hold together is not used, and made again.
"""

import ast
import functools
import gc
import hashlib
import json
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from wfm.artifacts.address import KEY_PATTERN
from wfm.artifacts.atomic import replace_on_disk
from wfm.errors import WfmError

_BLOCKS = ("body", "orelse", "finalbody")
_MOST_BYTES = 16 * 2**20
_MOST_KEPT = 4096
"""Entries; a checkout has some 300, so those of several fit."""

Import = tuple[int, str, tuple[str, ...]]
"""An import as it is written: level (dots), module, names taken from it (none: ``import module``)."""


class Meaning(NamedTuple):
    """What is kept of a file."""

    digest: str
    "sha256 of the stripped tree as `ast.dump` writes it, hex."
    imports: tuple[Import, ...]


def read_meaning(data: bytes) -> Meaning:
    """The meaning of a file's bytes; raises `SyntaxError` when they are no Python."""
    with _no_collector():
        imports: list[Import] = []
        text = _dump(ast.parse(data), imports)
    return Meaning(hashlib.sha256(text.encode()).hexdigest(), tuple(dict.fromkeys(imports)))


@contextmanager
def _no_collector() -> Iterator[None]:
    """A tree has no circles, and a third of the time of parsing went into looking for some."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _dump(node: ast.AST, imports: list[Import]) -> str:
    """`ast.dump` of a tree without its docstrings and lists of names, in one walk that notes the imports as well."""
    kind = node.__class__
    if kind is ast.Import:
        imports += [(0, alias.name, ()) for alias in node.names]  # type: ignore[attr-defined]
    elif kind is ast.ImportFrom:
        imports.append((node.level or 0, node.module or "", tuple(alias.name for alias in node.names)))  # type: ignore[attr-defined]
    words = []
    for name, optional in _fields(kind):  # type: ignore[arg-type]  # a class is hashable
        value = getattr(node, name)
        if value.__class__ is list:
            kept = [one for one in value if not _means_nothing(one)] if name in _BLOCKS else value
            inner = [_dump(one, imports) if isinstance(one, ast.AST) else repr(one) for one in kept]
            words.append(f"{name}=[{', '.join(inner)}]")
        elif isinstance(value, ast.AST):
            words.append(f"{name}={_dump(value, imports)}")
        elif value is not None or not optional:
            words.append(f"{name}={value!r}")
    return f"{kind.__name__}({', '.join(words)})"


@functools.cache
def _fields(kind: type[ast.AST]) -> tuple[tuple[str, bool], ...]:
    """Names of a node's fields, and whether one that is None is left out."""
    return tuple((name, getattr(kind, name, ...) is None) for name in kind._fields)


def _means_nothing(statement: ast.AST) -> bool:
    """A text, or the ``__all__`` of a module: nobody here writes ``import *``."""
    if isinstance(statement, ast.Assign):
        target = statement.targets[0]
        return isinstance(target, ast.Name) and target.id == "__all__" and len(statement.targets) == 1
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


class KeptMeanings:
    """Meanings by the sha256 of the bytes, in one file that only this user can have written.

    ``read`` is what is asked for what is not kept; `save` writes what was asked since, whole or not at all.
    """

    def __init__(self, folder: Path, read: Callable[[bytes], Meaning] = read_meaning) -> None:
        self._folder, self._read = folder, read
        self._file = folder / f"{_reader()[:16]}.json"
        self._kept: dict[str, Meaning] | None = None
        self._new = False

    def of(self, data: bytes) -> Meaning:
        """The meaning of a file's bytes."""
        if self._kept is None:
            self._kept = self._load()
        name = hashlib.sha256(data).hexdigest()
        found = self._kept.pop(name, None)
        if found is None:
            found, self._new = self._read(data), True
        self._kept[name] = found  # at the end: what is asked for stays longest
        return found

    def save(self) -> None:
        """Keep what is new. A place that cannot be written costs time, never a run."""
        if not self._new or self._kept is None:
            return
        self._new = False
        body = json.dumps({name: self._kept[name] for name in list(self._kept)[-_MOST_KEPT:]}, separators=(",", ":"))
        with suppress(OSError, WfmError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if _closed(os.lstat(self._folder), stat.S_ISDIR):
                replace_on_disk(self._file, f"{_sum(body)}\n{body}".encode(), fsync=False, mode=0o600)

    def _load(self) -> dict[str, Meaning]:
        try:
            if not _closed(os.lstat(self._folder), stat.S_ISDIR):
                return {}
            with open(os.open(self._file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)) as file:
                about = os.fstat(file.fileno())
                if not _closed(about, stat.S_ISREG) or about.st_size > _MOST_BYTES:
                    return {}
                total, _, body = file.read().partition("\n")
            return {name: _entry(name, one) for name, one in json.loads(body).items()} if total == _sum(body) else {}
        except (OSError, ValueError, TypeError, AttributeError):  # absent, or not what `save` writes
            return {}


def _closed(about: os.stat_result, is_kind: Callable[[int], bool]) -> bool:
    """Whether this is ours, of the kind, and nobody else may write to it."""
    return is_kind(about.st_mode) and about.st_uid == os.geteuid() and not about.st_mode & 0o022


def _entry(name: str, found: tuple[str, list[tuple[int, str, list[str]]]]) -> Meaning:
    """What `save` wrote of one; raises `ValueError` or `TypeError` for anything else."""
    digest, imports = found
    if not all(isinstance(word, str) and KEY_PATTERN.fullmatch(word) for word in (name, digest)):
        raise ValueError(f"{name!r} is no sha256")
    return Meaning(digest, tuple((int(level), str(module), tuple(map(str, names))) for level, module, names in imports))


def _sum(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()


@functools.cache
def _reader() -> str:
    """Names this reader: its source, and the Python whose syntax trees it writes down."""
    return hashlib.sha256(sys.version.encode() + Path(__file__).read_bytes()).hexdigest()
