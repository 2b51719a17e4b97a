"""Files of an artifact into a folder outside the store: each is whole, and nothing that differs is overwritten."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from wfm.artifacts.address import safe_path
from wfm.artifacts.atomic import disk_error, whole_file
from wfm.artifacts.listing import FileEntry, check_folders
from wfm.artifacts.verified import hash_file
from wfm.errors import DataError, InputError

Placed = tuple[FileEntry, str]
"""A file of an artifact, and its path below the target folder."""
Fetch = Callable[[str], Path]
"""A path in the artifact -> a local file of checked bytes."""


def copy_into(fetch: Fetch, placed: Sequence[Placed], into: Path, *, whose: str) -> list[Path]:
    """Copy checked files to their places below `into`; returns the targets. `whose` files they are goes into errors.

    Raises InputError when a target exists with other bytes, or lies outside `into` through a link, DataError when two files
    would go to one place; then nothing was copied.
    """
    into = into.absolute()
    _check_places(whose, [path for _, path in placed])
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
            raise InputError(f"{target} exists and differs from {whose}: move it away, or pull into another folder")
    for entry, target in missing:
        _copy(fetch, entry, target, whose)
    return targets


def _check_places(whose: str, paths: Sequence[str]) -> None:
    known: set[str] = set()
    for path in paths:
        if safe_path(path) in known:
            raise DataError(f"{whose} has two files for {path!r}: invalidate it and rerun its stage")
        known.add(path)
    try:
        check_folders(paths)
    except ValueError as error:
        raise DataError(f"{whose} cannot be copied: {error}; invalidate it and rerun its stage") from None


def _copy(fetch: Fetch, entry: FileEntry, target: Path, whose: str) -> None:
    source = fetch(entry.path)
    try:
        with whole_file(target, force=False) as temporary:
            shutil.copyfile(source, temporary)
            if temporary.stat().st_size != entry.size:
                raise DataError(f"{entry.path} of {whose} changed while it was copied: pull again")
    except FileExistsError:
        raise InputError(f"{target} appeared while it was being pulled: is another pull at work?") from None
    except OSError as error:
        raise disk_error(error, target) from error
