"""Where a video's bytes are: a source string -> a local file whose bytes are known.

A source is what tables hold: an absolute path, a URL (``s3://…``, ``gs://…``, ``https://…``; see `places` for which),
``wfm://<key>/<path>`` for a file of an artifact or part in the store, or ``<path or URL of an archive>!/<member>``
(`wfm.data.archive`). Remote files and members come through a local cache. Credentials are taken from the environment or the
store's own options, never from a URL, and never appear in a message.
"""

import base64
import contextlib
import hashlib
import os
import re
import stat
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wfm.artifacts.atomic import whole_file
from wfm.artifacts.verified import hash_file
from wfm.credentials import carries_credentials, without_credentials
from wfm.data.places import (
    ADDRESSES_VARIABLE,
    RefusedPlace,
    is_web,
    opened_networks,
    refusal_in,
    refuse_place,
    web_client,
)
from wfm.errors import ConfigError, DataError, InputError, MissingPackage, TryAgain, WfmError

if TYPE_CHECKING:
    from wfm.artifacts import Artifact, Store

CACHE_GIB_VARIABLE = "WFM_SOURCE_CACHE_GIB"
"""Environment variable: how much of the local cache downloaded videos may fill [GiB]; 20 by default."""

_CHUNK = 4 << 20
_IN_USE_SECONDS = 900  # a download touched this recently may still be open somewhere
_HASHES_KEPT = 4096
_hashes: dict[tuple[str, int, int, int], str] = {}
_SYSTEMS_KEPT = 64
_systems: dict[tuple[int, str, bytes], Any] = {}
_systems_lock = threading.Lock()
_WRONG = (
    "NoSuchBucket",
    "AccessDenied",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidToken",
    "ExpiredToken",
    "Forbidden",
    "NoCredentials",
    "PartialCredentials",
    "Unable to locate credentials",
    "Invalid bucket name",
)


class SourceGone(DataError):
    """A source that ingest has seen is no longer there, or no longer has the same bytes."""


class NotThere(InputError):
    """A remote place holds nothing under a name."""


class DamagedSource(DataError):
    """Bytes are not what whoever keeps them says they are. ``code`` is a stable reason code, ``words`` say what is wrong."""

    def __init__(self, code: str, words: str) -> None:
        self.code, self.words = code, words
        super().__init__(f"{code}: {words}")

    def __reduce__(self) -> tuple[type["DamagedSource"], tuple[str, str]]:
        return type(self), (self.code, self.words)  # it crosses from a worker


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
    from wfm.data.archive import fetch_member, split_member

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


def problem_of(path: str) -> str:
    """Why a local path may not be opened, as ``code: words``, or "". Looks at it without opening it: a FIFO would hang."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        if os.path.islink(path):
            return "dangling_link: the file it points to is not there"
        return "not_found: there is no such file"
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError):  # halves of characters, a NUL
            return f"unsafe_name: {error}"
        code = "dangling_link" if os.path.islink(path) else "unreadable"
        return f"{code}: {error.strerror}"
    if stat.S_ISREG(mode):
        return ""
    kinds = {
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
        stat.S_IFDIR: "a folder",
    }
    return f"not_a_regular_file: it is {kinds.get(stat.S_IFMT(mode), 'a special file')}"


def problem_of_source(source: str) -> str:
    """`problem_of` a local source, or of the local archive that it lies in; "" for a remote one."""
    from wfm.data.archive import split_member

    member = split_member(source)
    place = member[0] if member is not None else source
    return "" if "://" in place else problem_of(place)


def stated_digest(store: "Store", source: str) -> str:
    """The sha256 that the bucket itself keeps of an object, in hex, without reading the object; "" where it keeps none.

    S3 keeps one of the whole object where it was uploaded with one and in one piece (`ChecksumSHA256`, type FULL_OBJECT).
    """
    from wfm.data.archive import split_member

    if not source.startswith("s3://") or split_member(source) is not None:
        return ""
    try:
        file_system, path = remote_file_system(source, remote_options(store, source))
        return _stated(object_info(file_system, path)).get("sha256", b"").hex()
    except Exception as error:
        raise remote_error(source, error) from None


def known_hash(path: str | Path) -> str:
    """sha256 of a local file, in hex; remembered in this process while size and times stay. Raises OSError."""
    known = _identity(path)
    if known not in _hashes:
        _remember(known, hash_file(path)[1])
    return _hashes[known]


def _identity(path: str | Path) -> tuple[str, int, int, int]:
    info = os.stat(path)
    return str(path), info.st_size, info.st_mtime_ns, info.st_ino


def _remember(known: tuple[str, int, int, int], digest: str) -> None:
    while len(_hashes) >= _HASHES_KEPT:
        _hashes.pop(next(iter(_hashes)), None)
    _hashes[known] = digest


def remote_options(store: "Store | None", url: str) -> dict[str, Any]:
    """What fsspec is given for a URL: the store's own options where the store lies in the same kind of place."""
    options: dict[str, Any] = {}
    scheme = url.split("://", 1)[0]
    if store is not None and store.url.startswith(f"{scheme}://"):
        options = {name: value for name, value in store.options.items() if name not in ("retry_seconds", "fsync")}
    return {**options, "skip_instance_cache": True, "use_listings_cache": False} if scheme in ("s3", "gs") else options


