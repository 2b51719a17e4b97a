"""The one place where a finished file or folder gets its name: whole or not there, nothing between.

`create_on_disk` writes bytes if nothing is there (the commit), `replace_on_disk` over whatever was; `whole_file` is for a
writer that fills a file itself; `create_folder` for a folder. On a disk: a temporary file beside the target, fsync, then
`os.link` (fails when the name is taken) or `os.replace`.
On an object store: a conditional put. Its reply may be lost, so a refusal is read back: what is there may be our own.
"""

import contextlib
import errno
import itertools
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from wfm.crash_points import crash_point
from wfm.errors import DataError, InputError, TryAgain

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EXDEV)
"""What a file system without hard links answers."""

Mine = Callable[[bytes], bool]
"""Says whether the bytes found under a name that was taken are this writer's own."""


def create_on_disk(path: Path, data: bytes, mine: Mine | None = None, *, fsync: bool = True) -> bool:
    """Write `data` to `path` unless something is there. True when `path` now holds ours, False when another was first.

    Raises TryAgain when the disk is full (nothing is left behind), InputError when the file system has no hard links.
    """
    temporary = _write_temporary(path, data, fsync)
    crash_point("new_file_unnamed")
    try:
        os.link(temporary, path)
        crash_point("new_file_named")
    except FileExistsError:
        with open_plain(path) as file:
            found = file.read()
        return found == data if mine is None else mine(found)
    except OSError as error:
        if error.errno in _NO_LINKS:
            raise InputError(
                f"{path.parent}: this file system has no hard links, which commits need; put the store on another"
            ) from error
        raise disk_error(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)
    if fsync:
        fsync_folder(path.parent)
    return True


def replace_on_disk(path: Path, data: bytes, *, fsync: bool = True, mode: int = 0o644) -> None:
    """Write `data` to `path`, whole, over whatever was there. Raises TryAgain when the disk is full.

    The file has `mode` (less the umask) from its first byte on.
    """
    temporary = _write_temporary(path, data, fsync, mode)
    crash_point("replacement_unnamed")
    try:
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def whole_file(path: Path, *, force: bool = True, fsync: bool = False) -> Iterator[Path]:
    """A free path beside `path` to write to: what is there when the block ends takes the name, nothing is left when it fails.

    Without ``force`` a file that appeared meanwhile stays: FileExistsError. Errors of the block itself come as they are.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    try:
        yield temporary
        if fsync:
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
        _name(temporary, path, force)
    finally:
        temporary.unlink(missing_ok=True)
    if fsync:
        fsync_folder(path.parent)


def create_folder(temporary: Path, folder: Path) -> bool:
    """Give a finished folder its name. False when another with something in it has the name: then nothing is moved."""
    try:
        os.rename(temporary, folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise disk_error(error, folder) from error
        return False
    return True


def second_name(source: Path, target: Path) -> bool:
    """Give a file a second name, in place of a copy; False where that is not possible. Raises FileNotFoundError."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        return False
    return True


def require_free(*paths: Path, force: bool) -> None:
    """Raise InputError, naming it, for a file that is there already and may not be replaced: asked before the work."""
    for path in paths:
        if not force and os.path.lexists(path):
            raise InputError(f"{path} is there already: give another name, move it away, or say --force to replace it")


def require_empty(folder: Path, *, force: bool) -> None:
    """The same for a folder to write into: a file of its name, or any file inside, is refused."""
    if folder.is_dir() and not folder.is_symlink():
        require_free(*itertools.islice(folder.iterdir(), 1), force=force)
    else:
        require_free(folder, force=force)


def put_in_place(temporary: Path, path: Path, *, force: bool) -> None:
    """Give a finished file its name. Without ``force`` nothing that appeared meanwhile is replaced: InputError, and the
    temporary file is gone."""
    try:
        _name(temporary, path, force)
    except FileExistsError:
        require_free(path, force=False)
    finally:
        temporary.unlink(missing_ok=True)


def write_new(path: Path, data: bytes, *, force: bool) -> None:
    """Write a file for people, whole or not at all; over another one only with ``force``. Raises InputError, TryAgain."""
    require_free(path, force=force)
    put_in_place(_write_temporary(path, data, fsync=False), path, force=force)


