"""What lies outside: the files that ``--videos`` names, seen without reading one of them.

``list_source`` takes a folder (read recursively), a glob, one file, a list of names (``.txt``, ``.jsonl``, ``.parquet``), or
the same on ``s3://`` and the like; of archives (``.zip``, ``.tar``, ``.tar.gz``) the videos in them are listed. Each file comes
with a stamp (size and time of change, or etag): the listing enters ingest's key, so new files make a new data set and unchanged
ones are not read again. Cheap, and free of codec libraries: keys are computed from it.

What is found, and how sidecars go with it: `source_files`. On this machine: `listing_local`; in buckets: `listing_remote`;
inside archives: `listing_archive`. Here they meet, and lists of names, whose rows may be of either kind.
"""

import dataclasses
import glob
import os
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from wfm.curation.source.extensions import EXTENSIONS, IMAGES
from wfm.curation.source.listing_archive import expand
from wfm.curation.source.listing_local import list_folder, listed_file, local_file, read_local_list
from wfm.curation.source.listing_remote import list_remote, read_remote_list, remote_files
from wfm.curation.source.listing_rows import Row, shown_name, unsafe_name
from wfm.curation.source.source_files import LISTS, Listing, SourceFile, find_sidecars
from wfm.data.archive import ENDINGS, split_member
from wfm.data.archive_index import Limits
from wfm.errors import InputError
from wfm.log import get_logger

if TYPE_CHECKING:
    from wfm.artifacts import Artifact, Store


_LIMITS = Limits()


def list_source(
    url: str, store: "Store | None" = None, limits: Limits = _LIMITS, *, leave_aside: Collection[str] = ()
) -> Listing:
    """Every file that ``url`` names; ``limits`` are those of archives. Files with endings of ``leave_aside`` are not listed.

    Raises `InputError` for a place that is missing, empty or refused, naming it.
    """
    if not url:
        raise InputError("no videos were named: give --videos a folder, a file, a glob, a list, or an s3:// prefix")
    if url.startswith("file://"):
        path = url.removeprefix("file://").removeprefix("localhost")
        url = path if os.path.lexists(path) else unquote(path)
    if "\0" in url:
        raise InputError(f"videos {url!r}: a path cannot hold a NUL character")
    if "://" in url:
        rows = read_remote_list(url, store)
        found = list_remote(url, store) if rows is None else list_names(rows, url.rpartition("/")[0], url, store)
    else:
        found = _list_local(os.path.abspath(os.path.expanduser(url)))
    found = expand(found, store, limits).without_endings(leave_aside)
    files: dict[str, SourceFile] = {}
    for file in found.files:  # a list may name a file twice
        known = files.setdefault(file.source, file)
        if known != file and not known.problem:
            problem = "contradiction: it is named twice, and different things are said of it"
            files[file.source] = SourceFile(file.source, file.name, problem=problem)
    aside = ", ".join(f"{count} {kind}" for kind, count in sorted(found.aside.items()))
    if not files:
        raise InputError(
            f"no video files in {url!r} ({aside or 'nothing else in it'}); looked for "
            f"{' '.join(ending for ending in (*EXTENSIONS, *IMAGES, *ENDINGS) if ending not in leave_aside)}"
        )
    if aside:
        get_logger(__name__).info("%s: %d files; left aside: %s", url, len(files), aside)
    return Listing(tuple(files[source] for source in sorted(files)), dict(sorted(found.aside.items())))


def list_artifact(artifact: "Artifact") -> Listing:
    """The videos of a ``raw_videos`` artifact. A file is named by its part's key, so that one more part changes no other."""
    files: list[SourceFile] = []
    for entry in (None, *artifact.iterate_parts()):
        owner = artifact if entry is None else artifact.part(entry.name)
        entries = [e for e in owner.files() if entry is not None or not e.path.startswith("parts/")]
        hashes = {e.path: e.sha256 for e in entries}
        for path, size in ((e.path, e.size) for e in entries):
            folder, _, name = path.rpartition("/")
            if folder == "videos":
                sidecars, stamp = find_sidecars(path, hashes.__contains__, hashes.__getitem__)
                prefix = f"wfm://{owner.key}/"
                file = SourceFile(prefix + path, name, size, f"sha256:{hashes[path]}", sidecar_stamp=stamp)
                urls: dict[str, Any] = {kind: prefix + sidecar for kind, sidecar in sidecars.items()}
                files.append(dataclasses.replace(file, **urls))
    if not files:
        raise InputError(f"{artifact!r} holds no videos: files under videos/ were expected")
    return Listing(tuple(sorted(files, key=lambda file: file.source)))


def _list_local(path: str) -> Listing:
    if os.path.isdir(path):
        return list_folder(path)
    if split_member(path) is not None:
        return Listing((local_file(path),))
    if os.path.lexists(path):
        if path.lower().endswith(LISTS):
            return list_names(read_local_list(path), os.path.dirname(path), path)
        return Listing((local_file(path),))
    if glob.has_magic(path):
        matches = [match for match in sorted(glob.glob(path, recursive=True)) if not os.path.isdir(match)]
        if not matches:
            raise InputError(f"no file matches the glob {path!r}")
        return Listing(tuple(local_file(match) for match in matches))
    raise InputError(f"videos {path!r}: there is no such file or folder")


def list_names(rows: Iterable[Row], folder: str, where: str, store: "Store | None" = None) -> Listing:
    """The files of a list. A name is a URL, an absolute path, or one relative to the list's folder and below it; a list that
    came from a URL names URLs and what lies beside it, never a file of this machine."""
    files: list[SourceFile] = []
    remote: dict[int, tuple[str, dict[str, str]]] = {}
    for row in rows:
        name = row["source"]
        problem = row.get("problem") or unsafe_name(name)
        known = {key: value for key, value in row.items() if key != "source"}
        if problem:
            shown = shown_name(name)
            files.append(SourceFile(shown, shown.rpartition("/")[2], problem=problem))
        elif "://" in folder or ("://" in name and not name.startswith("file://")):
            url = name if "://" in name else f"{folder}/{name}"
            remote[len(files)] = url, known
            files.append(SourceFile(url, ""))
        else:
            files.append(listed_file(os.path.join(folder, name.removeprefix("file://")), folder, known))
    if not files:
        raise InputError(f"the list {where!r} names no file")
    if remote:
        for place, file in zip(remote, remote_files(list(remote.values()), folder, store), strict=True):
            files[place] = file
    return Listing(tuple(files))