def refuse_credentials(url: str) -> None:
    """Raises `InputError` for an address with credentials in it, without showing them."""
    if carries_credentials(url):
        raise InputError(
            f"the {url.split('://', 1)[0]}:// address carries credentials: take them out and give them through the environment "
            "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or GOOGLE_APPLICATION_CREDENTIALS)"
        )


def remote_file_system(url: str, options: dict[str, Any]) -> tuple[Any, str]:
    """(fsspec file system, path in it) of a URL. Raises `InputError` for credentials in it, `RefusedPlace` for one that may not
    be asked.

    One file system serves all of a bucket or host while the credentials in the environment stay: making one takes longer than
    most requests.
    """
    refuse_credentials(url)
    refuse_place(url)
    scheme, _, rest = url.partition("://")
    place = f"{scheme}://{rest.partition('/')[0]}/"
    named = ("AWS_", "GOOGLE_", ADDRESSES_VARIABLE)
    access = sorted((name, value) for name, value in os.environ.items() if name.startswith(named))
    known = os.getpid(), place, hashlib.sha256(repr((sorted(options.items()), access)).encode()).digest()
    with _systems_lock:
        if known not in _systems:
            while len(_systems) >= _SYSTEMS_KEPT:
                _systems.pop(next(iter(_systems)))
            _systems[known] = _make_file_system(url, scheme, options)
        file_system = _systems[known]
    return file_system, str(file_system._strip_protocol(url))


def _make_file_system(url: str, scheme: str, options: dict[str, Any]) -> Any:
    import fsspec

    try:
        if is_web(url):
            opened_networks()  # raises, rather than later with each connection
            return fsspec.filesystem(scheme, get_client=web_client, skip_instance_cache=True)
        return fsspec.core.url_to_fs(url, **options)[0]
    except ImportError:
        package, extra = {"gs": ("gcsfs", "gcs"), "gcs": ("gcsfs", "gcs")}.get(scheme, ("s3fs", "s3"))
        raise MissingPackage(package, extra=extra, purpose=f"reading {scheme}:// videos") from None
    except ValueError as error:
        raise InputError(f"address {url!r}: {error}") from None


def remote_error(url: str, error: BaseException) -> WfmError:
    """What a remote place's error means: `NotThere`, `InputError` for refused credentials, else `TryAgain`."""
    text = without_credentials(f"{type(error).__name__}: {error}")[:300]
    if isinstance(error, WfmError):
        return error
    if refusal := refusal_in(error):
        return RefusedPlace(refusal)
    silent = is_web(url) and error.__cause__ is not None and not hasattr(error.__cause__, "status")
    if isinstance(error, FileNotFoundError) and not silent:  # fsspec says it of a host that does not answer, too
        return NotThere(f"{url!r} is not there: check the bucket and the path ({text})")
    if isinstance(error, PermissionError) or any(word in text for word in _WRONG):
        return InputError(
            f"{url!r} refused us: check that the bucket exists and that the credentials in the environment may list and read "
            f"it ({text})"
        )
    return TryAgain(f"{url!r} does not answer: {text}")


def problem_of_error(url: str, error: WfmError) -> str:
    """What an error of a remote place says of one file (``code: words``), so that the others can go on. An endpoint that does
    not answer is no fault of the file's: that error is raised again."""
    if isinstance(error, RefusedPlace | DamagedSource):
        return str(error)
    if isinstance(error, NotThere):
        return f"not_found: {error}"
    if isinstance(error, InputError) and not isinstance(error, ConfigError):
        return f"unreadable: {error}"
    if isinstance(error, TryAgain) and is_web(url):  # its host is the file's own, and may be anyone's
        return f"unreachable: {error}"
    raise error


def _download(url: str, options: dict[str, Any]) -> Path:
    """A remote file through the cache: ``<cache>/sources/<hash of url and etag>``. From the web, where a server may send
    without end, none that the cache cannot hold."""
    try:
        file_system, path = remote_file_system(url, options)
        info = object_info(file_system, path)
    except Exception as error:
        raise remote_error(url, error) from None
    size, chunks = int(info.get("size") or 0), _chunks(file_system, path, url)
    if is_web(url):
        chunks = _fitting(size, chunks)
    return keep(f"{url}\n{object_stamp(info)}", path, size, chunks, _stated(info))


