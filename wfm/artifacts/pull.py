"""Copies of artifacts for people and for programs outside: checked on the way, nothing that differs is overwritten.

Parts are put together: a part's table `clips.parquet` becomes `clips.parquet/<part>.parquet`, so that a folder of
parts reads as one
table; its other files keep their own path, or go to `parts/<part>/…` when several parts use the same.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from wfm.artifacts.address import check_name
from wfm.artifacts.artifact import Artifact
from wfm.artifacts.copying import Placed, copy_into
from wfm.artifacts.listing import FileEntry
from wfm.errors import InputError


def pull(artifact: Artifact, into: Path, what: str = "tables") -> list[Path]:
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
    return copy_into(artifact.fetch, placed, into, whose=repr(artifact))


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
