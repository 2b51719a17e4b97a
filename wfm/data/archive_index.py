"""What lies where in an archive: read without unpacking, from bytes that are not trusted.

Links, devices, sparse and encrypted members, overlapping ones and names that come twice are told (`Member.problem`), a header
is never read into memory however long it claims to be, and a size that leads back ends the walk.
"""

import dataclasses
import functools
import stat
import struct
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

DAMAGED = "damaged_archive"
BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, struct.error)
"""What the libraries raise at damaged bytes."""

ALLOWANCE = 1 << 20
"""What may be unpacked whatever the ratio, since small things pack well [bytes]."""

_LONGEST_HEADER = 1 << 20  # of the names and notes before a tar member, which are read at once [bytes]
_ZIP_HEADER_BYTES = 30


@dataclasses.dataclass(frozen=True)
class Limits:
    """How much an archive may claim."""

    member_bytes: int = 2**36
    expansion: float = 100.0
    "Most bytes that come out for each one that is stored; video hardly packs."


@dataclasses.dataclass(frozen=True)
class Member:
    """A file in an archive. ``problem`` says why it may not be unpacked (``code: words``), or is empty."""

    name: str
    size: int
    "Declared size [bytes]."
    stamp: str
    "Changes when the bytes may have: crc32 of a zip, else where it lies in which archive."
    start: int = 0
    "Where it begins: a zip's local header, a tar's data, counted in the unpacked tar."
    packed: int = 0
    "Size in the archive [bytes]."
    method: int = zipfile.ZIP_STORED
    problem: str = ""

    def over(self, limits: Limits) -> str:
        """Why it is more than is allowed, or ""."""
        if self.size > limits.member_bytes:
            return f"too_large: {self.size:,} bytes are declared, maximum_member_bytes is {limits.member_bytes:,}"
        if self.size > limits.expansion * self.packed + ALLOWANCE:
            claim = f"{self.packed:,} bytes claim to hold {self.size:,}"
            return f"zip_bomb: {claim}; maximum_expansion is {limits.expansion:g}"
        return ""


@dataclasses.dataclass(frozen=True)
class Index:
    """Files of an archive in its own order; ``problem`` says why the list may end too early."""

    members: tuple[Member, ...]
    problem: str = ""

    @functools.cached_property
    def by_name(self) -> dict[str, Member]:
        """Name -> member."""
        return {member.name: member for member in self.members}


class _Header(tarfile.TarInfo):
    """A header whose names and notes are not read into memory however long they claim to be."""

    def _proc_member(self, tar: tarfile.TarFile) -> Any:
        notes = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
        if self.size < 0 or (
            self.type in (*notes, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK) and self.size > _LONGEST_HEADER
        ):
            raise tarfile.ReadError(f"a header of {self.size:,} bytes; at most {_LONGEST_HEADER:,} are read")
        return super()._proc_member(tar)  # type: ignore[misc]


def walk_tar(file: Any, stamp: str, most: float, too_much: str, members: list[Member]) -> str:
    """Add the files of a tar; returns why it was left before its end (``too_much``: at more than ``most`` bytes), or ""."""
    with tarfile.open(fileobj=file, mode="r:", tarinfo=_Header) as tar:
        before = -1
        while (info := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # else it keeps every header
            if info.size < 0 or tar.offset <= before:
                raise tarfile.ReadError("a size that leads back to what was read")
            before = tar.offset
            if info.isreg() and info.offset_data + info.size > most:
                return f"{too_much} (member {info.name!r} of {info.size:,} bytes)"
            if info.isdir():
                continue
            problem = ""
            if not info.isreg():
                problem = f"unsafe_member: it is {'a link' if info.islnk() or info.issym() else 'a device or FIFO'}"
            elif info.issparse():
                problem = "unsafe_member: it is sparse, its bytes do not lie there as such"
            where = f"{stamp}@{info.offset_data}"
            name = info.name.removeprefix("./")
            members.append(Member(name, info.size, where, info.offset_data, info.size, problem=problem))
        file.seek(tar.offset)
        if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError(f"at byte {tar.offset:,} there is no header")
    return ""


def walk_zip(file: Any, members: list[Member]) -> None:
    """Add the files that a zip's directory names."""
    with zipfile.ZipFile(file) as opened:
        found = sorted(opened.infolist(), key=lambda info: info.header_offset)
        ends = [info.header_offset for info in found[1:]] + [opened.start_dir]
        for info, end in zip(found, ends, strict=True):
            if info.is_dir():
                continue
            problem = ""
            if info.flag_bits & 0x1:
                problem = "encrypted: the zip asks for a password"
            elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                problem = f"unsupported_compression: method {info.compress_type}; stored and deflated are read"
            elif stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
                problem = "unsafe_member: it is a link or a device"
            elif info.header_offset < 0 or info.header_offset + _ZIP_HEADER_BYTES + info.compress_size > end:
                problem = f"{DAMAGED}: it overlaps what comes after it, or begins before the archive"
            members.append(
                Member(
                    info.orig_filename.removeprefix("./"),
                    info.file_size,
                    f"crc32:{info.CRC:08x}",
                    info.header_offset,
                    info.compress_size,
                    info.compress_type,
                    problem,
                )
            )


def zip_data(file: Any, member: Member) -> Any:
    """A reader of a zip member; ``file`` stands at its local header."""
    header = file.read(_ZIP_HEADER_BYTES)
    if header[:4] != b"PK\3\4":
        raise zipfile.BadZipFile("its local header is not there")
    name, extra = struct.unpack("<HH", header[-4:])
    file.seek(member.start + len(header) + name + extra)
    info = zipfile.ZipInfo(member.name)
    info.compress_type, info.compress_size, info.file_size = member.method, member.packed, member.size
    info.CRC = int(member.stamp.removeprefix("crc32:"), 16)
    return zipfile.ZipExtFile(file, "r", info)


def named_once(members: list[Member]) -> Iterator[Member]:
    """The members; of a name that comes more than once none can be told by its address."""
    times = Counter(member.name for member in members)
    for member in members:
        if times[member.name] > 1:
            problem = f"repeated_name: the archive holds {times[member.name]} members of this name"
            member = dataclasses.replace(member, problem=problem)
        yield member
