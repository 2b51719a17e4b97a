"""WebDataset shards: plain tar files beside a small index, as Megatron-Energon opens them.

All members of one sample stand together and are called ``<key>.<part>``; the key ends at the first dot. Beside ``x.tar``
stands ``x.tar.idx``: little-endian uint64 byte offsets, the first header of each sample and then the end of the last one
(n + 1 numbers). The same samples give the same bytes: times are 0, owners are fixed, the order is the caller's.

Reading never trusts a tar: a name that leaves its folder, a second sample of one key, a damaged header and a file cut
short (which ``tarfile`` takes for the end when the cut falls on a member's border) all raise `DataError`.
"""

import dataclasses
import functools
import io
import itertools
import os
import re
import struct
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, TypeVar

from wfm.artifacts.atomic import put_in_place
from wfm.errors import DataError

_BLOCK = tarfile.BLOCKSIZE
_KEY = re.compile(r"[A-Za-z0-9_-]+")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_NAMES = re.compile(rf"({_KEY.pattern})\.({_PART.pattern})\0+".encode())
Range = TypeVar("Range", bytes, memoryview)
_OCTAL = re.compile(rb"[0-7]{11}")


@dataclasses.dataclass(frozen=True)
class Sample:
    """One sample of a shard."""

    key: str
    members: dict[str, bytes]
    "Bytes by part name (``mp4``, ``json``, ``actions.parquet`` ...)."


@dataclasses.dataclass(frozen=True)
class ShardEntry:
    """A finished shard."""

    path: Path
    samples: int
    size_bytes: int


class ShardWriter:
    """Writes ``<folder>/<prefix>-00000.tar`` and so on, each with its index, starting a new one at ``maximum_bytes``.

    A shard has its final name only once it is whole. Use as a context manager; ``shards`` lists what was written.
    """

    def __init__(self, folder: Path, prefix: str, *, maximum_bytes: int = 500_000_000) -> None:
        if not _KEY.fullmatch(prefix):
            raise DataError(f"shard prefix {prefix!r} may hold letters, digits, '_' and '-' only")
        self.shards: list[ShardEntry] = []
        self._folder, self._prefix, self._maximum_bytes = folder, prefix, maximum_bytes
        self._file: BinaryIO | None = None
        self._tar: tarfile.TarFile | None = None
        self._offsets: list[int] = []
        self._keys: set[str] = set()
        self.members: list[dict[str, str | int]] = []
        "One row for each member written, as `wfm.data.energon.MEMBERS` has them; `shard` is the file's name alone."

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif self._file is not None:  # leave no shard that looks whole
            self._file.close()
            self._partial().unlink(missing_ok=True)

    def write(self, key: str, members: Mapping[str, bytes]) -> str:
        """Append one sample; returns the file name of the shard it went to. Parts are written in the order given."""
        if not _KEY.fullmatch(key):
            raise DataError(f"sample key {key!r} may hold letters, digits, '_' and '-' only: a dot ends the key")
        if key in self._keys:
            raise DataError(f"sample key {key!r} was written before: keys are unique")
        if not members:
            raise DataError(f"sample {key!r} has no members")
        for part in members:
            if not _PART.fullmatch(part):
                raise DataError(f"sample {key!r}: part name {part!r} is not a plain file suffix such as 'mp4'")
        size = sum(_BLOCK + _padded(len(data)) for data in members.values())
        if self._tar is not None and self._tar.offset + size > self._maximum_bytes:
            self.close()
        if self._tar is None:
            self._open()
        assert self._tar is not None
        start = self._tar.offset
        self._offsets.append(start)
        place: dict[str, str | int] = {
            "shard": self._path().name,
            "sample_key": key,
            "sample_index": len(self._offsets) - 1,
            "sample_offset": start,
            "sample_size": size,
        }
        for part, data in members.items():
            offset = self._tar.offset + _BLOCK
            self.members.append({**place, "member": part, "member_offset": offset, "member_size": len(data)})
            self._tar.addfile(_header(f"{key}.{part}", len(data)), io.BytesIO(data))
        self._keys.add(key)
        return self._path().name

    def close(self) -> None:
        """Finish the open shard, if there is one: index first, then the tar gets its name."""
        if self._tar is None or self._file is None:
            return
        offsets = [*self._offsets, self._tar.offset]
        self._tar.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        path = self._path()
        path.with_name(path.name + ".idx").write_bytes(struct.pack(f"<{len(offsets)}Q", *offsets))
        put_in_place(self._partial(), path, force=True)
        self.shards.append(ShardEntry(path, len(self._offsets), path.stat().st_size))
        self._tar = self._file = None

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._file = self._partial().open("wb")
        self._tar = tarfile.TarFile(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)
        self._offsets = []

    def _path(self) -> Path:
        return self._folder / f"{self._prefix}-{len(self.shards):05d}.tar"

    def _partial(self) -> Path:
        path = self._path()
        return path.with_name(path.name + ".partial")


