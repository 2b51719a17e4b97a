"""Members of archives: read one at a time, from bytes that mean harm too."""

import contextlib
import io
import itertools
import os
import random
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from wfm.data.archive import Archive, fetch_member, split_member
from wfm.data.archive_index import Limits, Member
from wfm.data.local import DamagedSource, known_hash
from wfm.data.source import fetch_source

KINDS = ("zip", "tar", "tar.gz", "tgz")
Pack = Callable[..., Path]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WFM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    """``pack("a.zip", {"x.mp4": bytes})``"""

    def make(name: str, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
        path = tmp_path / name
        if name.endswith(".zip"):
            with zipfile.ZipFile(path, "w", method) as opened:
                for member, data in files.items():
                    opened.writestr(member, data)
        else:
            with tarfile.open(path, "w:gz" if name.endswith("gz") else "w") as tar:
                for member, data in files.items():
                    tar.addfile(header(member, len(data)), io.BytesIO(data))
        return path

    return make


def header(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, link
    return info


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def problems(path: Path) -> dict[str, str]:
    return {member.name: member.problem.split(":")[0] for member in Archive(None, str(path)).index().members}


@pytest.mark.parametrize("kind", KINDS)
def test_a_member_has_its_bytes_and_only_it_is_unpacked(pack: Pack, cache: Path, kind: str) -> None:
    files = {f"deep/{number}.mp4": noise(100_000 + number, number) for number in range(4)} | {"empty.mp4": b""}
    path = pack(f"a.{kind}", files)
    assert {m.name: m.size for m in Archive(None, str(path)).index().members} == {n: len(d) for n, d in files.items()}
    for name in ("deep/3.mp4", "deep/0.mp4", "empty.mp4"):
        local, digest = fetch_source(None, f"{path}!/{name}")  # type: ignore[arg-type]
        assert local.read_bytes() == files[name]
        assert local.suffix == ".mp4"
        os.utime(local, ns=(1, 1))
        assert known_hash(local) == digest, "the hash that was found while it was written is that of the file"
    assert len(list((cache / "sources").iterdir())) == 3


def test_stored_members_are_read_too_and_a_note_before_the_archive_does_no_harm(pack: Pack) -> None:
    path = pack("a.zip", {"x.mp4": b"stored"}, zipfile.ZIP_STORED)
    path.write_bytes(b"#!/bin/sh\n" + path.read_bytes())
    assert fetch_member(None, str(path), "x.mp4").read_bytes() == b"stored"  # type: ignore[arg-type]


def test_another_archive_at_the_same_place_has_other_members(pack: Pack) -> None:
    path = pack("a.tar", {"x.mp4": b"one"})
    assert fetch_member(None, str(path), "x.mp4").read_bytes() == b"one"  # type: ignore[arg-type]
    pack("a.tar", {"y": b"", "x.mp4": b"other"})
    assert fetch_member(None, str(path), "x.mp4").read_bytes() == b"other"  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="no such member"):
        fetch_member(None, str(path), "z.mp4")  # type: ignore[arg-type]


def test_links_devices_and_directories_of_a_tar_are_never_followed(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    kinds = {"s.mp4": tarfile.SYMTYPE, "h.mp4": tarfile.LNKTYPE, "d.mp4": tarfile.CHRTYPE, "f.mp4": tarfile.FIFOTYPE}
    with tarfile.open(path, "w") as tar:
        tar.addfile(header("folder.mp4", kind=tarfile.DIRTYPE))
        for name, kind in kinds.items():
            tar.addfile(header(name, kind=kind, link="/etc/passwd"))
    assert problems(path) == dict.fromkeys(kinds, "unsafe_member")
    with pytest.raises(DamagedSource, match="it is a link"):
        fetch_member(None, str(path), "s.mp4")  # type: ignore[arg-type]


def test_what_a_zip_may_hold_but_is_not_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as opened:
        link = zipfile.ZipInfo("link.mp4")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        opened.writestr(link, "/etc/passwd")
        opened.writestr("lzma.mp4", b"x" * 100, zipfile.ZIP_LZMA)
        opened.writestr("twice.mp4", b"1")
        with pytest.warns(UserWarning, match="Duplicate name"):
            opened.writestr("twice.mp4", b"2")
        opened.writestr("secret.mp4", b"x")
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\1\2") + 8] |= 1  # the flag of a password, in the last entry of the directory
    path.write_bytes(data)
    assert problems(path) == {
        "link.mp4": "unsafe_member",
        "lzma.mp4": "unsupported_compression",
        "twice.mp4": "repeated_name",
        "secret.mp4": "encrypted",
    }


def test_members_that_share_bytes_are_told(pack: Pack) -> None:
    path = pack("a.zip", {"a.mp4": noise(500), "b.mp4": noise(500, 1)}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\1\2")
    data[at + 20 : at + 28] = struct.pack("<II", 900, 900)  # a.mp4 claims the bytes of b.mp4 too
    path.write_bytes(data)
    assert problems(path) == {"a.mp4": "damaged_archive", "b.mp4": ""}


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_a_truncated_archive_says_so_and_keeps_what_came_before(pack: Pack, kind: str) -> None:
    path = pack(f"a.{kind}", {f"{number}.mp4": noise(50_000, number) for number in range(6)})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    index = Archive(None, str(path)).index()
    assert index.problem.startswith("damaged_archive: ")
    if kind != "zip":  # whose directory is at the end
        assert {"0.mp4", "1.mp4"} <= set(index.by_name) < {f"{number}.mp4" for number in range(6)}
        assert fetch_member(None, str(path), "1.mp4").read_bytes() == noise(50_000, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_flipped_bytes_are_found_by_the_archives_own_checksum(pack: Pack, cache: Path, kind: str) -> None:
    path = pack(f"a.{kind}", {f"{number}.mp4": noise(50_000, number) for number in range(6)})
    data = bytearray(path.read_bytes())
    data[125_000:125_100] = bytes(100)
    path.write_bytes(data)
    found = []
    for name in ("2.mp4", "5.mp4"):
        try:
            fetch_member(None, str(path), name)  # type: ignore[arg-type]
        except DamagedSource as error:
            found.append((name, error.code))
    assert ("2.mp4", "damaged_archive") in found
    assert kind == "tar.gz" or ("5.mp4", "damaged_archive") not in found
    assert not list((cache / "sources").glob("*")) or kind == "zip"


@pytest.mark.parametrize("junk", [b"", b"x" * 5000, b"PK\5\6" + b"\xff" * 18, b"\x1f\x8b" + b"\xff" * 700])
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_what_is_no_archive_is_damaged_not_a_crash(tmp_path: Path, kind: str, junk: bytes) -> None:
    path = tmp_path / f"a.{kind}"
    path.write_bytes(junk)
    index = Archive(None, str(path)).index()
    assert (index.members, index.problem.split(":")[0]) == ((), "damaged_archive")


def test_any_flipped_header_byte_ends_in_a_list_or_a_reason(pack: Pack, tmp_path: Path) -> None:
    rng = random.Random(7)
    for kind in ("zip", "tar"):
        whole = pack(f"whole.{kind}", {"a.mp4": b"a" * 600, "b.mp4": b"b" * 10}).read_bytes()
        for number in range(150):
            data = bytearray(whole)
            for _ in range(3):
                data[rng.randrange(len(data))] = rng.randrange(256)
            path = tmp_path / f"{number}.{kind}"
            path.write_bytes(data)
            index = Archive(None, str(path)).index()
            for member in itertools.islice(index.members, 4):
                with contextlib.suppress(DamagedSource, FileNotFoundError):
                    assert fetch_member(None, str(path), member.name).stat().st_size == member.size  # type: ignore[arg-type]


def test_a_bomb_is_told_before_it_goes_off(pack: Pack, tmp_path: Path) -> None:
    limits = Limits(member_bytes=2**24, expansion=50)
    path = pack("a.zip", {"zeros.mp4": bytes(2**24), "film.mp4": noise(2**20), "large.mp4": noise(2**24 + 1)})
    over = {m.name: m.over(limits).split(":")[0] for m in Archive(None, str(path)).index().members}
    assert over == {"zeros.mp4": "zip_bomb", "film.mp4": "", "large.mp4": "too_large"}
    path = pack("a.tgz", {"film.mp4": noise(1000), "zeros.mp4": bytes(2**24), "after.mp4": b""})
    index = Archive(None, str(path)).index(limits.expansion)
    assert index.members == (), "whoever wanted one of them would have to walk all of it"
    assert index.problem.startswith("zip_bomb: ")


def test_a_member_that_holds_more_than_it_declares_is_cut_off(pack: Pack) -> None:
    path = pack("a.zip", {"a.mp4": bytes(2**20)})
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack("<I", 2**20), struct.pack("<I", 4096)))
    with pytest.raises(DamagedSource, match="CRC"):
        fetch_member(None, str(path), "a.mp4")  # type: ignore[arg-type]


def test_sizes_that_lead_back_or_ask_for_all_memory_end_the_walk(tmp_path: Path) -> None:
    back, huge = header("a.mp4"), header("././@LongLink", 2**33, tarfile.GNUTYPE_LONGNAME)
    back.pax_headers = {"size": "-1536"}
    for name, start in (("back", back.tobuf(tarfile.PAX_FORMAT)), ("huge", huge.tobuf(tarfile.GNU_FORMAT))):
        path = tmp_path / f"{name}.tar"
        path.write_bytes(start + bytes(1024))
        assert Archive(None, str(path)).index().problem.startswith("damaged_archive: ReadError"), name


def test_the_index_is_read_once(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    from wfm.data import archive

    for kind in KINDS:
        path = pack(f"a.{kind}", {"a.mp4": noise(1000)})
        first = Archive(None, str(path)).index()
        archive._indexes.clear()  # as in another process
        with monkeypatch.context() as patch:
            patch.setattr(archive.Archive, "_walk", None)
            assert Archive(None, str(path)).index() == first
            assert fetch_member(None, str(path), "a.mp4").read_bytes() == noise(1000)  # type: ignore[arg-type]


def test_a_gzip_can_be_entered_near_the_member(pack: Pack, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wfm.data import archive

    monkeypatch.setattr(archive, "_SPACING", 2**20)
    path = pack("a.tgz", {f"{number}.mp4": noise(2**20, number) for number in range(6)})
    Archive(None, str(path)).index()
    (points,) = (cache / "archives").glob("*.gzi")
    assert points.stat().st_size > 5 * 32_768, "a window of 32 KiB for each point"
    data = bytearray(path.read_bytes())
    data[100_000:200_000] = bytes(100_000)  # whoever unpacked from the start would stumble
    info = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(info.st_mtime_ns, info.st_mtime_ns))
    assert fetch_member(None, str(path), "5.mp4").read_bytes() == noise(2**20, 5)  # type: ignore[arg-type]


@pytest.mark.parametrize("junk", [b"", b"junk", b'[["of another version"]]'])
@pytest.mark.parametrize("ending", ["json", "gzi"])
def test_damage_of_what_was_kept_is_no_damage_of_the_archive(pack: Pack, cache: Path, ending: str, junk: bytes) -> None:
    from wfm.data import archive

    path = pack("a.tgz", {"a.mp4": noise(1000), "b.mp4": noise(2000)})
    first = Archive(None, str(path)).index()
    for kept in (cache / "archives").glob(f"*.{ending}"):
        kept.write_bytes(junk)
    archive._indexes.clear()
    assert Archive(None, str(path)).index() == first
    assert fetch_member(None, str(path), "b.mp4").read_bytes() == noise(2000)  # type: ignore[arg-type]


def test_what_is_an_address_of_a_member(tmp_path: Path) -> None:
    assert split_member("/in/a.zip!/b/c.mp4") == ("/in/a.zip", "b/c.mp4")
    assert split_member("s3://b/a.tar.gz!/c.mp4") == ("s3://b/a.tar.gz", "c.mp4")
    assert split_member("/in/a.tar!/b.zip!/c.mp4") == ("/in/a.tar", "b.zip!/c.mp4")
    assert split_member("/in/wow!/c.mp4") is None
    (tmp_path / "a.zip!").mkdir()
    (tmp_path / "a.zip!" / "c.mp4").touch()
    assert split_member(f"{tmp_path}/a.zip!/c.mp4") is None, "a folder may be called so"


def test_limits_name_their_fields() -> None:
    member = Member("a.mp4", 2**30, "crc32:0", packed=1)
    assert "maximum_member_bytes" in member.over(Limits(member_bytes=5))
    assert "maximum_expansion" in member.over(Limits())
