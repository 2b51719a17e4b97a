"""Ranges of local files: one pread each, on handles that are kept open."""

import os
import threading

from wfm.artifacts.atomic import disk_error, open_plain
from wfm.data.remote import NotThere
from wfm.errors import DataError, TryAgain, outcome_of

_MOST_OPEN = 128


class _Handle:
    """A file descriptor that is closed when the last thread that uses it lets go."""

    __slots__ = ("number",)

    def __init__(self, path: str) -> None:
        with open_plain(path) as file:  # type: ignore[arg-type]
            self.number = os.dup(file.fileno())

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


class Disk:
    """Files by path, of which at most `most_open` are open: the one that was opened first is let go."""

    def __init__(self, most_open: int = _MOST_OPEN) -> None:
        self._most_open, self._handles, self._lock = most_open, dict[str, _Handle](), threading.Lock()

    def sizes(self, paths: list[str]) -> list[int]:
        """Of files [bytes]. Raises as `read` does."""
        found = []
        for path in paths:
            try:
                found.append(os.stat(path).st_size)
            except OSError as error:
                raise _meant(error, path) from error
        return found

    def read(self, path: str, offset: int, size: int) -> bytes:
        """Exactly `size` bytes. Raises `DataError` where the file ends before, `NotThere`, `InputError` where this user may not
        read it, `TryAgain` for a disk in trouble."""
        handle = self._handles.get(path)
        try:
            data = os.pread(handle.number, size, offset) if handle else b""
            if len(data) == size:
                return data
            data = _whole(handle or self._handle(path), offset, size)
        except OSError as error:
            self._forget(path)  # on a network file system the file may have got another handle
            try:
                data = _whole(self._handle(path), offset, size)
            except OSError:
                raise _meant(error, path) from error
        if len(data) != size:
            end = f"at byte {offset + len(data)}" if data else "before"
            raise DataError(
                f"{path} ends {end}, {size} bytes at {offset} were asked for: the shard is cut short, or the table of records "
                "is of another"
            )
        return data

    def close(self) -> None:
        with self._lock:
            self._handles.clear()

    def _handle(self, path: str) -> _Handle:
        handle = self._handles.get(path)
        if handle is None:
            handle = _Handle(path)
            with self._lock:
                while len(self._handles) >= self._most_open:
                    self._handles.pop(next(iter(self._handles)))
                self._handles[path] = handle
        return handle

    def _forget(self, path: str) -> None:
        with self._lock:
            self._handles.pop(path, None)


def _whole(handle: _Handle, offset: int, size: int) -> bytes:
    """Up to `size` bytes: fewer where the file ends."""
    data = os.pread(handle.number, size, offset)
    if len(data) == size or not data:
        return data
    pieces = [data]  # the system gives at most 2 GiB at once
    while data and (done := sum(map(len, pieces))) < size:
        data = os.pread(handle.number, size - done, offset + done)
        pieces.append(data)
    return b"".join(pieces)


def _meant(error: OSError, path: str) -> Exception:
    if isinstance(error, FileNotFoundError):
        return NotThere(f"{path} is not there: the table of records names this shard")
    if outcome_of(error) == TryAgain.outcome:
        return TryAgain(f"{path} cannot be read now ({error.strerror})")
    return disk_error(error, path)
