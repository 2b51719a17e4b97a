"""Where things lie: store URLs, keys, and which paths and names are allowed.

Nothing from outside is trusted: a path that could leave its folder, or that some file system or shell would read
differently, is refused.
"""

import hashlib
import os
import re
import secrets
import stat
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from wfm.errors import DataError, InputError

KEY_PATTERN = re.compile(r"[0-9a-f]{64}")
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
ID_PATTERN = re.compile(r"[0-9]{8}T[0-9]{9}-[0-9a-f]{8}")
"""What `new_id` makes: the ids of attempts and runs, which are names of folders."""
REMOTE_SCHEMES = ("s3", "gs")
MAX_PATH_BYTES = 800  # S3 allows 1,024 bytes for a whole object name; the rest is for the store's own folders
MAX_SEGMENT_BYTES = 240  # file systems allow 255; temporary files add a few
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True)
class Address:
    """A store's address: `scheme` (file, s3, gs), `root` (absolute path, or bucket/prefix), `url` (canonical, no
    trailing slash)."""

    scheme: str
    root: str

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.root}"

    @property
    def digest(self) -> str:
        """16 hex digits that name this store in a local cache."""
        return hashlib.sha256(self.url.encode()).hexdigest()[:16]


def parse_address(url_or_path: str | os.PathLike[str]) -> Address:
    """Read a store URL or a plain path. Nothing in a URL is percent-decoded (as in fsspec), so that `url` reads back as it was.

    Raises InputError for an unknown scheme, credentials inside the URL (they would end up in logs and specs), or no
    bucket.
    """
    text = os.fspath(url_or_path)
    if not text or any(ord(c) < 32 for c in text):
        raise InputError(
            f"store address {text!r} is empty or has control characters: give a folder, file://, s3:// or gs:// URL"
        )
    scheme, separator, rest = text.partition("://")
    if not separator:
        known, colon, _ = text.partition(":")
        if colon and known in ("file", *REMOTE_SCHEMES):
            raise InputError(
                f"store address {text!r} lacks a slash: write {known}://…, or ./{text} for a folder of that name"
            )
        return Address("file", _local_root(text))
    if scheme == "file":
        host, slash, path = rest.partition("/")
        if host not in ("", "localhost"):
            raise InputError(
                f"store address {text!r}: a file URL needs three slashes (file:///folder), this one names the host {host!r}"
            )
        return Address("file", _local_root(slash + path))
    if scheme not in REMOTE_SCHEMES:
        raise InputError(
            f"store address has the unknown scheme {scheme!r}: choose one of file, {', '.join(REMOTE_SCHEMES)}"
        )
    parts = urlsplit(text)
    if "@" in parts.netloc:
        raise InputError(
            f"the {scheme}:// store address has credentials in it: take them out and give them through the environment "
            "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or GOOGLE_APPLICATION_CREDENTIALS)"
        )
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.strip("/")
    if not bucket:
        raise InputError(f"store address {text!r} names no bucket: write {scheme}://BUCKET/PREFIX")
    if prefix:
        safe_path(prefix)
    return Address(scheme, f"{bucket}/{prefix}" if prefix else bucket)


def _local_root(path: str) -> str:
    return str(Path(os.path.abspath(os.path.expanduser(path))))


def check_key(key: str) -> str:
    """Return `key`, or raise InputError when it is not 64 lower-case hex digits."""
    if not isinstance(key, str) or not KEY_PATTERN.fullmatch(key):
        raise InputError(f"key {key!r} is not a key: 64 lower-case hex digits are expected")
    return key


def check_name(name: str, what: str) -> str:
    """Return `name` (of a kind, an alias, a part, a node ...), or raise InputError when it is not a plain word."""
    if not isinstance(name, str) or not NAME_PATTERN.fullmatch(name):
        raise InputError(
            f"{what} {name!r} is not allowed: use letters, digits, '.', '_' and '-' (first a letter or digit, at most 128)"
        )
    return name


def safe_path(path: str) -> str:
    """Return the relative POSIX path unchanged, or raise InputError saying what is wrong with it.

    Refused: empty, absolute, `.`/`..`/empty segments, backslashes, drive letters, control characters, bytes that are not
    UTF-8, over-long names.
    """
    if not isinstance(path, str):
        raise InputError(f"path {str(path)[:80]!r} is not a string")
    reason = path_fault(path)
    if reason:
        raise InputError(f"path {path[:MAX_PATH_BYTES]!r} is not allowed: {reason}")
    return path