def put_with_sidecar(temporary: Path, path: Path, sidecar: Path, data: bytes, *, force: bool) -> None:
    """Give a finished file its name, and write its sidecar: both or none, and where the second fails with ``force``, what stood
    there before stands there again. Raises as `write_new`."""
    require_free(path, sidecar, force=force)
    kept = _beside(sidecar)
    try:
        if os.path.lexists(sidecar) and not second_name(sidecar, kept):
            shutil.copyfile(sidecar, kept, follow_symlinks=False)
        write_new(sidecar, data, force=force)
        try:
            put_in_place(temporary, path, force=force)
        except BaseException:
            if os.path.lexists(kept):
                os.replace(kept, sidecar)
            else:
                sidecar.unlink(missing_ok=True)
            raise
    finally:
        temporary.unlink(missing_ok=True)
        kept.unlink(missing_ok=True)


def _write_temporary(path: Path, data: bytes, fsync: bool, mode: int = 0o644) -> Path:
    temporary = _beside(path)
    for last_try in (False, True):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            break
        except FileNotFoundError:  # garbage collection may take an empty folder away between the two lines
            if last_try:
                raise
        except OSError as error:
            raise disk_error(error, path) from error
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(handle, view) :]
            if fsync:
                os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise disk_error(error, path) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _name(temporary: Path, path: Path, force: bool) -> None:
    try:
        if force:
            os.replace(temporary, path)
        else:
            os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError as error:
        if force or error.errno not in _NO_LINKS:
            raise disk_error(error, path) from error
        if os.path.lexists(path):  # no hard links here: the window is the moment between these two lines
            raise FileExistsError(path) from None
        os.replace(temporary, path)


def _beside(path: Path) -> Path:
    return path.parent / f".{secrets.token_hex(8)}.tmp"


def create_by_put(
    put: Callable[[], bool], read: Callable[[], bytes | None], data: bytes, mine: Mine | None = None
) -> bool:
    """Create an object with a conditional put. True when the object is now ours, False when another was first.

    `put` sends the request once (with retries for what is transient) and says whether the name was free; `read`
    gives what is there.
    A put whose reply was lost is sent again and finds its own object: reading back tells it from another's.
    """
    for _ in range(4):
        if put():
            return True
        found = read()
        if found is not None:
            return found == data if mine is None else mine(found)
        # taken a moment ago and gone now: a delete came between, the name is free again
    raise TryAgain("a name in the object store is taken at every write and gone at every read")


def open_plain(path: Path) -> BinaryIO:
    """A plain file, open for reading. Raises FileNotFoundError, DataError for a folder, a pipe or a device (one would wait for
    ever), InputError for one that may not be read."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except NotADirectoryError:
        raise FileNotFoundError(path) from None
    except PermissionError as error:
        raise disk_error(error, path) from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise DataError(f"{path} is a folder, a pipe or a device, a plain file is expected: move it away")
    return open(handle, "rb")


def delete_folder(folder: Path) -> None:
    """Delete a folder and all that is in it (links themselves, never what they point to); nothing happens when it is not there.

    Raises InputError when this user may not.
    """

    def failed(_: object, path: str, found: tuple[type[BaseException], BaseException, object]) -> None:
        error = found[1]
        # gone already, or another writes into it at this moment: what is left then, the next collection finds
        if isinstance(error, OSError) and error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
            raise disk_error(error, path) from error

    shutil.rmtree(folder, onerror=failed)


def fsync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems do not sync folders
            raise
    finally:
        os.close(handle)


def disk_error(error: OSError, path: Path | str) -> Exception:
    """What to raise for an OSError of a local read or write: TryAgain for a full disk, InputError for no permission, else
    the error itself."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return TryAgain(
            f"no space left while writing {path}: free some space (`wfm artifacts gc`) and run again; nothing was committed"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return InputError(
            f"{path} cannot be read or written ({os.strerror(error.errno)}): use a folder that this user may use"
        )
    if error.errno == errno.ENOTDIR:
        return InputError(f"{path} cannot be written: a part of this path is a file, not a folder")
    return error
