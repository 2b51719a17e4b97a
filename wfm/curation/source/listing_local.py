"""Listing of videos on this machine. Hidden files, and files of other endings whose first bytes are not video, are left
aside and counted; nothing else of a file is read.
"""

import dataclasses
import functools
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

from wfm.curation.source.extensions import is_wanted
from wfm.curation.source.listing_rows import Row, as_text, parse_list, parse_table, shown_name, unsafe_name
from wfm.curation.source.source_files import Listing, SourceFile, find_sidecars, is_sidecar_name
from wfm.data.archive import Archive, is_archive_name, split_member
from wfm.data.local import problem_of
from wfm.data.signatures import HEAD_BYTES
from wfm.errors import InputError


def list_folder(root: str) -> Listing:
    """Every video below a folder, links followed once. Raises `InputError` where the folder itself cannot be read."""
    aside: Counter[str] = Counter()
    files: list[SourceFile] = []
    seen: set[tuple[int, int]] = set()

    def unreadable(error: OSError) -> None:
        if error.filename == root:
            raise InputError(f"folder {root!r} cannot be read: {error.strerror}") from None
        source = as_text(str(error.filename))
        files.append(SourceFile(source, os.path.basename(source), problem=f"unreadable: {error.strerror}"))

    for folder, folders, names in os.walk(root, followlinks=True, onerror=unreadable):
        info = os.stat(folder)
        if (info.st_dev, info.st_ino) in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add((info.st_dev, info.st_ino))
        aside["hidden"] += sum(name.startswith(".") for name in (*folders, *names))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.startswith("."):
                continue
            path = os.path.join(folder, name)
            if is_archive_name(name) or (
                not is_sidecar_name(folder, name) and is_wanted(name, functools.partial(_local_head, path))
            ):
                files.append(local_file(path))
            elif not is_sidecar_name(folder, name):
                aside["other_ending"] += 1
    return Listing(tuple(files), {kind: count for kind, count in aside.items() if count})


def local_file(path: str, **known: Any) -> SourceFile:
    """One local file as it lies there; never opened. Archives and their members are for `listing_archive` to look into."""
    name = os.path.basename(path)
    if as_text(path) != path:
        return SourceFile(as_text(path), as_text(name), problem="unsafe_name: the name is not valid UTF-8")
    packed = split_member(path) is not None
    problem = "" if packed else problem_of(path)
    if problem:
        return SourceFile(path, name, problem=problem)
    if "actions" in known or "attributes" in known:
        sidecars = {kind: known.pop(kind) for kind in ("actions", "attributes") if known.get(kind)}
        stamp = ";".join(_local_stamp(sidecar) for sidecar in sidecars.values())
    elif packed or is_archive_name(path):
        sidecars, stamp = {}, ""
    else:
        sidecars, stamp = find_sidecars(path, os.path.isfile, _local_stamp)
    try:
        info = None if packed else os.stat(path)
    except OSError as error:  # it has gone since
        return SourceFile(path, name, problem=f"unreadable: {error.strerror}")
    file = SourceFile(path, name, info.st_size if info else 0, f"mtime_ns:{info.st_mtime_ns}" if info else "")
    return dataclasses.replace(file, sidecar_stamp=stamp, **sidecars, **known)


def listed_file(path: str, folder: str, known: Row) -> SourceFile:
    """A local file that a list in ``folder`` names. Its sidecars lie below that folder or where they would be found anyhow."""
    member = split_member(path)
    place = member[0] if member is not None else path
    home = os.path.dirname(place)
    if os.path.realpath(place).startswith(("/proc/", "/sys/")):  # without a size or an end, and reading some acts
        return SourceFile(path, os.path.basename(path), problem="not_a_regular_file: it is a view of the kernel's")
    for kind in ("actions", "attributes"):
        if known.get(kind):
            sidecar = os.path.join(folder, known[kind])
            homes = (folder, home, os.path.join(os.path.dirname(home), kind))
            problem = unsafe_name(known[kind])
            if "://" in known[kind]:
                problem = "a local video has local ones"
            elif not problem and not any(sidecar.startswith(f"{place.rstrip('/')}/") for place in homes):
                problem = "it lies neither below the list's folder nor beside the video; put it there"
            if problem:
                words = f"bad_sidecar: {kind} {shown_name(known[kind])[:200]!r}: {problem}"
                return SourceFile(path, os.path.basename(path), problem=words)
            known[kind] = sidecar
    return local_file(path, **known)


def read_local_list(path: str) -> Iterator[Row]:
    """The rows of a list on this machine. Raises `InputError` where it cannot be read."""
    problem = problem_of(path)
    if problem:
        raise InputError(f"the list {path!r} cannot be read: {problem}")
    try:
        if path.lower().endswith(".parquet"):
            with open(path, "rb") as table:
                return iter(list(parse_table(table, path)))
        with open(path, "rb") as file:
            return parse_list(file.read(), path)
    except OSError as error:
        raise InputError(f"the list {path!r} cannot be read: {error}") from None


def _local_head(path: str) -> bytes:
    """The first bytes of a file; of one that may not be opened a byte that is neither video nor text, so that it gets a row."""
    if problem_of(path):
        return b"\0"
    try:
        with open(path, "rb") as file:
            return file.read(HEAD_BYTES)
    except OSError:
        return b"\0"


def _local_stamp(path: str) -> str:
    member = split_member(path)
    try:
        if member is not None:
            found = Archive(None, member[0]).index().by_name.get(member[1])
            return found.stamp if found is not None else "missing"
        info = os.stat(path)
    except OSError as error:
        return f"missing:{error.errno}"
    return f"{info.st_size}:{info.st_mtime_ns}"