def iter_samples(tar_path: Path | str) -> Iterator[Sample]:
    """Every sample of a shard, in order. Raises `DataError` if it is damaged or cut short, or its index disagrees."""
    path = Path(tar_path)
    offsets = read_index(path) if index_path(path).exists() else None
    with _opened(path) as file:
        seen: set[str] = set()
        key, members, start, count = "", dict[str, bytes](), 0, 0
        for offset, name, data in _members(file, path, 0, None):
            next_key, part = _split_name(name, path)
            if next_key != key:
                if members:
                    yield Sample(key, members)
                if next_key in seen:
                    raise DataError(f"{path}: sample {next_key!r} occurs twice, or its members do not stand together")
                if offsets is not None and (count >= len(offsets) - 1 or offsets[count] != offset):
                    raise DataError(f"{path}: sample {count} starts at byte {offset}, the index says otherwise")
                seen.add(next_key)
                key, members, count = next_key, {}, count + 1
            if part in members:
                raise DataError(f"{path}: sample {key!r} has two members called {part!r}")
            members[part] = data
            start = offset + _BLOCK + _padded(len(data))
        if members:
            yield Sample(key, members)
    if offsets is not None and (count != len(offsets) - 1 or offsets[-1] != start):
        words = f"holds {count} samples ending at byte {start}, its index says {len(offsets) - 1}, {offsets[-1]}"
        raise DataError(f"{path}: {words}")


def read_sample(tar_path: Path | str, key: str) -> Sample:
    """One sample, found through the index: one header is read a sample, and no other payload.

    Raises `DataError` if the shard has no such key, no index, or is damaged there.
    """
    path = Path(tar_path)
    offsets = read_index(path)
    with _opened(path) as file:
        for start, end in itertools.pairwise(offsets):
            file.seek(start)
            if _split_name(_parse(file.read(_BLOCK), path, start).name, path)[0] != key:
                continue
            members = {}
            for _, name, data in _members(file, path, start, end):
                found, part = _split_name(name, path)
                if found != key:
                    raise DataError(f"{path}: the index runs sample {key!r} into {found!r}")
                members[part] = data
            return Sample(key, members)
    raise DataError(f"{path}: no sample {key!r} among {len(offsets) - 1}")


def sample_in(data: bytes, where: str) -> Sample:
    """The one sample that a range of a shard holds, as `members_in` reads it."""
    return Sample(*members_in(data, where))


def members_in(data: Range, where: str) -> tuple[str, dict[str, Range]]:
    """(key, members by part) of the one sample that a range of a shard holds, with headers and padding and nothing before or
    behind. Members of a memoryview are views of it.

    Of bytes whose hash the caller has compared: checksums that headers as the writer's have of themselves are not worked out
    again. Raises `DataError`, which begins with ``where``, for a range that does not begin and end with a sample, or holds two.
    """
    return _plain_members(data) or _judged_members(data, where)


def _plain_members(data: Range) -> tuple[str, dict[str, Range]] | None:
    """Of a sample just as the writer makes them, in a twentieth of the time that tarfile takes for headers; None for any
    other."""
    members: dict[str, Range] = {}
    key, offset, end = b"", 0, len(data)
    while offset + _BLOCK <= end:
        names = _NAMES.fullmatch(data, offset, offset + 100)
        facts, rest = _FIELDS.unpack_from(data, offset)
        length = _plain_size(facts)
        if names is None or rest != _PLAIN_REST or length is None:
            return None
        found, word = names.groups()
        part, start = word.decode(), offset + _BLOCK
        offset = start + length + -length % _BLOCK
        if offset > end or part in members or (members and found != key):
            return None
        key, members[part] = found, data[start : start + length]
    return (key.decode(), members) if members and offset == end else None


