"""Archives of videos: ``.zip``, ``.tar``, ``.tar.gz`` and ``.tgz``, here or at a remote address, read one member at a time.

    /in/films.zip!/folder/a.mp4           the address of a member

An archive comes from outside and is not trusted: a member's name never becomes a path, links, devices, sparse and encrypted
members are told and left alone, and no more is unpacked than a member declares. What lies where (`Index`) is read once and
kept in the local cache; of a ``.tar.gz`` with points from which unpacking can start (`indexed_gzip`), so that a member costs
its own bytes, not those of the members before it. A member is unpacked to the cache of downloads when it is wanted.
"""

import contextlib
import dataclasses
import errno
import functools
import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from wfm.artifacts.atomic import whole_file
from wfm.data.archive_index import ALLOWANCE, BROKEN, DAMAGED, Index, Member, named_once, walk_tar, walk_zip, zip_data
from wfm.data.local import DamagedSource, keep, problem_of
from wfm.data.remote import NotThere, object_info, object_stamp, remote_error, remote_file_system, remote_options
from wfm.errors import MissingPackage, WfmError

if TYPE_CHECKING:
    from wfm.artifacts import Store

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz")
_ADDRESS = re.compile(r"(.+?\.(?:zip|tar|tar\.gz|tgz))!/(.+)", re.DOTALL | re.IGNORECASE)
_CHUNK = 4 << 20
_WALK_BLOCK = 256 << 10  # of a remote archive while its headers are read [bytes]
_SPACING = 32 << 20  # between two points of a .tar.gz where unpacking can start [bytes]; each takes 32 KiB
_KEPT = 8  # indexes held in this process


def is_archive_name(name: str) -> bool:
    """Whether a file is taken for an archive."""
    return name.lower().endswith(ENDINGS)


def split_member(source: str) -> tuple[str, str] | None:
    """``x.zip!/a.mp4`` -> (address of the archive, name of the member); None for what is no address of a member."""
    match = _ADDRESS.fullmatch(source)
    if match is None or ("://" not in source and os.path.lexists(source)):
        return None  # a folder may be called x.zip!
    return match[1], match[2]


def fetch_member(store: "Store", address: str, name: str) -> Path:
    """The local file of a member. Raises OSError for an archive or member that is not there or cannot be read,
    `DamagedSource` for one that is not what it declares."""
    archive = Archive(store, address)
    index = archive.index()
    member = index.by_name.get(name)
    if member is None:
        if index.problem:
            raise DamagedSource(*_coded(index.problem))
        raise FileNotFoundError(errno.ENOENT, "the archive has no such member", f"{address}!/{name}")
    if member.problem:
        raise DamagedSource(*_coded(member.problem))
    return keep(f"{address}!/{name}\n{archive.stamp}", name, member.size, archive.unpack(member))


