"""Reading what was promised: a file is given out only after its size and sha256 were found to be those of the
manifest."""

import hashlib
import os
import threading
from pathlib import Path
from stat import S_ISREG

from wfm.artifacts.address import below
from wfm.artifacts.listing import FileEntry
from wfm.artifacts.objects import Objects
from wfm.errors import DataError


def hash_file(path: Path | str, *, fsync: bool = False) -> tuple[int, str]:
    """(size in bytes, sha256 hex) of a file, whoever asks; with `fsync` its bytes are made durable too."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if fsync:
            os.fsync(file.fileno())
        return file.tell(), digest


class VerifiedFiles:
    """Local paths of checked files; remote ones come through the cache folder.

    A file is hashed once a process, and again when its size, time or inode changed since.
    """

    def __init__(self, objects: Objects, cache: Path) -> None:
        self._objects = objects
        self._cache = cache
        self._seen: dict[Path, tuple[int, int, int, str]] = {}
        self._lock = threading.Lock()

    def local(self, path: str, entry: FileEntry) -> Path:
        """The checked local file of the object at `path`. Raises DataError when it is missing or not as the manifest
        says."""
        here = self._objects.local_path(path)
        if here is not None:
            return self._check(here, path, entry)
        cached = below(self._cache, path)
        try:
            return self._check(cached, path, entry)
        except DataError:
            cached.unlink(missing_ok=True)
        try:
            self._objects.download(path, cached)
        except FileNotFoundError:
            raise _missing(path, self._objects) from None
        try:
            return self._check(cached, path, entry)
        except DataError:
            cached.unlink(missing_ok=True)
            raise

    def _check(self, file: Path, path: str, entry: FileEntry) -> Path:
        try:
            stat = file.lstat()
        except (FileNotFoundError, NotADirectoryError):
            raise _missing(path, self._objects) from None
        if not S_ISREG(stat.st_mode):  # to open a pipe would wait for ever
            raise _damaged(path, self._objects, "it is no plain file")
        if stat.st_size != entry.size:
            raise _damaged(path, self._objects, f"it has {stat.st_size} bytes, the manifest says {entry.size}")
        mark = (stat.st_size, stat.st_mtime_ns, stat.st_ino, entry.sha256)
        if self._seen.get(file) == mark:
            return file
        _, digest = hash_file(file)
        if digest != entry.sha256:
            raise _damaged(path, self._objects, f"its sha256 is {digest}, the manifest says {entry.sha256}")
        with self._lock:
            self._seen[file] = mark
        return file


def _missing(path: str, objects: Objects) -> DataError:
    return DataError(
        f"{objects.address.url}/{path} is missing, though its manifest lists it: "
        "`wfm artifacts invalidate` the artifact and rerun"
    )


def _damaged(path: str, objects: Objects, reason: str) -> DataError:
    return DataError(
        f"{objects.address.url}/{path} is damaged: {reason}; `wfm artifacts invalidate` the artifact and rerun"
    )
