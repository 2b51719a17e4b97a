"""Objects on a local or mounted disk (`file://`)."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wfm.artifacts.address import Address
from wfm.artifacts.atomic import Mine, create_on_disk, disk_error, fsync_folder, replace_on_disk
from wfm.artifacts.objects import Stat
from wfm.errors import InputError

PIECE = 4 * 2**20  # bytes read at once


class DiskObjects:
    """A folder. The only option is `fsync` (default true); without it a power cut may lose what was just committed."""

    def __init__(self, address: Address, options: dict[str, Any]) -> None:
        unknown = set(options) - {"fsync"}
        if unknown:
            raise InputError(f"a file:// store has no option {sorted(unknown)[0]!r}: the choices are fsync")
        self.address = address
        self.fsync = bool(options.get("fsync", True))
        self._root = Path(address.root)
        if self._root.exists() and not self._root.is_dir():
            raise InputError(f"the store {address.url} is a file: give a folder")

    def local_path(self, path: str) -> Path:
        return self._root / path

    def read(self, path: str) -> bytes:
        try:
            return (self._root / path).read_bytes()
        except PermissionError as error:
            raise disk_error(error, self._root / path) from error

    def stream(self, path: str) -> Iterator[bytes]:
        with open(self._root / path, "rb") as file:
            while piece := file.read(PIECE):
                yield piece

    def names(self, folder: str, stem: str = "") -> list[str]:
        try:
            with os.scandir(self._root / folder) as entries:
                return sorted(
                    entry.name + "/" if entry.is_dir(follow_symlinks=False) else entry.name
                    for entry in entries
                    if entry.name.startswith(stem) and not entry.name.startswith(".")
                )
        except (FileNotFoundError, NotADirectoryError):
            return []
        except PermissionError as error:
            raise disk_error(error, self._root / folder) from error

    def walk(self, folder: str) -> Iterator[Stat]:
        for parent, folders, files in os.walk(self._root / folder):
            folders.sort()
            for name in sorted(files):
                whole = Path(parent, name)
                try:
                    yield Stat(whole.relative_to(self._root).as_posix(), whole.lstat().st_size)
                except FileNotFoundError:
                    continue  # deleted while we walked

    def create(self, path: str, data: bytes, mine: Mine | None = None) -> bool:
        return create_on_disk(self._root / path, data, mine, fsync=self.fsync)

    def replace(self, path: str, data: bytes, *, private: bool = False) -> None:
        replace_on_disk(self._root / path, data, fsync=self.fsync, mode=0o600 if private else 0o644)

    def upload(self, local: Path, path: str) -> None:
        _copy(local, self._root / path, self.fsync)

    def download(self, path: str, local: Path) -> None:
        _copy(self._root / path, local, self.fsync)

    def delete(self, path: str) -> None:
        (self._root / path).unlink(missing_ok=True)

    def delete_tree(self, folder: str) -> None:
        shutil.rmtree(self._root / folder, ignore_errors=True)


def _copy(source: Path, target: Path, fsync: bool) -> None:
    temporary = target.parent / f".{os.urandom(8).hex()}.tmp"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(source, "rb") as reader, open(temporary, "xb") as writer:
            shutil.copyfileobj(reader, writer, PIECE)
            if fsync:
                writer.flush()
                os.fsync(writer.fileno())
        os.replace(temporary, target)
        if fsync:
            fsync_folder(target.parent)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise disk_error(error, target) from error
    finally:
        temporary.unlink(missing_ok=True)
