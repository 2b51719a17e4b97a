"""Listing of videos on ``s3://``, ``gs://`` and what else fsspec opens. Nothing is downloaded but a list of names."""

import dataclasses
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from wfm.credentials import carries_credentials
from wfm.curation.source.extensions import is_wanted
from wfm.curation.source.listing_rows import LARGEST_LIST, Row, parse_list, parse_table, shown_name, unsafe_name
from wfm.curation.source.source_files import LISTS, SIDECARS, Listing, SourceFile, find_sidecars, is_sidecar_name
from wfm.data.archive import is_archive_name, split_member
from wfm.data.places import problem_of_place
from wfm.data.remote import (
    NotThere,
    object_stamp,
    problem_of_error,
    refuse_credentials,
    remote_error,
    remote_file_system,
    remote_options,
)
from wfm.data.signatures import HEAD_BYTES
from wfm.errors import InputError, WfmError

if TYPE_CHECKING:
    from wfm.artifacts import Store

_AT_ONCE = 32  # requests in flight while the objects of a list are asked for
_WILD = "*?["


def list_remote(url: str, store: "Store | None") -> Listing:
    """Every video below a prefix, of a glob, or one object.

    Raises `InputError` for a missing bucket or refused credentials, `TryAgain` when the place does not answer.
    """
    if split_member(url) is not None:
        refuse_credentials(url)
        return Listing((SourceFile(url, url.rpartition("/")[2]),))
    try:
        file_system, path = remote_file_system(url, remote_options(store, url))
        scheme = url.split("://", 1)[0]
        if any(sign in path for sign in _WILD):
            entries = [e for e in file_system.glob(path, detail=True).values() if e["type"] == "file"]
            return _listing(file_system, scheme, entries, path, named=True)
        if file_system.isfile(path):
            return _listing(file_system, scheme, [file_system.info(path)], path, named=True)
        entries = _find(file_system, path)
        if not entries:
            file_system.ls(path, detail=False)  # tells a missing bucket from an empty one
        return _listing(file_system, scheme, entries, path, named=False)
    except WfmError:
        raise
    except Exception as error:
        raise remote_error(url, error) from None


def read_remote_list(url: str, store: "Store | None") -> Iterator[Row] | None:
    """The rows of the list that lies there; None where ``url`` names something else. Raises like `list_remote`."""
    if not url.lower().endswith(LISTS) or split_member(url) is not None:
        return None
    try:
        file_system, path = remote_file_system(url, remote_options(store, url))
        if any(sign in path for sign in _WILD) or not file_system.isfile(path):
            return None
        with file_system.open(path, "rb") as text:
            data = b"".join(_up_to(text, LARGEST_LIST + 1))
    except WfmError:
        raise
    except Exception as error:
        raise remote_error(url, error) from None
    if len(data) > LARGEST_LIST:
        raise InputError(f"the list {url!r} has more than {LARGEST_LIST:,} bytes: give it in several")
    return parse_table(io.BytesIO(data), url) if path.lower().endswith(".parquet") else parse_list(data, url)


