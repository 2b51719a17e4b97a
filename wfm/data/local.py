"""Local files of videos: whether one may be opened, what its bytes are, and the cache that remote ones come through."""

import contextlib
import hashlib
import os
import re
import stat
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from wfm.artifacts.atomic import whole_file
from wfm.artifacts.verified import hash_file
from wfm.errors import DataError

CACHE_GIB_VARIABLE = "WFM_SOURCE_CACHE_GIB"
"""Environment variable: how much of the local cache downloaded videos may fill [GiB]; 20 by default."""
_IN_USE_SECONDS = 900  # a download touched this recently may still be open somewhere
_HASHES_KEPT = 4096
_hashes: dict[tuple[str, int, int, int], str] = {}


class DamagedSource(DataError):
    """Bytes are not what whoever keeps them says they are. ``code`` is a stable reason code, ``words`` say what is wrong."""

    def __init__(self, code: str, words: str) -> None:
        self.code, self.words = code, words
        super().__init__(f"{code}: {words}")

    def __reduce__(self) -> tuple[type["DamagedSource"], tuple[str, str]]:
        return type(self), (self.code, self.words)  # it crosses from a worker


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


def cache_bytes() -> float:
    return float(os.environ.get(CACHE_GIB_VARIABLE, "20")) * 2**30


def _make_room(folder: Path, size: int) -> None:
    """Delete the longest unused downloads until ``size`` more bytes fit under the cache's limit."""
    limit = cache_bytes()
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
