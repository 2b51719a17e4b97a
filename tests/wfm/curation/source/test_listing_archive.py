"""Archives are listed like folders, wherever they lie."""

import base64
import hashlib
import io
import json
import sys
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wfm.curation.source.listing import list_source
from wfm.curation.source.source_files import Listing, SourceFile
from wfm.data.archive_index import Limits
from wfm.data.source import open_source
from wfm.errors import InputError

Pack = Callable[..., Path]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WFM_CACHE", str(tmp_path / "cache"))


def tar_bytes(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    """``pack("a.zip", {"x.mp4": bytes})`` -> its path below the folder ``in``."""

    def make(name: str, files: dict[str, bytes]) -> Path:
        path = tmp_path / "in" / name
        path.parent.mkdir(exist_ok=True)
        if name.endswith(".zip"):
            with zipfile.ZipFile(path, "w") as opened:
                for member, data in files.items():
                    opened.writestr(member, data)
        else:
            path.write_bytes(tar_bytes(files))
        return path

    return make


def problems(found: Listing) -> dict[str, str]:
    return {file.name: file.problem.split(":")[0] for file in found.files}


def test_archives_of_a_folder_are_looked_into(pack: Pack, tmp_path: Path) -> None:
    path = pack("a.zip", {"deep/x.mp4": b"x", "notes.txt": b"", ".h.mp4": b"", "__MACOSX/deep/._x.mp4": b""})
    pack("b.tar", {"./y.MKV": b"yy"})
    (tmp_path / "in" / "z.mp4").write_bytes(b"z")
    found = list_source(str(tmp_path / "in"))
    assert [(file.source.removeprefix(str(tmp_path)), file.name, file.size) for file in found.files] == [
        ("/in/a.zip!/deep/x.mp4", "x.mp4", 1),
        ("/in/b.tar!/y.MKV", "y.MKV", 2),
        ("/in/z.mp4", "z.mp4", 1),
    ]
    assert found.aside == {"hidden": 2, "other_ending": 1}
    assert list_source(str(path)).files == found.files[:1]
    assert list_source(f"{path}!/deep/x.mp4").files == found.files[:1]
    assert list_source(str(tmp_path / "in" / "*.zip")).files == found.files[:1]
    assert problems(list_source(f"{path}!/gone.mp4")) == {"gone.mp4": "not_found"}


def test_sidecars_of_a_member_lie_in_its_archive(pack: Pack) -> None:
    beside = {
        "0001.mp4": b"",
        "0001.json": b"{}",
        "0002.mp4": b"",
        "0002.actions.parquet": b"",
        "0002.attributes.json": b"",
    }
    folders = {"videos/c.mp4": b"", "actions/c.parquet": b"", "attributes/c.json": b""}
    path = pack("a.tar", {**beside, **folders, "alone.json": b"{}"})
    found = list_source(str(path))
    members = [(f.name, f.actions.rpartition("!/")[2], f.attributes.rpartition("!/")[2]) for f in found.files]
    assert members == [
        ("0001.mp4", "", "0001.json"),
        ("0002.mp4", "0002.actions.parquet", "0002.attributes.json"),
        ("c.mp4", "actions/c.parquet", "attributes/c.json"),
    ]
    assert found.aside == {"other_ending": 1}


def test_a_zip_that_was_packed_again_holds_the_same_videos(pack: Pack) -> None:
    before = list_source(str(pack("a.zip", {"x.mp4": b"one", "y.mp4": b"two"})))
    again = list_source(str(pack("a.zip", {"new.mp4": b"", "y.mp4": b"two", "x.mp4": b"other"})))
    kept = {file.name: file for file in again.files}
    assert kept["y.mp4"] in before.files, "same name, size and crc: it need not be read again"
    assert kept["x.mp4"] not in before.files


def test_what_means_harm_is_a_row_with_its_reason(pack: Pack, tmp_path: Path) -> None:
    pack("a.tar", {"../../etc/x.mp4": b"", "/abs.mp4": b"", "ok.mp4": b"", "n\nl 'ü.mp4": b""})
    whole = pack("b.tar", {"c.mp4": b"c" * 2000, "d.mp4": b"d" * 2000}).read_bytes()
    (tmp_path / "in" / "b.tar").write_bytes(whole[:3000])
    (tmp_path / "in" / "c.zip").write_bytes(b"text")
    (tmp_path / "in" / "d.zip").symlink_to("nowhere")
    assert problems(list_source(str(tmp_path / "in"))) == {
        "x.mp4": "unsafe_name",
        "abs.mp4": "unsafe_name",
        "ok.mp4": "",
        "n\nl 'ü.mp4": "",
        "c.mp4": "",
        "b.tar": "damaged_archive",
        "c.zip": "damaged_archive",
        "d.zip": "dangling_link",
    }
    assert not list_source(str(tmp_path / "in" / "c.zip")).files[0].size < 1
    limits = Limits(member_bytes=100)
    assert problems(list_source(str(pack("e.tar", {"x.mp4": b"x" * 101})), None, limits)) == {"x.mp4": "too_large"}


def test_an_archive_without_videos_is_wrong_input(pack: Pack) -> None:
    with pytest.raises(InputError, match="1 other_ending"):
        list_source(str(pack("a.zip", {"n.txt": b""})))


def test_a_list_names_archives_and_members(pack: Pack, tmp_path: Path) -> None:
    pack("a.tar", {"x.mp4": b"", "y.mp4": b""})
    pack("b.zip", {"z.mp4": b"", "poses.parquet": b"", "other.mp4": b""})
    rows: list[dict[str, str]] = [
        {"source": "a.tar", "license": "CC0-1.0", "session_id": "s"},
        {"source": "b.zip!/z.mp4", "licence": "CC-BY-4.0", "actions": "b.zip!/poses.parquet"},
    ]
    (tmp_path / "in" / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = {file.name: file for file in list_source(str(tmp_path / "in" / "list.jsonl")).files}
    assert {name: (file.licence, file.session_id) for name, file in found.items()} == {
        "x.mp4": ("CC0-1.0", "s"),
        "y.mp4": ("CC0-1.0", "s"),
        "z.mp4": ("CC-BY-4.0", ""),
    }
    assert found["z.mp4"].actions == f"{tmp_path}/in/b.zip!/poses.parquet"
    assert found["z.mp4"].sidecar_stamp == "crc32:00000000"


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``gs://`` served from memory (whose paths begin with /), with the digest that Google's storage states of an object."""
    from fsspec.implementations.memory import MemoryFileSystem

    class Google(MemoryFileSystem):  # type: ignore[misc]
        protocol = "gs"
        store: dict[str, Any] = {}
        pseudo_dirs = [""]
        stated: dict[str, bytes] = {}

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return "/" + path.removeprefix("gs://").strip("/")

        def info(self, path: str, **_: Any) -> dict[str, Any]:
            found = dict(super().info(path))
            if found["type"] == "file":
                data = self.stated.get(path, self.store[self._strip_protocol(path)].getvalue())
                found["md5Hash"] = base64.b64encode(hashlib.md5(data).digest()).decode()
            return found

    monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, "gs", Google)
    return Google


def test_a_prefix_of_google_storage_with_an_archive_in_it(google: Any, tmp_path: Path) -> None:
    from wfm.artifacts import Store
    from wfm.data.local import DamagedSource
    from wfm.data.source import fetch_source

    bucket = google()
    bucket.pipe("/films/in/videos/a b.mp4", b"video")
    bucket.pipe("/films/in/videos/n.txt", b"")
    bucket.pipe("/films/in/actions/a b.parquet", b"actions")
    bucket.pipe("/films/in/videos/more.tar", tar_bytes({"0001.mp4": b"member", "0001.json": b"{}"}))
    found = list_source("gs:///films/in/videos")
    assert [file.source for file in found.files] == [
        "gs:///films/in/videos/a b.mp4",
        "gs:///films/in/videos/more.tar!/0001.mp4",
    ]
    assert found.files[0].actions == "gs:///films/in/actions/a b.parquet"
    assert found.files[1].attributes == "gs:///films/in/videos/more.tar!/0001.json"
    assert found.aside == {"other_ending": 1}
    store = Store.open(tmp_path / "store")
    assert [open_source(store, file.source).read_bytes() for file in found.files] == [b"video", b"member"]
    bucket.pipe("/films/in/videos/a b.mp4", b"other")
    google.stated["/films/in/videos/a b.mp4"] = b"what was written"
    with pytest.raises(DamagedSource, match="checksum_mismatch: its bytes have the md5"):
        fetch_source(store, "gs:///films/in/videos/a b.mp4")


@pytest.mark.alone
def test_a_listing_costs_little_memory_a_file(tmp_path: Path) -> None:
    names = {f"{number:06d} clip.mp4": b"" for number in range(4_000)}
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w") as opened:
        for name in names:
            opened.writestr(name, b"")
    tracemalloc.start()
    found = list_source(str(path))
    held, _ = tracemalloc.get_traced_memory()
    assert len(found.files) == 4_000
    assert held / 4_000 < 1500, "bytes a file, with its member in the index"
    assert isinstance(found.files[0], SourceFile)