def path_fault(path: str) -> str:
    """What is wrong with a relative POSIX path in words, or ""."""
    if not path:
        return "it is empty"
    if path.startswith("/"):
        return "it is absolute; a path relative to the artifact is expected"
    if "\\" in path:
        return "it has a backslash"
    if _DRIVE.match(path):
        return "it begins with a drive letter"
    if _CONTROL.search(path):
        return "it has control characters"
    try:
        data = path.encode()
    except UnicodeEncodeError:
        return "its name is not valid UTF-8"
    if len(data) > MAX_PATH_BYTES:
        return f"it has {len(data)} bytes, at most {MAX_PATH_BYTES} fit"
    for segment in path.split("/"):
        if segment in ("", ".", ".."):
            return f"it has the segment {segment!r}"
        if len(segment.encode()) > MAX_SEGMENT_BYTES:
            return f"a segment has more than {MAX_SEGMENT_BYTES} bytes"
    return ""


def below(root: Path, path: str) -> Path:
    """Where the safe relative `path` lies below the folder `root`: the one join of the store, for what is there and for what is
    not yet. The root itself may be a link.

    Raises InputError for an unsafe path, DataError when anything on the way below `root` is a link: whoever may write into a
    store could lead a reader, or a deletion, out of it.
    """
    safe_path(path)
    whole = os.fspath(root)
    for step in path.split("/"):
        whole = f"{whole}/{step}"
        try:
            mode = os.lstat(whole).st_mode
        except (FileNotFoundError, NotADirectoryError):  # nothing there yet, nor below
            break
        if stat.S_ISLNK(mode):
            raise DataError(
                f"{whole} is a link: links below {root} are not followed; put the files themselves there, or let the folder "
                "as a whole be the link"
            )
    return root / path


class _Clock:
    """Milliseconds since 1970 that never repeat nor go back in this process, whatever the system's clock does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def __call__(self) -> int:
        with self._lock:
            self._last = max(time.time_ns() // 1_000_000, self._last + 1)
            return self._last


_clock = _Clock()


def new_id() -> str:
    """An id that sorts by time (UTC, milliseconds) and is unique: `20261122T122100123-9f3ac21b`. Those of one process sort in
    the order they were made in."""
    now = _clock()
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now // 1000))
    return f"{stamp}{now % 1000:03d}-{secrets.token_hex(4)}"


def id_stamp(identifier: str) -> str:
    """When `new_id` made this id, as `utc_now` writes times."""
    day, clock = identifier[:8], identifier[9:18]
    return f"{day[:4]}-{day[4:6]}-{day[6:]}T{clock[:2]}:{clock[2:4]}:{clock[4:6]}.{clock[6:]}Z"


def id_time(identifier: str) -> float:
    """Unix seconds at which `new_id` made this id; 0.0 for an id of another shape."""
    import calendar

    try:
        return calendar.timegm(time.strptime(identifier[:15], "%Y%m%dT%H%M%S")) + int(identifier[15:18]) / 1000
    except ValueError:
        return 0.0


def utc_now() -> str:
    """The time now, UTC, ISO 8601 with milliseconds."""
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"


def age_seconds(created_at: str) -> float:
    """Seconds since a time of `utc_now`; 0 for a text of another shape, so that it counts as young."""
    import calendar

    match = re.fullmatch(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]+)?Z", created_at)
    if not match:
        return 0.0
    try:
        seconds = calendar.timegm(time.strptime(match[1], "%Y-%m-%dT%H:%M:%S"))
    except ValueError:  # the 99th of a month
        return 0.0
    return time.time() - seconds - float(match[2] or 0)


def cache_root() -> Path:
    """The local cache for remote stores: $WFM_CACHE, else ~/.cache/wfm."""
    try:
        return Path(os.environ.get("WFM_CACHE") or Path.home() / ".cache" / "wfm").absolute()
    except RuntimeError:  # no HOME, and a user that no list knows
        raise InputError("this user has no home: set WFM_CACHE to a folder on a disk of this machine or pod") from None
