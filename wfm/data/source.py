"""Where a video's bytes are: a source string -> a local file whose bytes are known.

A source is what tables hold: an absolute path, a URL (``s3://…``, ``gs://…``, ``https://…``; see `places` for which),
``wfm://<key>/<path>`` for a file of an artifact or part in the store, or ``<path or URL of an archive>!/<member>``
(`wfm.data.archive`). Remote files (`remote`) and members come through a local cache (`local`).
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wfm.data.archive import fetch_member, split_member
from wfm.data.local import CACHE_GIB_VARIABLE, DamagedSource, cache_bytes, keep, known_hash, problem_of
from wfm.data.places import RefusedPlace, is_web
from wfm.data.remote import (
    chunks_of,
    object_info,
    object_stamp,
    remote_error,
    remote_file_system,
    remote_options,
    stated_digests,
)
from wfm.errors import DataError, InputError

if TYPE_CHECKING:
    from wfm.artifacts import Artifact, Store


class SourceGone(DataError):
    """A source that ingest has seen is no longer there, or no longer has the same bytes."""


def open_source(store: "Store", source: str, video_id: str = "") -> Path:
    """The local file of a source. With ``video_id`` its bytes are checked: a file that has changed is refused.

    Raises `SourceGone` with advice when it is missing or changed, `InputError` when it may not be read, `TryAgain` when a
    remote place does not answer.
    """
    try:
        path, digest = fetch_source(store, source, want_hash=bool(video_id))
    except OSError as error:
        if error.errno in (2, 20):
            raise SourceGone(f"video {source!r} is not there any more: put it back, or ingest again") from error
        raise InputError(f"video {source!r} cannot be read: {error.strerror or error}") from error
    except DamagedSource as error:
        raise SourceGone(f"video {source!r} has been damaged since it was ingested: {error.words}") from error
    if video_id and digest != video_id:
        raise SourceGone(
            f"video {source!r} has changed since it was ingested (sha256 {digest[:12]}…, was {video_id[:12]}…): ingest again"
        )
    return path


def fetch_source(store: "Store", source: str, *, want_hash: bool = True) -> tuple[Path, str]:
    """(local file, sha256 of its bytes, or "" when not wanted).

    Raises OSError for a local file or archive that cannot be read, `DamagedSource` for bytes that are not what the archive or
    the bucket says of them.
    """
    if source.startswith("wfm://"):
        artifact, path = store_file(store, source)
        return artifact.fetch(path), artifact.file(path).sha256
    member = split_member(source)
    if member is not None:
        local = fetch_member(store, *member)
    elif "://" in source:
        local = _download(source, remote_options(store, source))
    else:
        local = Path(source)
        problem = problem_of(source)
        if problem:
            code = 2 if problem.startswith(("not_found", "dangling_link")) else 22
            raise OSError(code, problem, source)
    return local, known_hash(local) if want_hash else ""


def store_file(store: "Store", source: str) -> tuple["Artifact", str]:
    """``wfm://<key>/<path>`` -> (the artifact or part of that key, the path in it)."""
    match = re.fullmatch(r"wfm://([0-9a-f]{64})/(.+)", source, re.DOTALL)
    if match is None:
        raise InputError(f"source {source!r} is not of the form wfm://<64 hex digits>/<path>")
    key, path = match.groups()
    return (store.part(key) if store.has_part(key) else store.artifact(key)).without("truth/"), path


def problem_of_source(source: str) -> str:
    """`problem_of` a local source, or of the local archive that it lies in; "" for a remote one."""
    member = split_member(source)
    place = member[0] if member is not None else source
    return "" if "://" in place else problem_of(place)


def stated_digest(store: "Store", source: str) -> str:
    """The sha256 that the bucket itself keeps of an object, in hex, without reading the object; "" where it keeps none.

    S3 keeps one of the whole object where it was uploaded with one and in one piece (`ChecksumSHA256`, type FULL_OBJECT).
    """
    if not source.startswith("s3://") or split_member(source) is not None:
        return ""
    try:
        file_system, path = remote_file_system(source, remote_options(store, source))
        return stated_digests(object_info(file_system, path)).get("sha256", b"").hex()
    except Exception as error:
        raise remote_error(source, error) from None


def _download(url: str, options: dict[str, Any]) -> Path:
    """A remote file through the cache: ``<cache>/sources/<hash of url and etag>``. From the web, where a server may send
    without end, none that the cache cannot hold."""
    try:
        file_system, path = remote_file_system(url, options)
        info = object_info(file_system, path)
    except Exception as error:
        raise remote_error(url, error) from None
    size, chunks = int(info.get("size") or 0), chunks_of(file_system, path, url)
    if is_web(url):
        chunks = _fitting(size, chunks)
    return keep(f"{url}\n{object_stamp(info)}", path, size, chunks, stated_digests(info))


def _fitting(stated: int, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Raises `RefusedPlace` at once, or where more bytes come than are stated, when the cache cannot hold them."""
    most = cache_bytes()

    def check(size: int) -> None:
        if size > most:
            raise RefusedPlace(
                f"refused_place: it has {size:,} bytes or more, and {CACHE_GIB_VARIABLE} lets the cache hold {most:,.0f}"
            )

    def counted() -> Iterator[bytes]:
        total = 0
        for chunk in chunks:
            total += len(chunk)
            check(total)
            yield chunk

    check(stated)
    return counted()
