"""Where a video's bytes lie besides the commits: downloads, cached files of a remote store, checkpoints, notes, answers.

    copies = find_copies(digests, archives=False)    # looks
    delete_copies(copies)

Downloads, caches and scratch are this machine's. Those of other machines that have worked with the store are cleared by calling
the purge there again: what they hold is known by its bytes, and by the store no longer having it.
"""

import contextlib
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from wfm.artifacts import checkpoints, generations, lease
from wfm.artifacts.address import KEY_PATTERN, NAME_PATTERN, cache_root
from wfm.artifacts.collect import scratch_folders
from wfm.artifacts.generations import AREAS
from wfm.artifacts.verified import hash_file
from wfm.errors import InputError

if TYPE_CHECKING:
    from wfm.artifacts.store import Store

_DOWNLOADS = "sources"
"""Folder of the local cache that holds what was read from remote places (`wfm.data.local`)."""
_INDEXES = "archives"
"""Folder of the local cache that holds what lies where in archives, of a ``.tar.gz`` with pieces of it (`wfm.data.archive`)."""
_LEFT_SECONDS = 900.0
"""A download that was not written to for so long is nobody's any more [s]."""
_NOTES = "poison"
"""Folder of the store with notes of items that crashed, named by video or clip (`wfm.curation.poison`)."""
_SAID = "captions"
"""Folder of the store with models' answers, below the hash of the clip (`wfm.curation.caption.answer_cache`)."""


def find_copies(digests: set[str], *, archives: bool) -> list[Path]:
    """Downloads with one of these sha256, in order of path; with ``archives`` also every archive, since one may hold the video,
    and what is known of archives, which is found again when it is needed.

    Reads every download that there is.
    """
    folder = cache_root() / _DOWNLOADS
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        with contextlib.suppress(FileNotFoundError):  # makes room for another meanwhile
            if path.name.startswith("."):  # a download that broke off
                if time.time() - path.stat().st_mtime > _LEFT_SECONDS:
                    found.append(path)
            elif hash_file(path)[1] in digests or (archives and (tarfile.is_tarfile(path) or zipfile.is_zipfile(path))):
                found.append(path)
    indexes = cache_root() / _INDEXES
    return found + (sorted(indexes.iterdir()) if archives and indexes.is_dir() else [])


def delete_copies(paths: list[Path]) -> None:
    """Delete downloads."""
    for path in paths:
        path.unlink(missing_ok=True)


def delete_said(store: "Store", ids: set[str], digests: set[str]) -> None:
    """Delete what is noted of a video and its clips, and what a model was asked and said of them."""
    for digest in sorted(digests):
        store.objects.delete_tree(f"{_SAID}/{digest[:2]}/{digest}")
    for folder in store.objects.names(_NOTES):
        if not folder.endswith("/") or not NAME_PATTERN.fullmatch(folder[:-1]):
            continue  # not ours
        for name in store.objects.names(f"{_NOTES}/{folder[:-1]}"):
            if name.partition(".")[0] in ids:  # its note, and what witnesses wrote of it
                store.objects.delete(f"{_NOTES}/{folder}{name}")


def clear_cached(store: "Store") -> None:
    """Delete cached files of commits that the store no longer has. Nobody may be at work on the store."""
    for area in AREAS:
        for folder in _keys_in(store.cache / area):
            if not generations.read_state(store.objects, f"{area}/{folder.name}").manifests:
                store.clear_cached(f"{area}/{folder.name}")


def clear_scratch(store: "Store", keys: set[str]) -> None:
    """Delete scratch and checkpoints of these keys, and of unfinished stages that had one of them as an input, such as a
    training that was interrupted; where a stage's inputs are not known, what it left goes too."""

    def goes(key: str) -> bool:
        return key in keys or (not store.has(key) and _read_from(store, key, keys))

    for folder in scratch_folders(store):
        if goes(folder.name):
            store.clear_scratch(folder.name)
    for key in checkpoints.keys(store.objects):
        if goes(key):
            checkpoints.remove(store.objects, key)


def _read_from(store: "Store", key: str, keys: set[str]) -> bool:
    """Whether a stage that was begun had one of the keys as an input, as its newest lease says."""
    folder = f"leases/{key}"
    numbers = lease.numbers(store.objects, folder)
    try:
        holder = lease.read_holder(store.objects, folder, max(numbers)) if numbers else None
    except InputError:  # not known, as without one
        holder = None
    return holder is None or not keys.isdisjoint(holder.inputs)


def _keys_in(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if KEY_PATTERN.fullmatch(path.name):
            yield path
