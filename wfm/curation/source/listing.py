"""What lies outside: the files that ``--videos`` names, seen without reading one of them.

``list_source`` takes a folder (read recursively), a glob, one file, a list of names (``.txt``, ``.jsonl``, ``.parquet``), or
the same on ``s3://`` and the like; of archives (``.zip``, ``.tar``, ``.tar.gz``) the videos in them are listed. Each file comes
with a stamp (size and time of change, or etag): the listing enters ingest's key, so new files make a new data set and unchanged
ones are not read again. Cheap, and free of codec libraries: keys are computed from it.

Sidecars are found by stem: ``x.actions.parquet`` and ``x.attributes.json`` beside ``x.mp4``, or ``../actions/x.parquet`` and
``../attributes/x.json``. Hidden files, and files of other endings whose first bytes are not video, are left aside and counted.
"""

import dataclasses
import functools
import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from wfm.curation.source.endings import EXTENSIONS, is_wanted
from wfm.curation.source.listing_rows import Row, as_text, parse_list, parse_table, shown_name, unsafe_name
from wfm.data.archive import ENDINGS, Archive, is_archive_name, split_member
from wfm.data.archive_index import Limits
from wfm.data.signatures import HEAD_BYTES
from wfm.data.source import problem_of
from wfm.errors import InputError
from wfm.log import get_logger

if TYPE_CHECKING:
    from wfm.artifacts import Artifact, Store

SIDECARS = (("actions", ".actions.parquet", ".parquet"), ("attributes", ".attributes.json", ".json"))
"""(kind, ending beside the video, ending in the sibling folder of that name)."""

LISTS = (".txt", ".jsonl", ".parquet")
"""Endings of a list of names."""

_LIMITS = Limits()


@dataclasses.dataclass(frozen=True, slots=True)
class SourceFile:
    """One file that ``--videos`` names. ``problem`` says why it may not even be opened (``code: words``), or is empty."""

    source: str
    name: str
    size: int = 0
    stamp: str = ""
    "Changes when the bytes may have: time of change, etag, or sha256."
    problem: str = ""
    actions: str = ""
    "Source of the actions sidecar, or empty."
    attributes: str = ""
    sidecar_stamp: str = ""
    session_id: str = ""
    view: str = ""
    licence: str = ""
    "As a list states it; likewise the three that follow."
    consent: str = ""
    rights_holder: str = ""
    url: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values, empty ones left out."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "SourceFile":
        """Back from `to_json`."""
        return cls(**values)


@dataclasses.dataclass(frozen=True)
class Listing:
    """Files in order of source, and how many were left aside by kind (``hidden``, ``other_ending``)."""

    files: tuple[SourceFile, ...]
    aside: dict[str, int] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values: what enters a key. What was left aside does not: a note beside the videos changes no data set."""
        return {"files": [file.to_json() for file in self.files]}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Listing":
        """Back from `to_json`."""
        return cls(tuple(SourceFile.from_json(file) for file in values["files"]))


def list_source(url: str, store: "Store | None" = None, limits: Limits = _LIMITS) -> Listing:
    """Every file that ``url`` names; ``limits`` are those of archives.

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
        from wfm.curation.source.listing_remote import list_remote

        found = list_remote(url, store)
    else:
        found = _list_local(os.path.abspath(os.path.expanduser(url)))
    from wfm.curation.source.listing_archive import expand

    found = expand(found, store, limits)
    files: dict[str, SourceFile] = {}
    for file in found.files:  # a list may name a file twice
        known = files.setdefault(file.source, file)
        if known != file and not known.problem:
            problem = "contradiction: it is named twice, and different things are said of it"
            files[file.source] = SourceFile(file.source, file.name, problem=problem)
    aside = ", ".join(f"{count} {kind}" for kind, count in sorted(found.aside.items()))
    if not files:
        raise InputError(
            f"no video files in {url!r} ({aside or 'nothing else in it'}); looked for {' '.join((*EXTENSIONS, *ENDINGS))}"
        )
    if aside:
        get_logger(__name__).info("%s: %d videos; left aside: %s", url, len(files), aside)
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
        return _list_folder(path)
    if split_member(path) is not None:
        return Listing((local_file(path),))
    if os.path.lexists(path):
        if path.lower().endswith(LISTS):
            return list_names(_read_list(path), os.path.dirname(path), path)
        return Listing((local_file(path),))
    if glob.has_magic(path):
        matches = [match for match in sorted(glob.glob(path, recursive=True)) if not os.path.isdir(match)]
        if not matches:
            raise InputError(f"no file matches the glob {path!r}")
        return Listing(tuple(local_file(match) for match in matches))
    raise InputError(f"videos {path!r}: there is no such file or folder")


def _list_folder(root: str) -> Listing:
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
            files.append(_listed_file(os.path.join(folder, name.removeprefix("file://")), folder, known))
    if not files:
        raise InputError(f"the list {where!r} names no file")
    if remote:
        from wfm.curation.source.listing_remote import remote_files

        for place, file in zip(remote, remote_files(list(remote.values()), folder, store), strict=True):
            files[place] = file
    return Listing(tuple(files))


def _listed_file(path: str, folder: str, known: Row) -> SourceFile:
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


def is_sidecar_name(folder: str, name: str) -> bool:
    """Whether a file accompanies a video."""
    last = os.path.basename(folder)
    return any(name.endswith(beside) or (last == kind and name.endswith(end)) for kind, beside, end in SIDECARS)


def find_sidecars(
    path: str, exists: Callable[[str], bool], stamp: Callable[[str], str], *, any_json: bool = False
) -> tuple[dict[str, Any], str]:
    """({kind: path of the sidecar}, their stamps) of the video at ``path``; ``any_json``: x.json goes with x.mp4."""
    folder, slash, name = path.rpartition("/")
    stem = os.path.splitext(name)[0]
    above = folder.rpartition("/")
    found: dict[str, Any] = {}
    for kind, beside, ending in SIDECARS:
        sibling = f"{above[0]}{above[1]}{kind}/{stem}{ending}"
        plain = (f"{folder}{slash}{stem}.json",) if any_json and kind == "attributes" else ()
        for candidate in (f"{folder}{slash}{stem}{beside}", sibling, *plain):
            if exists(candidate):
                found[kind] = candidate
                break
    return found, ";".join(stamp(sidecar) for sidecar in found.values())


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


def _read_list(path: str) -> Iterator[Row]:
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