def remote_files(rows: list[tuple[str, dict[str, str]]], folder: str, store: "Store | None") -> list[SourceFile]:
    """The objects that a list in ``folder`` names, (URL, what the list says of it), each asked for by itself, many at once."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda row: _remote_file(row[0], row[1], folder, store), rows))


def _remote_file(url: str, known: dict[str, str], folder: str, store: "Store | None") -> SourceFile:
    """One object. What is refused, or not there, is a row with its reason, not the end of the run; a bucket that does not
    answer raises `TryAgain`."""
    shown = shown_name(url)
    name = shown.rpartition("/")[2]
    if problem := _problem_of_url(url):
        return SourceFile(shown, name, problem=problem)
    extra: dict[str, Any] = dict(known)
    member = split_member(url)
    home = (member[0] if member is not None else url).rpartition("/")[0]
    try:
        info = _info(url, store) if member is None else {}
        if info.get("type") == "directory":
            return SourceFile(url, name, problem="not_a_regular_file: it is a folder")
        stamps = []
        for kind in ("actions", "attributes"):
            if not extra.get(kind):
                continue
            sidecar = extra[kind] if "://" in extra[kind] else f"{home}/{extra[kind]}"
            if problem := _problem_of_sidecar(sidecar, (home, folder, f"{home.rpartition('/')[0]}/{kind}")):
                words = f"bad_sidecar: {kind} {shown_name(extra[kind])[:200]!r}: {problem}"
                return SourceFile(url, name, problem=words)
            extra[kind] = sidecar
            of = split_member(sidecar)
            stamps.append(object_stamp(_info(of[0] if of is not None else sidecar, store)))
    except Exception as error:
        found = remote_error(url, error)
        if isinstance(found, NotThere) or isinstance(error, PermissionError):
            code = "not_found" if isinstance(found, NotThere) else "unreadable"
            return SourceFile(url, name, problem=f"{code}: the object, or its sidecar, may not be read")
        return SourceFile(url, name, problem=problem_of_error(url, found))
    stamp = object_stamp(info) if info else ""
    file = SourceFile(url, name, int(info.get("size") or 0), stamp, sidecar_stamp=";".join(stamps))
    return dataclasses.replace(file, **extra)


def _problem_of_url(url: str) -> str:
    if carries_credentials(url):
        return "refused_place: the address carries credentials; take them out and give them through the environment"
    return problem_of_place(url)


def _problem_of_sidecar(url: str, homes: tuple[str, ...]) -> str:
    """A sidecar lies below the folder of the list or of the video, or where it would be found without a list."""
    wrong = _problem_of_url(url) or unsafe_name(url.partition("://")[2])
    if wrong or any("://" in home and url.startswith(f"{home}/") for home in homes):
        return wrong
    return "it lies neither below the list's folder nor beside the video; put it there"


def _info(url: str, store: "Store | None") -> dict[str, Any]:
    file_system, path = remote_file_system(url, remote_options(store, url))
    return dict(file_system.info(path))


def _up_to(file: Any, most: int) -> Iterator[bytes]:
    """The first ``most`` bytes: from a server that states no size, one read gives what has come so far."""
    while most > 0 and (chunk := file.read(most)):
        most -= len(chunk)
        yield chunk


def _listing(file_system: Any, scheme: str, entries: list[dict[str, Any]], root: str, *, named: bool) -> Listing:
    aside: dict[str, int] = {}
    known = {entry["name"]: entry for entry in entries}
    known |= {entry["name"]: entry for entry in _sibling_sidecars(file_system, root, entries)}
    files = []
    wanted = set() if named else _wanted(file_system, [entry["name"] for entry in entries])
    for entry in entries:
        path = entry["name"]
        folder, _, name = path.rpartition("/")
        below = path[len(root) :] if path.startswith(root) else name
        if not named and any(part.startswith(".") and part not in (".", "..") for part in below.split("/")):
            aside["hidden"] = aside.get("hidden", 0) + 1
        elif named or is_archive_name(name) or (not is_sidecar_name(folder, name) and path in wanted):
            files.append(_source_file(scheme, path, entry, known))
        elif name and not is_sidecar_name(folder, name):
            aside["other_ending"] = aside.get("other_ending", 0) + 1
    return Listing(tuple(files), aside)


def _wanted(file_system: Any, paths: list[str]) -> set[str]:
    """Those that are taken for videos. Only objects without an ending are asked for their first bytes: each costs a request."""

    def wanted(path: str) -> bool:
        return is_wanted(path.rpartition("/")[2], lambda: _head(file_system, path), any_ending=False)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return {path for path, is_one in zip(paths, pool.map(wanted, paths), strict=True) if is_one}


def _head(file_system: Any, path: str) -> bytes:
    """The first bytes; of an object that may not be read a byte that is neither video nor text, so that it gets a row."""
    try:
        return bytes(file_system.cat_file(path, start=0, end=HEAD_BYTES))
    except (FileNotFoundError, PermissionError):
        return b"\0"


def _source_file(scheme: str, path: str, entry: dict[str, Any], known: dict[str, dict[str, Any]]) -> SourceFile:
    url = _url_of(scheme, path)
    name = path.rpartition("/")[2]
    problem = unsafe_name(path.partition("://")[2] or path) or problem_of_place(url)
    if problem:
        return SourceFile(shown_name(url), shown_name(name), problem=problem)
    if is_archive_name(name):
        return SourceFile(url, name, int(entry.get("size") or 0), object_stamp(entry))
    sidecars, stamp = find_sidecars(path, known.__contains__, lambda p: object_stamp(known[p]))
    urls: dict[str, Any] = {kind: _url_of(scheme, sidecar) for kind, sidecar in sidecars.items()}
    file = SourceFile(url, name, int(entry.get("size") or 0), object_stamp(entry), sidecar_stamp=stamp)
    return dataclasses.replace(file, **urls)


def _url_of(scheme: str, path: str) -> str:
    """fsspec has paths in buckets without their scheme, web addresses with it."""
    return path if "://" in path else f"{scheme}://{path}"


def _sibling_sidecars(file_system: Any, root: str, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sidecar folders beside the listed prefix itself: they lie above it."""
    above = root.rstrip("/").rpartition("/")[0]
    if not above or not any(entry["name"].rpartition("/")[0] == root.rstrip("/") for entry in entries):
        return []
    found: list[dict[str, Any]] = []
    for kind, _, _ in SIDECARS:
        found += _find(file_system, f"{above}/{kind}")
    return found


def _find(file_system: Any, path: str) -> list[dict[str, Any]]:
    return [entry for entry in file_system.find(path, detail=True).values() if entry["type"] == "file"]
