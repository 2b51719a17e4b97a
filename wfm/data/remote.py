"""Remote places: which file system serves an address, what an error of it means, and what it says of an object.

Credentials are taken from the environment or the store's own options, never from a URL, and never appear in a message.
"""

import base64
import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from wfm.artifacts.trouble import is_nameless, meaning
from wfm.credentials import carries_credentials, without_credentials
from wfm.data.local import DamagedSource
from wfm.data.places import (
    ADDRESSES_VARIABLE,
    RefusedPlace,
    is_web,
    opened_networks,
    refusal_in,
    refuse_place,
    web_client,
)
from wfm.errors import ConfigError, InputError, MissingPackage, TryAgain, WfmError

if TYPE_CHECKING:
    from wfm.artifacts import Store

_CHUNK = 4 << 20
_SYSTEMS_KEPT = 64
_systems: dict[tuple[int, str, bytes], Any] = {}
_systems_lock = threading.Lock()
_WRONG = (
    "NoSuchBucket",
    "AccessDenied",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidToken",
    "Forbidden",
    "NoCredentials",
    "PartialCredentials",
    "Unable to locate credentials",
    "Invalid bucket name",
)


class NotThere(InputError):
    """A remote place holds nothing under a name."""


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
    """What a remote place's error means: `NotThere`, `InputError` for refused credentials, else `TryAgain`: credentials
    that have expired are no fault of the place's."""
    text = without_credentials(f"{type(error).__name__}: {error}")[:300]
    if isinstance(error, WfmError):
        return error
    if refusal := refusal_in(error):
        return RefusedPlace(refusal)
    now = {"expired": "the credentials have expired: renew them", "skewed": "let this machine keep time (NTP)"}
    if cure := now.get(meaning(error)):
        return TryAgain(f"{url!r} cannot be read now; {cure} ({text})")
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


def object_info(file_system: Any, path: str) -> dict[str, Any]:
    """What is known of an object; on S3 with the checksums it keeps, which fsspec does not ask for."""
    if "s3" not in file_system.protocol:
        return dict(file_system.info(path))
    bucket, key, _ = file_system.split_path(path)
    look = partial(file_system.call_s3, "head_object", Bucket=bucket, Key=key, ChecksumMode="ENABLED")
    try:
        head = look()
    except Exception as error:
        if is_nameless(error):  # the answer to a GET says why
            _with_fresh_keys(file_system, partial(file_system.call_s3, "list_objects_v2", Bucket=bucket, MaxKeys=1))
        head = _with_fresh_keys(file_system, look)
    return {**head, "size": head["ContentLength"]}


def _with_fresh_keys(file_system: Any, ask: Callable[[], Any]) -> Any:
    """The answer; where the keys have expired, to the same question with the fresh ones that a new session is given."""
    try:
        return ask()
    except Exception as error:
        if meaning(error) != "expired":
            raise
    file_system.connect(refresh=True)
    return ask()


def object_stamp(info: Mapping[str, Any]) -> str:
    """What changes when an object's bytes may have: its tag, digest or time, and its size."""
    names = ("ETag", "etag", "md5Hash", "LastModified", "mtime", "created")
    tag = next((info[name] for name in names if info.get(name)), None)
    return f"etag:{str(tag).strip(chr(34))}:{info.get('size')}"


def stated_digests(info: Mapping[str, Any]) -> dict[str, bytes]:
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


def chunks_of(file_system: Any, path: str, url: str) -> Iterator[bytes]:
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
