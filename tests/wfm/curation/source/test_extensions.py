"""Videos whose names do not say so: taken by their content, or a row with the reason."""

import zipfile
from pathlib import Path

import av
import numpy as np
import pytest

from wfm.artifacts import Store
from wfm.curation.source.ingest import IngestConfig, examine
from wfm.curation.source.listing import list_source
from wfm.data.signatures import is_text, is_video

FRAMES = 24
KINDS = {  # ending -> (container, codec)
    ".vob": ("vob", "mpeg2video"),
    ".f4v": ("mp4", "libx264"),
    ".qt": ("mov", "mpeg4"),
    ".3g2": ("3g2", "libx264"),
    ".264": ("h264", "libx264"),
    ".265": ("hevc", "libx265"),
    ".m2v": ("mpeg2video", "mpeg2video"),
    ".mpv": ("mpeg1video", "mpeg1video"),
    ".mod": ("mpeg", "mpeg2video"),
    ".tod": ("mpegts", "mpeg2video"),
    ".m2ts": ("mpegts", "libx264"),
    ".mkv": ("matroska", "libx264"),
    ".wmv": ("asf", "wmv2"),
    ".flv": ("flv", "flv"),
    ".avi": ("avi", "mpeg4"),
    ".ivf": ("ivf", "libvpx"),
    ".y4m": ("yuv4mpegpipe", "wrapped_avframe"),
}
NEW = (".vob", ".f4v", ".qt", ".3g2", ".264", ".265", ".m2v", ".mpv", ".mod", ".tod")
"""The endings that were left aside before, without a row: the listing of each alone said "no video files"."""


def write(path: Path, container: str, codec: str) -> Path:
    rng = np.random.default_rng(len(path.name))
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream(codec, rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for _ in range(FRAMES):
            picture = rng.integers(0, 255, (8, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture).reformat(format="yuv420p")))
        out.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("films")
    return {ending: write(folder / f"film{ending}", *kind).read_bytes() for ending, kind in KINDS.items()}


@pytest.mark.parametrize("ending", NEW)
def test_old_cameras_and_bare_streams_are_taken_in_any_case(
    films: dict[str, bytes], ending: str, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / f"a{ending.upper()}").write_bytes(films[ending])
    store = Store.open(tmp_path / "store")
    (file,) = list_source(str(folder)).files
    row, _ = examine(file, store, IngestConfig())
    assert (row.status, row.num_frames) == ("ok", FRAMES), row.reason


@pytest.mark.parametrize("ending", KINDS)
def test_without_an_ending_the_content_decides(films: dict[str, bytes], ending: str, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("noending", "2024.06.01 walk", "film.bak"):
        (folder / name).write_bytes(films[ending])
    with zipfile.ZipFile(folder / "more.zip", "w") as archive:
        archive.writestr("noending", films[ending])
        archive.writestr("CHECKSUMS", "0123 noending\n")
    found = list_source(str(folder))
    assert {file.name for file in found.files} == {"noending", "2024.06.01 walk", "film.bak"}
    assert len(found.files) == 4  # before: none of them
    assert found.aside == {"other_ending": 1}


def test_what_is_no_video_is_a_row_or_left_aside_and_counted(tmp_path: Path, films: dict[str, bytes]) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(films[".f4v"])
    (folder / "unknown").write_bytes(bytes(range(256)) * 20)
    for name, content in (
        ("README", b"words"),
        ("empty", b""),
        ("Thumbs.db", bytes(99)),
        ("x.bin", bytes(99)),
        ("y.jpg", films[".f4v"]),
        ("y.wav", films[".f4v"]),
    ):
        (folder / name).write_bytes(content)
    found = list_source(str(folder))
    assert [file.name for file in found.files] == ["a.mp4", "unknown", "y.jpg"]  # bytes say what it is, the ending lies
    assert found.aside == {"other_ending": 5}
    assert examine(found.files[2], Store.open(tmp_path / "store"), IngestConfig())[0].num_frames == FRAMES
    row, _ = examine(found.files[1], Store.open(tmp_path / "store"), IngestConfig())
    assert row.status == "failed"
    assert row.reason.startswith("not_a_video")


def test_pictures_and_sound_in_the_same_containers_are_not_video() -> None:
    assert not is_video(b"\0\0\0\x18ftypheic" + bytes(80))
    assert not is_video(b"\0\0\0\x20ftypM4A " + bytes(80))
    assert not is_video(b"OggS" + bytes(24) + b"\x01vorbis")
    assert not is_video(b"RIFF\0\0\0\0WAVE")
    assert not is_video(b"G" + bytes(4000))  # one sync byte is none
    assert not is_video(b"")
    assert is_text("häß".encode()[:-1] + b"")
    assert not is_text(b"\xff\xfe\xff")
