"""Records of buckets on a local disk, under a cap, shared by the processes of a machine.

A record is a file named by the sha256 of its bytes, which its reader knows beforehand: whatever lies there is hashed before it
is used, so that a damaged, truncated or foreign entry is noticed, and no process needs to trust another, or to sync a disk.

    <folder>/ab/cdef…      a record; its time of change is when it was used last
    <folder>/lock          held while a record is added; its 8 bytes say how many bytes lie here

The cap holds at each moment, for all processes together: bytes are counted under the lock, in whole blocks of a disk, before
they are written. When they do not fit, the records that were used longest ago go, down to nine tenths of the cap, so that the
folder is not listed again for the next one; what the listing finds is the count from then on. A record that does not get the
lock in a moment is not kept.
"""

import array
import contextlib
import fcntl
import hashlib
import os
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from wfm.artifacts.atomic import replace_on_disk
from wfm.data.reading.config import Counter
from wfm.errors import WfmError
from wfm.log import get_logger

_LOCK_SECONDS = 0.2
_LOW_WATER = 0.9
_BLOCK = 4096
"Bytes that a disk gives to a file at a time."
_COUNT = struct.Struct("<q")
_log = get_logger(__name__)


class RecordCache:
    """Bytes by their sha256. Never raises for what is wrong with its disk: then it keeps nothing more, and says so once."""

    def __init__(self, folder: Path, cap: int, counter: Counter) -> None:
        self._folder, self._cap, self._counter = folder, cap, counter
        self._adding = threading.Lock()
        self._off = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with self._locked() as lock:
                if lock is not None and self._counted(lock) > cap:  # it was larger before
                    os.pwrite(lock, _COUNT.pack(self._make_room(0)), 0)
        except (OSError, WfmError) as error:
            self._give_up(error)

    def get(self, digest: bytes) -> bytes | None:
        """The bytes that have this sha256; None when they are not here."""
        path = self._path(digest)
        try:
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            data = _all_of(file, self._cap)
            if hashlib.sha256(data).digest() == digest:
                with contextlib.suppress(OSError):
                    os.utime(file)
                return data
        except OSError:
            pass
        finally:
            os.close(file)
        self._counter.add(damaged_entries=1)
        return None  # `put` writes over it

    def put(self, digest: bytes, data: bytes) -> None:
        """Keep bytes, which have this sha256, if there is room or room can be made."""
        if self._off or _taken(len(data)) > self._cap:
            return
        try:
            with self._locked() as lock:
                if lock is not None:
                    self._add(lock, self._path(digest), data)
        except (OSError, WfmError) as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        if not self._off:
            self._off = True
            _log.warning("records are not kept in %s any more: %s; reading goes on without", self._folder, error)

    def _add(self, lock: int, path: Path, data: bytes) -> None:
        count, new = self._counted(lock), _taken(len(data))
        with contextlib.suppress(FileNotFoundError):  # one that is damaged, or that another process was first to add
            before = path.lstat().st_size
            path.unlink()
            count -= _taken(before)
        if count + new > self._cap:
            count = self._make_room(new)
        os.pwrite(lock, _COUNT.pack(count + new), 0)
        replace_on_disk(path, data, fsync=False)

    def _counted(self, lock: int) -> int:
        """The bytes that lie here."""
        stated = os.pread(lock, _COUNT.size, 0)
        count = _COUNT.unpack(stated)[0] if len(stated) == _COUNT.size else -1
        return count if count >= 0 else sum(taken for _, taken, _ in self._entries())

    def _make_room(self, new: int) -> int:
        """Delete what was used longest ago; returns the bytes that stay. Called by whoever holds the lock."""
        times, sizes = array.array("q"), array.array("q")  # not the names: there may be millions
        for time_, taken, _ in self._entries():
            times.append(time_)
            sizes.append(taken)
        stays = sum(sizes)
        excess = stays - min(int(_LOW_WATER * self._cap), self._cap - new)
        if excess <= 0:
            return stays
        order = np.argsort(np.frombuffer(times, np.int64), kind="stable")
        last = int(np.searchsorted(np.cumsum(np.frombuffer(sizes, np.int64)[order]), excess))
        until = times[order[last]]
        for time_, taken, path in self._entries():
            if time_ <= until and excess > 0:
                path.unlink(missing_ok=True)
                stays, excess = stays - taken, excess - taken
        return stays

    def _entries(self) -> Iterator[tuple[int, int, Path]]:
        """(time of last use [ns], bytes, path) of each record. What was being written when its process died is deleted."""
        for folder in self._folder.iterdir():
            if len(folder.name) != 2 or folder.is_symlink():  # what a link leads to is another's, and not to be deleted
                continue
            with os.scandir(folder) as entries:
                for entry in entries:
                    path = Path(entry.path)
                    if entry.name.startswith("."):
                        path.unlink(missing_ok=True)
                        continue
                    with contextlib.suppress(FileNotFoundError):
                        about = entry.stat(follow_symlinks=False)
                        yield about.st_mtime_ns, _taken(about.st_size), path

    def _path(self, digest: bytes) -> Path:
        name = digest.hex()
        return self._folder / name[:2] / name[2:]

    @contextlib.contextmanager
    def _locked(self, seconds: float = _LOCK_SECONDS) -> Iterator[int | None]:
        """The open lock file; None where another kept it for `seconds`."""
        until = time.monotonic() + seconds
        if not self._adding.acquire(timeout=seconds):
            yield None
            return
        try:
            lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            try:
                yield lock if _has_lock(lock, until) else None
            finally:
                os.close(lock)  # which gives it back
        finally:
            self._adding.release()


def _has_lock(lock: int, until: float) -> bool:
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(0.002)


def _all_of(file: int, most: int) -> bytes:
    size = os.fstat(file).st_size
    if size > most:  # no record of ours: read, it would take the memory
        return b""
    data = os.pread(file, size, 0)
    return data if len(data) == size else data + os.pread(file, size - len(data), len(data))


def _taken(size: int) -> int:
    """Bytes of a disk that a file of `size` takes."""
    return -(-size // _BLOCK) * _BLOCK
