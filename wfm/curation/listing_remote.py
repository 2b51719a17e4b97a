"""Listing of videos on ``s3://``, ``gs://`` and what else fsspec opens. Nothing is downloaded but a list of names."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from wfm.curation.endings import is_wanted
from wfm.curation.listing import (
    LISTS,
    SIDECARS,
    Listing,
    SourceFile,
    find_sidecars,
    is_sidecar_name,
    list_names,
    parse_list,
    parse_table,
    unsafe_name,
)
from wfm.data.archive import is_archive_name, split_member
from wfm.data.signatures import HEAD_BYTES
from wfm.data.source import object_stamp, remote_error, remote_file_system, remote_options
from wfm.errors import InputError, WfmError

if TYPE_CHECKING:
    from wfm.artifacts import Store

_AT_ONCE = 32  # requests in flight while the objects of a list are asked for


def list_remote(url: str, store: "Store | None") -> Listing:
    """Every video below a prefix, of a glob, of a list, or one object.

    Raises `InputError` for a missing bucket or refused credentials, `TryAgain` when the place does not answer.
    """
    if split_member(url) is not None:
        return Listing((SourceFile(url, url.rpartition("/")[2]),))
    try:
        file_system, path = remote_file_system(url, remote_options(store, url))
        scheme = url.split("://", 1)[0]
        if any(sign in path for sign in "*?["):
            entries = [e for e in file_system.glob(path, detail=True).values() if e["type"] == "file"]
            return _listing(file_system, scheme, entries, path, named=True)
        if file_system.isfile(path):
            if path.lower().endswith(".parquet"):
                with file_system.open(path, "rb") as table:
                    return list_names(parse_table(table, url), url.rpartition("/")[0], url, store)
            if path.lower().endswith(LISTS):
                text = file_system.cat_file(path).decode()
                return list_names(parse_list(text, url), url.rpartition("/")[0], url, store)
            return _listing(file_system, scheme, [file_system.info(path)], path, named=True)
        entries = _find(file_system, path)
        if not entries:
            file_system.ls(path, detail=False)  # tells a missing bucket from an empty one
        return _listing(file_system, scheme, entries, path, named=False)
    except WfmError:
        raise
    except UnicodeDecodeError:
        raise InputError(f"the list {url!r} is not UTF-8 text") from None
    except Exception as error:
        raise remote_error(url, error) from None


def remote_files(rows: list[tuple[str, dict[str, str]]], store: "Store | None") -> list[SourceFile]:
    """The objects that a list names, (URL, what the list says of it), each asked for by itself, many at a time."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda row: _remote_file(row[0], row[1], store), rows))


def _remote_file(url: str, known: dict[str, str], store: "Store | None") -> SourceFile:
    """One object. An object that is not there is a row with its reason, not the end of the run."""
    name = url.rpartition("/")[2]
    extra: dict[str, Any] = dict(known)
    try:
        member = split_member(url)
        info = _info(url, store) if member is None else {}
        stamps = []
        for kind in ("actions", "attributes"):
            if extra.get(kind):
                if "://" not in extra[kind]:
                    folder = (member[0] if member is not None else url).rpartition("/")[0]
                    extra[kind] = f"{folder}/{extra[kind]}"
                of = split_member(extra[kind])
                stamps.append(object_stamp(_info(of[0] if of is not None else extra[kind], store)))
    except (FileNotFoundError, PermissionError) as error:
        code = "not_found" if isinstance(error, FileNotFoundError) else "unreadable"
        return SourceFile(url, name, problem=f"{code}: the object, or its sidecar, may not be read")
    except WfmError:
        raise
    except Exception as error:
        raise remote_error(url, error) from None
    stamp = object_stamp(info) if info else ""
    file = SourceFile(url, name, int(info.get("size") or 0), stamp, sidecar_stamp=";".join(stamps))
    return dataclasses.replace(file, **extra)


def _info(url: str, store: "Store | None") -> dict[str, Any]:
    file_system, path = remote_file_system(url, remote_options(store, url))
    return dict(file_system.info(path))


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
    url, name = f"{scheme}://{path}", path.rpartition("/")[2]
    problem = unsafe_name(path)
    if problem:
        return SourceFile(url, name, problem=problem)
    if is_archive_name(name):
        return SourceFile(url, name, int(entry.get("size") or 0), object_stamp(entry))
    sidecars, stamp = find_sidecars(path, known.__contains__, lambda p: object_stamp(known[p]))
    urls: dict[str, Any] = {kind: f"{scheme}://{sidecar}" for kind, sidecar in sidecars.items()}
    file = SourceFile(url, name, int(entry.get("size") or 0), object_stamp(entry), sidecar_stamp=stamp)
    return dataclasses.replace(file, **urls)


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
