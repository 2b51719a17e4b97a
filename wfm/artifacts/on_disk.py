"""Objects on a local or mounted disk (`file://`)."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wfm.artifacts.address import Address, below
from wfm.artifacts.atomic import (
    Mine,
    create_on_disk,
    delete_folder,
    disk_error,
    open_plain,
    replace_on_disk,
    whole_file,
)
from wfm.artifacts.objects import GoOn, Stat, going_on
from wfm.artifacts.schema import MAX_BYTES
from wfm.errors import DataError, InputError

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
        return below(self._root, path)

    def begin_writing(self) -> None:
        return  # links, which `create` needs, are tried by the first lease or run that is written

    def read(self, path: str, at_most: int | None = MAX_BYTES) -> bytes:
        with open_plain(self.local_path(path)) as file:
            if at_most is not None and os.fstat(file.fileno()).st_size > at_most:
                raise DataError(
                    f"{self._root / path} is damaged: it has more than the {at_most} bytes that are read of such a file"
                )
            return file.read()

    def stream(self, path: str) -> Iterator[bytes]:
        with open_plain(self.local_path(path)) as file:
            while piece := file.read(PIECE):
                yield piece

    def names(self, folder: str, stem: str = "") -> list[str]:
        try:
            with os.scandir(self.local_path(folder)) as entries:
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
        for parent, folders, files in os.walk(self.local_path(folder)):
            folders.sort()
            for name in sorted(files):
                whole = Path(parent, name)
                try:
                    yield Stat(whole.relative_to(self._root).as_posix(), whole.lstat().st_size)
                except FileNotFoundError:
                    continue  # deleted while we walked

    def create(self, path: str, data: bytes, mine: Mine | None = None) -> bool:
        return create_on_disk(self.local_path(path), data, mine, fsync=self.fsync)

    def replace(self, path: str, data: bytes, *, private: bool = False) -> None:
        replace_on_disk(self.local_path(path), data, fsync=self.fsync, mode=0o600 if private else 0o644)

    def upload(self, local: Path, path: str, go_on: GoOn = going_on) -> None:
        _copy(local, self.local_path(path), self.fsync, go_on)

    def download(self, path: str, local: Path) -> None:
        _copy(self.local_path(path), local, self.fsync)

    def delete(self, path: str) -> None:
        whole = self.local_path(path)
        try:
            whole.unlink(missing_ok=True)
        except OSError as error:
            raise disk_error(error, whole) from error

    def delete_tree(self, folder: str) -> None:
        delete_folder(self.local_path(folder))


def _copy(source: Path, target: Path, fsync: bool, go_on: GoOn = going_on) -> None:
    try:
        with (
            whole_file(target, fsync=fsync) as temporary,
            open(source, "rb") as reader,
            open(temporary, "xb") as writer,
        ):
            while piece := reader.read(PIECE):
                writer.write(piece)
                go_on()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise disk_error(error, target) from error
