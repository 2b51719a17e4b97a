"""Copies of artifacts for people and for programs outside: checked on the way, nothing that differs is overwritten.

Parts are put together: a part's table `clips.parquet` becomes `clips.parquet/<part>.parquet`, so that a folder of
parts reads as one
table; its other files keep their own path, or go to `parts/<part>/…` when several parts use the same.
"""

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wfm.artifacts.address import check_name, safe_path
from wfm.artifacts.atomic import disk_error, whole_file
from wfm.artifacts.listing import FileEntry, check_folders
from wfm.artifacts.verified import hash_file
from wfm.errors import DataError, InputError

if TYPE_CHECKING:
    from wfm.artifacts.artifact import Artifact

Placed = tuple[FileEntry, str]
"""A file of an artifact, and its path below the target folder."""


def pull(artifact: "Artifact", into: Path, what: str = "tables") -> list[Path]:
    """Copy a selection of an artifact below `into`; returns the files that are there now.

    `what`: `tables` (Parquet tables and JSON cards at the top), `split:<name>` (those, and what lies in a folder of
    that name), `all`.
    Raises InputError for another `what`, for nothing to copy, and (before a byte is written) when `into` holds
    differing files.
    """
    kind, _, split = what.partition(":")
    if what not in ("tables", "all") and not (kind == "split" and split):
        raise InputError(f"cannot pull {what!r}: choose tables, all, or split:NAME (as split:test)")
    if split:
        check_name(split, "split")
    placed = place(list(artifact.files()))
    if split and not any(_in_split(target, split) for _, target in placed):
        raise InputError(
            f"{artifact!r} has no split {split!r}: its folders are {', '.join(_folders(placed)) or 'none'}"
        )
    if what != "all":
        placed = [
            (entry, target) for entry, target in placed if _is_table(target) or (split and _in_split(target, split))
        ]
    if not placed:
        raise InputError(
            f"{artifact!r} has no tables: pull all of it (`--what all`), or look at `wfm artifacts files {artifact.key[:12]}`"
        )
    return copy_into(artifact, placed, into)


def place(entries: Sequence[FileEntry]) -> list[Placed]:
    """Where each file of an artifact goes; no two go to the same place."""
    own_tables = {
        entry.path for entry in entries if not entry.path.startswith("parts/") and entry.path.endswith(".parquet")
    }
    wanted = Counter(_merged(entry.path) for entry in entries)
    part_tables = {_merged(entry.path).rpartition("/")[0] for entry in entries if entry.path.startswith("parts/")}
    placed = []
    for entry in entries:
        target = _merged(entry.path)
        if wanted[target] > 1 and entry.path.startswith("parts/"):
            target = entry.path
        elif entry.path in own_tables and entry.path in part_tables:
            target = f"{entry.path}/own table.parquet"  # its name is needed for the folder; no part can be called so
        placed.append((entry, target))
    return placed


def _merged(path: str) -> str:
    if not path.startswith("parts/"):
        return path
    _, part, inner = path.split("/", 2)
    table, found, piece = inner.partition(".parquet/")
    if found:  # a part's table that is a folder itself
        return f"{table}.parquet/{part}-{piece}"
    if inner.endswith(".parquet") and "/" not in inner:
        return f"{inner}/{part}.parquet"
    return inner


def _is_table(target: str) -> bool:
    top = target.split("/", 1)[0]
    return top.endswith(".parquet") or (top == target and top.endswith(".json"))


def _in_split(target: str, split: str) -> bool:
    return split in target.split("/")[:-1]


def _folders(placed: Sequence[Placed]) -> list[str]:
    return sorted({target.rpartition("/")[0] for _, target in placed if "/" in target})[:12]


def copy_into(artifact: "Artifact", placed: Sequence[Placed], into: Path) -> list[Path]:
    """Copy checked files to their places below `into`; returns the targets.

    Raises InputError when a target exists with other bytes, or lies outside `into` through a link, DataError when two files
    would go to one place; then nothing was copied.
    """
    into = into.absolute()
    _check_places(artifact, [path for _, path in placed])
    try:
        into.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error, into) from error
    root = into.resolve()
    missing: list[tuple[FileEntry, Path]] = []
    targets = []
    for entry, path in placed:
        target = into / path
        targets.append(target)
        if not target.parent.resolve().is_relative_to(root):
            raise InputError(f"{target} lies outside {into} (a folder on the way is a link): pull into another folder")
        if not target.is_symlink() and not target.exists():
            missing.append((entry, target))
        elif target.is_symlink() or not target.is_file() or hash_file(target) != (entry.size, entry.sha256):
            raise InputError(
                f"{target} exists and differs from {artifact!r}: move it away, or pull into another folder"
            )
    for entry, target in missing:
        _copy(artifact, entry, target)
    return targets


def _check_places(artifact: "Artifact", paths: Sequence[str]) -> None:
    known: set[str] = set()
    for path in paths:
        if safe_path(path) in known:
            raise DataError(f"{artifact!r} has two files for {path!r}: invalidate it and rerun its stage")
        known.add(path)
    try:
        check_folders(paths)
    except ValueError as error:
        raise DataError(f"{artifact!r} cannot be copied: {error}; invalidate it and rerun its stage") from None


def _copy(artifact: "Artifact", entry: FileEntry, target: Path) -> None:
    source = artifact.fetch(entry.path)
    try:
        with whole_file(target, force=False) as temporary:
            shutil.copyfile(source, temporary)
            if temporary.stat().st_size != entry.size:
                raise DataError(f"{entry.path} of {artifact!r} changed while it was copied: pull again")
    except FileExistsError:
        raise InputError(f"{target} appeared while it was being pulled: is another pull at work?") from None
    except OSError as error:
        raise disk_error(error, target) from error