def _judged_members(data: Range, where: str) -> tuple[str, dict[str, Range]]:
    key, members, offset, end = "", dict[str, Range](), 0, len(data)
    while offset < end:
        info = _parse(bytes(data[offset : offset + _BLOCK]), where, offset)
        found, part = _split_name(info.name, where)
        if members and found != key:
            raise DataError(f"{where}: the range runs sample {key!r} into {found!r}")
        if part in members:
            raise DataError(f"{where}: sample {found!r} has two members called {part!r}")
        start = offset + _BLOCK
        offset = start + _padded(info.size)
        if offset > end:
            raise DataError(f"{where}: {info.name!r} of {info.size} bytes does not end within the range of {end} bytes")
        key, members[part] = found, data[start : start + info.size]
    if not members:
        raise DataError(f"{where}: the range is empty")
    return key, members


def read_keys(tar_path: Path | str) -> list[str]:
    """The keys of a shard in order, through its index."""
    path = Path(tar_path)
    keys = []
    with _opened(path) as file:
        for start in read_index(path)[:-1]:
            file.seek(start)
            keys.append(_split_name(_parse(file.read(_BLOCK), path, start).name, path)[0])
    return keys


def index_path(tar_path: Path) -> Path:
    """Where the index of a shard stands."""
    return tar_path.with_name(tar_path.name + ".idx")


def read_index(tar_path: Path) -> list[int]:
    """Byte offsets of the samples and of the end, checked to rise and to lie inside the file."""
    path = index_path(tar_path)
    if not path.is_file():
        raise DataError(f"{path} is missing: a shard needs its index")
    data = path.read_bytes()
    if len(data) % 8 or len(data) < 16:
        raise DataError(f"{path}: {len(data)} bytes are not a list of at least two 64-bit offsets")
    offsets = list(struct.unpack(f"<{len(data) // 8}Q", data))
    rising = all(a < b for a, b in itertools.pairwise(offsets))
    size = tar_path.stat().st_size if tar_path.is_file() else 0
    if offsets[0] != 0 or not rising or any(o % _BLOCK for o in offsets) or offsets[-1] > size:
        raise DataError(f"{path}: offsets do not fit {tar_path.name} of {size} bytes: damaged, or of another shard")
    return offsets


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise DataError(f"{path}: no such shard") from None


def _members(file: BinaryIO, path: Path | str, start: int, end: int | None) -> Iterator[tuple[int, str, bytes]]:
    """(offset of the header, name, bytes) from ``start`` up to ``end``, or up to the end mark of the tar."""
    offset = start
    while end is None or offset < end:
        file.seek(offset)
        block = file.read(_BLOCK)
        if end is None and len(block) == _BLOCK and not any(block):  # the first of the two zero blocks that end a tar
            return
        info = _parse(block, path, offset)
        data = file.read(info.size)
        if len(data) != info.size:
            raise DataError(
                f"{path}: {info.name!r} ends after {len(data)} of {info.size} bytes: the shard is cut short"
            )
        yield offset, info.name, data
        offset += _BLOCK + _padded(info.size)


def _parse(block: bytes, path: Path | str, offset: int) -> tarfile.TarInfo:
    """One header, refused unless it is a regular file (the writer makes nothing else)."""
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError) as error:
        what = "cut short" if len(block) < _BLOCK else "damaged"
        raise DataError(f"{path}: no member header at byte {offset} ({error}): the shard is {what}") from None
    if not info.isreg():
        raise DataError(f"{path}: {info.name!r} is not a regular file")
    return info


def _split_name(name: str, path: Path | str) -> tuple[str, str]:
    key, dot, part = name.partition(".")
    if not dot or not _KEY.fullmatch(key) or not _PART.fullmatch(part):
        raise DataError(f"{path}: member name {name!r} is not '<key>.<part>' without folders")
    return key, part


def _header(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o644, 0
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info


_FIELDS = struct.Struct("100x 48s 8x 356s")
"""Of a header: between name and checksum mode, owner, size and time; behind them all else."""
_PLAIN_FACTS, _PLAIN_REST = _FIELDS.unpack(_header("a.b", 0).tobuf(tarfile.USTAR_FORMAT))
"""What all that the writer makes has in common, but for the size."""
_SIZE = slice(24, 35)
"""Within the facts: octal digits; a zero ends them."""


@functools.lru_cache(maxsize=4096)
def _plain_size(facts: bytes) -> int | None:
    """Of a member with these facts; None where the writer does not write such. Members of one shape have one size: it is parsed
    once for them all."""
    size = facts[_SIZE]
    as_written = facts[: _SIZE.start] + _PLAIN_FACTS[_SIZE] + facts[_SIZE.stop :] == _PLAIN_FACTS
    return int(size, 8) if as_written and _OCTAL.fullmatch(size) else None


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
