"""Shards: what tarfile and Energon would read, the same bytes each time, and damage that is never taken for the end."""

import hashlib
import struct
import tarfile
from pathlib import Path

import pytest

from wfm.data.shards import ShardWriter, index_path, iter_samples, read_index, read_keys, read_sample
from wfm.errors import DataError

SAMPLES = {
    f"{i:02d}ab": {"mp4": bytes([i]) * (400 * i + 1), "json": b"{}", "actions.parquet": b"PAR1"} for i in range(5)
}


def write(folder: Path, *, maximum_bytes: int = 1 << 20) -> list[Path]:
    with ShardWriter(folder, "ab", maximum_bytes=maximum_bytes) as writer:
        for key, members in SAMPLES.items():
            writer.write(key, members)
    return [entry.path for entry in writer.shards]


def test_round_trip_through_the_iterator_and_the_index(tmp_path: Path) -> None:
    (path,) = write(tmp_path)
    assert {s.key: s.members for s in iter_samples(path)} == SAMPLES
    assert read_keys(path) == list(SAMPLES)
    assert read_sample(path, "03ab").members == SAMPLES["03ab"]
    with pytest.raises(DataError, match="no sample 'nope'"):
        read_sample(path, "nope")


def test_index_holds_the_offsets_that_tarfile_reports(tmp_path: Path) -> None:
    """Energon's own prepare writes the header offset of each sample's first member, then the offset at the end."""
    (path,) = write(tmp_path)
    with tarfile.open(path) as tar:
        firsts: dict[str, int] = {}
        for member in tar:
            firsts.setdefault(member.name.split(".", 1)[0], member.offset)
        expected = [*firsts.values(), tar.offset]
    assert list(struct.unpack(f"<{len(expected)}Q", index_path(path).read_bytes())) == expected


def test_same_samples_same_bytes_and_no_trace_of_who_wrote_them(tmp_path: Path) -> None:
    (a,), (b,) = write(tmp_path / "a"), write(tmp_path / "b")
    assert hashlib.sha256(a.read_bytes()).digest() == hashlib.sha256(b.read_bytes()).digest()
    with tarfile.open(a) as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in tar} == {(0, 0, 0, "", "", 0o644)}


def test_a_full_shard_starts_the_next_one(tmp_path: Path) -> None:
    paths = write(tmp_path, maximum_bytes=6000)
    assert [path.name for path in paths[:2]] == ["ab-00000.tar", "ab-00001.tar"]
    assert [s.key for p in paths for s in iter_samples(p)] == list(SAMPLES)


def test_an_error_inside_the_block_leaves_no_shard(tmp_path: Path) -> None:
    def fail() -> None:
        with ShardWriter(tmp_path, "ab") as writer:
            writer.write("k", {"txt": b"x"})
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["a.b", "../a", "a/b", "", "a b"])
def test_writer_refuses_unsafe_keys(tmp_path: Path, key: str) -> None:
    with pytest.raises(DataError, match="key"), ShardWriter(tmp_path, "ab") as writer:
        writer.write(key, {"txt": b"x"})


def test_writer_refuses_a_key_twice_and_an_unsafe_part(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, "ab") as writer:
        writer.write("a", {"txt": b"x"})
        with pytest.raises(DataError, match="unique"):
            writer.write("a", {"txt": b"x"})
        with pytest.raises(DataError, match="suffix"):
            writer.write("b", {"../txt": b"x"})
        with pytest.raises(DataError, match="no members"):
            writer.write("b", {})


def test_every_truncation_is_an_error_even_on_a_member_border(tmp_path: Path) -> None:
    (path,) = write(tmp_path)
    whole, end = path.read_bytes(), read_index(path)[-1]
    index = index_path(path).read_bytes()
    for with_index in (True, False):
        for size in range(512, end + 1, 512):
            path.write_bytes(whole[:size])
            if with_index:
                index_path(path).write_bytes(index)
            else:
                index_path(path).unlink(missing_ok=True)
            with pytest.raises(DataError):
                list(iter_samples(path))


def test_a_flipped_header_byte_is_an_error(tmp_path: Path) -> None:
    (path,) = write(tmp_path)
    data = bytearray(path.read_bytes())
    data[read_index(path)[2] + 5] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged"):
        list(iter_samples(path))
    with pytest.raises(DataError, match="damaged"):
        read_sample(path, "03ab")


@pytest.mark.parametrize("name", ["../evil.mp4", "/etc/passwd.txt", "dir/a.mp4", "nodot"])
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(DataError, match="name"):
        list(iter_samples(path))


def test_links_and_scattered_samples_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        link = tarfile.TarInfo("a.mp4")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(DataError, match="regular"):
        list(iter_samples(path))
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name in ("a.mp4", "b.mp4", "a.json"):
            tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(DataError, match="twice"):
        list(iter_samples(path))


def test_an_index_of_another_shard_is_refused(tmp_path: Path) -> None:
    (path,) = write(tmp_path)
    offsets = read_index(path)
    index_path(path).write_bytes(struct.pack(f"<{len(offsets) - 1}Q", *offsets[:2], *offsets[3:]))
    with pytest.raises(DataError, match="index"):
        list(iter_samples(path))
    index_path(path).write_bytes(b"123")
    with pytest.raises(DataError, match="offsets"):
        read_sample(path, "00ab")