class Archive:
    """One archive as it lies there now. Raises OSError when a local one may not be opened, `InputError` or `TryAgain` for a
    remote one."""

    def __init__(self, store: "Store | None", address: str) -> None:
        self.address = address
        self._remote: tuple[Any, str] | None = None
        if "://" in address:
            try:
                self._remote = remote_file_system(address, remote_options(store, address))
                info = object_info(*self._remote)
            except Exception as error:
                trouble = remote_error(address, error)
                if isinstance(error, FileNotFoundError) and isinstance(trouble, NotThere):
                    raise
                raise trouble from None
            self.size = int(info.get("size") or 0)
            self.stamp = object_stamp(info)
        else:
            problem = problem_of(address)
            if problem:
                missing = problem.startswith(("not_found", "dangling_link"))
                raise OSError(errno.ENOENT if missing else errno.EINVAL, problem, address)
            found = os.stat(address)
            self.size, self.stamp = found.st_size, f"mtime_ns:{found.st_mtime_ns}:{found.st_size}"

    def index(self, maximum_expansion: float = float("inf")) -> Index:
        """Its files, from the cache where it was read before. A ``.tar.gz`` is left where it has unpacked to more than
        ``maximum_expansion`` times its size."""
        known = _indexes.get((self.address, self.stamp))
        if known is None:
            known = _load(self._kept(".json")) or self._walk(maximum_expansion)
            while len(_indexes) >= _KEPT:
                _indexes.pop(next(iter(_indexes)), None)
            _indexes[(self.address, self.stamp)] = known
        return known

    def unpack(self, member: Member, chunk_bytes: int = _CHUNK) -> Iterator[bytes]:
        """The member's bytes, as many as it declares. Raises `DamagedSource` when there are others."""
        try:
            with self._open(chunk_bytes) as file:
                file.seek(member.start)
                source = zip_data(file, member) if self._is_zip else file
                left = member.size
                while left:
                    chunk = source.read(min(left, chunk_bytes))
                    if not chunk:
                        raise DamagedSource(DAMAGED, f"{left:,} of its {member.size:,} bytes are missing")
                    left -= len(chunk)
                    yield chunk
                if self._is_zip:
                    source.read(1)  # at the end the crc is compared
        except BROKEN as error:
            raise DamagedSource(DAMAGED, f"the member cannot be unpacked: {error}") from None

    @property
    def _is_zip(self) -> bool:
        return self.address.lower().endswith(".zip")

    @property
    def _is_gzip(self) -> bool:
        return self.address.lower().endswith("gz")

    def _kept(self, ending: str) -> Path:
        from wfm.artifacts.address import cache_root

        name = hashlib.sha256(f"{self.address}\n{self.stamp}".encode()).hexdigest()
        return cache_root() / "archives" / (name + ending)

    def _walk(self, maximum_expansion: float) -> Index:
        """Read what lies where. What cannot be read further is the index's problem; what does not answer raises."""
        members: list[Member] = []
        problem = ""
        try:
            with self._open(_WALK_BLOCK) as file:
                if self._is_zip:
                    walk_zip(file, members)
                else:
                    most, too_much = float(self.size), f"{DAMAGED}: a member ends after the archive does"
                    if self._is_gzip:
                        most = maximum_expansion * self.size + ALLOWANCE
                        too_much = f"zip_bomb: it unpacks to over {most:,.0f} bytes; maximum_expansion is {maximum_expansion:g}"
                    problem = walk_tar(file, self.stamp, most, too_much, members)
                if self._is_gzip and not problem:
                    _write(self._kept(".gzi"), lambda out: file.export_index(fileobj=out))
        except WfmError:
            raise
        except BROKEN as error:
            problem = f"{DAMAGED}: {type(error).__name__}: {error}"
        except OSError:
            raise
        except Exception as error:  # whatever a parser makes of bytes that mean harm
            problem = f"{DAMAGED}: {type(error).__name__}: {error}"
        if problem.startswith("zip_bomb"):  # whoever wants one of its members would have to walk all of it
            members.clear()
        index = Index(tuple(named_once(members)), problem)
        if not problem:
            rows = [dataclasses.astuple(member) for member in index.members]
            _write(self._kept(".json"), lambda out: out.write(json.dumps(rows).encode()))
        return index

    @contextlib.contextmanager
    def _open(self, block: int) -> Iterator[Any]:
        """The archive, of a ``.tar.gz`` the tar in it, open for reading at any place."""
        with contextlib.ExitStack() as stack:
            if self._remote is None:
                raw: Any = stack.enter_context(open(self.address, "rb"))
            else:
                raw = stack.enter_context(_Remote(self.address, *self._remote, block))
            if not self._is_gzip:
                yield raw
                return
            try:
                yield stack.enter_context(_unpacked(raw, self._kept(".gzi")))
            except OSError as error:
                if error.errno is not None:  # the disk's
                    raise
                failure = getattr(raw, "failure", None)
                raise failure or tarfile.ReadError(f"the gzip stream is damaged ({error})") from None


_indexes: dict[tuple[str, str], Index] = {}


class _Remote(io.RawIOBase):
    """A remote file whose failures are the place's, not damage of what lies there."""

    def __init__(self, url: str, file_system: Any, path: str, block: int) -> None:
        self._url = url
        self.failure: WfmError | None = None
        with self._named():
            self._file = file_system.open(path, "rb", block_size=block, cache_type="readahead")

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.failure = remote_error(self._url, error)
            raise self.failure from None

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes."""
        with self._named():
            return bytes(self._file.read(size))

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place."""
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        """Where it is."""
        return int(self._file.tell())

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def close(self) -> None:
        """Let go of it."""
        if not self.closed:
            self._file.close()
        super().close()


def _unpacked(raw: Any, points: Path) -> Any:
    """What is in a gzip, entered by the points that were kept, if these can be read."""
    try:
        import indexed_gzip
    except ImportError:
        raise MissingPackage("indexed_gzip", extra="curate", purpose="reading .tar.gz archives") from None
    unpacked = functools.partial(indexed_gzip.IndexedGzipFile, fileobj=raw, spacing=_SPACING, buffer_size=_WALK_BLOCK)
    if points.exists():
        try:
            return unpacked(index_file=str(points))
        except OSError as error:
            if error.errno is not None or getattr(raw, "failure", None):
                raise
            points.unlink(missing_ok=True)  # they are damaged, not the archive
    return unpacked()


def _coded(problem: str) -> tuple[str, str]:
    code, _, words = problem.partition(": ")
    return code, words


def _load(path: Path) -> Index | None:
    """What was kept; None where nothing was, or nothing that can be read (damage, or another version's)."""
    try:
        return Index(tuple(Member(*row) for row in json.loads(path.read_bytes())))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _write(path: Path, fill: Callable[[BinaryIO], Any]) -> None:
    with whole_file(path) as temporary, temporary.open("wb") as out:
        fill(out)