def _fitting(stated: int, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Raises `RefusedPlace` at once, or where more bytes come than are stated, when the cache cannot hold them."""
    most = _cache_bytes()

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


def keep(stamp: str, name: str, size: int, chunks: Iterable[bytes], stated: Mapping[str, bytes] | None = None) -> Path:
    """Bytes through the cache: ``<cache>/sources/<hash of stamp>`` with the ending of ``name``; ``chunks`` are read when it is
    not there. Hashed while they are written; ``size`` makes room.

    Raises `DamagedSource` when the bytes do not have the digests that are ``stated`` of them (hashlib's name -> digest).
    """
    from wfm.artifacts.address import cache_root

    folder = cache_root() / "sources"
    ending = Path(name).suffix
    suffix = ending if re.fullmatch(r"\.[A-Za-z0-9]{1,8}", ending) else ""
    target = folder / (hashlib.sha256(stamp.encode()).hexdigest() + suffix)
    if target.exists():
        os.utime(target)
        return target
    folder.mkdir(parents=True, exist_ok=True)
    _make_room(folder, size)
    digests = {kind: hashlib.new(kind) for kind in ("sha256", *(stated or {}))}
    with whole_file(target) as temporary:
        with temporary.open("wb") as out:
            for chunk in chunks:
                out.write(chunk)
                for digest in digests.values():
                    digest.update(chunk)
        for kind, wanted in (stated or {}).items():
            if digests[kind].digest() != wanted:
                words = f"its bytes have the {kind} {digests[kind].hexdigest()}, the bucket says {wanted.hex()}"
                raise DamagedSource("checksum_mismatch", words)
    _remember(_identity(target), digests["sha256"].hexdigest())
    return target


def object_info(file_system: Any, path: str) -> dict[str, Any]:
    """What is known of an object; on S3 with the checksums it keeps, which fsspec does not ask for."""
    if "s3" not in file_system.protocol:
        return dict(file_system.info(path))
    bucket, key, _ = file_system.split_path(path)
    head = file_system.call_s3("head_object", Bucket=bucket, Key=key, ChecksumMode="ENABLED")
    return {**head, "size": head["ContentLength"]}


def object_stamp(info: Mapping[str, Any]) -> str:
    """What changes when an object's bytes may have: its tag, digest or time, and its size."""
    names = ("ETag", "etag", "md5Hash", "LastModified", "mtime", "created")
    tag = next((info[name] for name in names if info.get(name)), None)
    return f"etag:{str(tag).strip(chr(34))}:{info.get('size')}"


def _stated(info: Mapping[str, Any]) -> dict[str, bytes]:
    """Digests of the whole object that the bucket keeps: sha256 (S3), or md5 (Google).

    Of an object that came in pieces S3 keeps a checksum of their checksums, which is none of the bytes: its type is COMPOSITE,
    and where a server names no type the pieces are counted in the ETag.
    """
    pieces = "-" in str(info.get("ETag") or "")
    whole = info.get("ChecksumType", "COMPOSITE" if pieces else "FULL_OBJECT") == "FULL_OBJECT"
    found = {"sha256": info.get("ChecksumSHA256") if whole else None, "md5": info.get("md5Hash")}
    stated = {}
    for kind, text in found.items():
        with contextlib.suppress(ValueError):
            digest = base64.b64decode(text or "", validate=True)
            if len(digest) == hashlib.new(kind).digest_size:
                stated[kind] = digest
    return stated


def _chunks(file_system: Any, path: str, url: str) -> Iterator[bytes]:
    try:
        with file_system.open(path, "rb", block_size=_CHUNK, cache_type="readahead") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
    except GeneratorExit:
        raise
    except Exception as error:
        if type(error).__name__ == "FlexibleChecksumError":  # the S3 client has compared them itself
            raise DamagedSource("checksum_mismatch", str(error)) from None
        raise remote_error(url, error) from None


def _cache_bytes() -> float:
    return float(os.environ.get(CACHE_GIB_VARIABLE, "20")) * 2**30


def _make_room(folder: Path, size: int) -> None:
    """Delete the longest unused downloads until ``size`` more bytes fit under the cache's limit."""
    limit = _cache_bytes()
    files = []
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            files.append((path.stat().st_mtime, path.stat().st_size, path))
    used = size + sum(bytes_ for _, bytes_, _ in files)
    for touched, bytes_, path in sorted(files):
        if used <= limit or time.time() - touched < _IN_USE_SECONDS:
            return
        path.unlink(missing_ok=True)
        used -= bytes_
