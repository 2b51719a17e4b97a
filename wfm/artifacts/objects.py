"""What the store needs from a place that holds bytes: ten verbs, the same for a disk and for an object store.

Paths are relative to the store's root; every verb checks them (`address.safe_path`, on a disk `address.below`), so that nothing
that was read from a store leads out of it. A path that is not there raises FileNotFoundError;
everything else that can go wrong raises one of `wfm.errors`, with no credentials in the text.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from wfm.artifacts.address import Address
from wfm.artifacts.atomic import Mine
from wfm.artifacts.schema import MAX_BYTES


class Stat(NamedTuple):
    """One stored object: path relative to the store's root, size in bytes."""

    path: str
    size: int


GoOn = Callable[[], None]


def going_on() -> None:
    """An upload that nobody cuts short."""


class Objects(Protocol):
    """Bytes by path."""

    address: Address
    fsync: bool
    """Whether local files are to be made durable before a commit."""

    def local_path(self, path: str) -> Path | None:
        """Where the bytes lie on this machine's disks, or None for a remote store."""

    def begin_writing(self) -> None:
        """To be called before work is done for this place. Raises InputError when it cannot keep the promise of `create`."""

    def read(self, path: str, at_most: int | None = MAX_BYTES) -> bytes:
        """All bytes of an object. Raises DataError when it has more than `at_most`, or is no plain file."""

    def stream(self, path: str) -> Iterator[bytes]:
        """The bytes in pieces of a few MiB."""

    def names(self, folder: str, stem: str = "") -> list[str]:
        """Sorted names directly below a folder that begin with `stem`; sub-folders end in `/`. Empty when there is
        none."""

    def walk(self, folder: str) -> Iterator[Stat]:
        """Every object below a folder."""

    def create(self, path: str, data: bytes, mine: Mine | None = None) -> bool:
        """Write if absent, whole or not at all. True when it is ours now, False when another was first
        (`wfm.artifacts.atomic`)."""

    def replace(self, path: str, data: bytes, *, private: bool = False) -> None:
        """Write over whatever is there, whole or not at all. `private`: on a disk, no other user can read it."""

    def upload(self, local: Path, path: str, go_on: GoOn = going_on) -> None:
        """Copy a local file to `path`. `go_on` is called after each piece of it; a WfmError that it raises ends the upload."""

    def download(self, path: str, local: Path) -> None:
        """Copy an object to a local file, which is whole or absent afterwards."""

    def delete(self, path: str) -> None:
        """Delete one object; nothing happens when it is not there."""

    def delete_tree(self, folder: str) -> None:
        """Delete every object below a folder."""
