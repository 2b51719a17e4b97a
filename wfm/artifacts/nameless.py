"""Nameless files: what a writer that was killed leaves beside the name that it was about to give (`wfm.artifacts.atomic`).

They are in nobody's listing, and would stay for ever. They lie in the store where it is a folder, and in this machine's cache
of a remote one, where they may be whole downloads.
"""

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from wfm.artifacts.generations import AREAS

if TYPE_CHECKING:
    from wfm.artifacts.shelf import Shelf

NAMELESS = re.compile(r"\.[0-9a-f]{16}\.tmp")
_LEAST_SECONDS = 3600.0
"""A file that is being written is younger."""


def find_nameless(store: "Shelf", min_age_seconds: float) -> list[Path]:
    """Those of at least this age, and an hour."""
    before = time.time() - max(min_age_seconds, _LEAST_SECONDS)
    remote = store.objects.local_path("artifacts") is None
    root = store.cache if remote else Path(store.address.root)
    return sorted(path for path in _nameless(root, attempts=remote) if _older(path, before))


def _nameless(root: Path, attempts: bool) -> Iterator[Path]:
    """`attempts`: whether to look into the folders of committed files too, which on a disk are written in place."""
    for parent, folders, files in os.walk(root):
        if not attempts and Path(parent).parent.name in AREAS and "attempts" in folders:
            folders.remove("attempts")
        for name in files:
            if NAMELESS.fullmatch(name):
                yield Path(parent, name)


def _older(path: Path, before: float) -> bool:
    with suppress(FileNotFoundError):  # it has its name now
        return path.lstat().st_mtime <= before
    return False
