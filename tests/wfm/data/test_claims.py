"""Small files that claim much cost little, and are told apart from good ones."""

import io
import struct
import subprocess
import sys
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from wfm.data import claims
from wfm.data.claims import PacketCount, TooManyPackets, mp4_claims
from wfm.data.decode import VideoError, open_video, to_array
from wfm.data.probe import probe

_WITHIN = """
import resource, sys, time
from pathlib import Path
from wfm.data.decode import VideoError, open_video, to_array
from wfm.data.probe import probe
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
said, frames = [], 0
try:
    probe(Path(sys.argv[1]), maximum_pixels=2**26)
except VideoError as error:
    said.append(error.code)
try:
    with open_video(sys.argv[1]) as video:
        for frame in video.frames():
            to_array(frame, size=(64, 64))
            frames += 1
except VideoError as error:
    said.append(error.code)
print(*said, frames, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


def cost_of(path: Path) -> tuple[list[str], int, int]:
    """(codes of probe and decoding where these fail, frames decoded, memory that both took [MiB]), in a process of its own."""
    command = [sys.executable, "-c", _WITHIN, str(path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr[-500:]
    *codes, frames, peak = ran.stdout.split()
    return codes, int(frames), int(peak)


def box(kind: bytes, *parts: bytes) -> bytes:
    data = b"".join(parts)
    return struct.pack(">I4s", 8 + len(data), kind) + data


def full(kind: bytes, *parts: bytes) -> bytes:
    return box(kind, bytes(4), *parts)


def longs(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


def mp4(
    sizes: bytes,
    *,
    codec: bytes = b"mp4v",
    count: int,
    data: bytes = bytes(64),
    kind: bytes = b"vide",
    step: int = 1,
    more: bytes = b"",
) -> bytes:
    """A film of one track whose samples lie in one chunk; ``sizes``: the box that says how large they are."""
    begin = box(b"ftyp", b"isom", longs(512), b"isomiso2mp41")
    entry = (bytes(6), struct.pack(">H", 1), bytes(16), struct.pack(">HH", 64, 64), longs(0x480000, 0x480000, 0))
    described = full(b"stsd", longs(1), box(codec, *entry, struct.pack(">H", 1), bytes(32), struct.pack(">Hh", 24, -1)))
    table = box(
        b"stbl", described, full(b"stts", longs(1, count, step)), full(b"stsc", longs(1, 1, count, 1)), sizes,
        full(b"stco", longs(1, len(begin) + 8)),
    )  # fmt: skip
    unit = longs(0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    media = box(
        b"mdia", full(b"mdhd", longs(0, 0, 30, count, 0)), full(b"hdlr", longs(0), kind, bytes(14)),
        box(b"minf", full(b"vmhd", longs(1), bytes(8)), box(b"dinf", full(b"dref", longs(1), full(b"url "))), table),
    )  # fmt: skip
    head = full(b"tkhd", longs(3, 0, 0, 1, 0, count, 0, 0), bytes(8), unit, longs(64 << 16, 64 << 16))
    movie = full(
        b"mvhd", longs(0, 0, 30, count, 0x10000), struct.pack(">H", 0x100), bytes(10), unit, bytes(24), longs(2)
    )
    return begin + box(b"mdat", data) + box(b"moov", movie, box(b"trak", head, more, media))


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return longs(len(data)) + kind + data + longs(zlib.crc32(kind + data))

    packed = zlib.compressobj(9)
    lines = b"".join(packed.compress(bytes(3 * width + 1)) for _ in range(height)) + packed.flush()
    head = longs(width, height) + bytes((8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


def of_pictures(*pictures: bytes) -> bytes:
    sizes = full(b"stsz", longs(0, len(pictures), *map(len, pictures)))
    return mp4(sizes, codec=b"png ", count=len(pictures), data=b"".join(pictures))


def film(width: int, height: int, count: int, codec: str = "libx264", form: str = "h264") -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format=form) as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "ultrafast"} if codec == "libx264" else {}
        frame = av.VideoFrame.from_ndarray(np.zeros((height, width, 3), np.uint8))
        for number in range(count):
            frame.pts, frame.time_base = number, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()


@pytest.mark.parametrize(
    "sizes",
    [
        full(b"stsz", longs(1, 20_000_000)),  # the old code: 704 MiB
        full(b"stsz", longs(0, 200_000_000)),
        full(b"stz2", longs(4, 200_000_000)),
    ],
)
def test_an_index_that_counts_more_samples_than_there_are_bytes(tmp_path: Path, sizes: bytes) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(mp4(sizes, count=20_000_000))
    codes, _, peak = cost_of(path)
    assert codes == ["truncated", "truncated"]
    assert peak < 100


def test_fragments_edits_and_packed_indexes_that_claim_too_much(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    good = mp4(full(b"stsz", longs(6, 10)), count=10)
    run = full(b"trun", longs(40_000_000))
    edits = box(b"edts", full(b"elst", longs(30_000)))
    wrong = {
        "fragments claim": good + box(b"moof", box(b"traf", run)),
        "edit list claims": mp4(full(b"stsz", longs(0, 5_000, *[1] * 5_000)), count=5_000, more=edits),
        "packed index claims": box(b"ftyp", bytes(8)) + box(b"moov", box(b"cmov", box(b"cmvd", longs(2**31)))),
    }
    for words, data in wrong.items():
        path.write_bytes(data)
        assert words in mp4_claims(path, data[:16])
        with pytest.raises(VideoError, match=words):
            probe(path)


def test_indexes_that_are_true_are_no_claims(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    sound = mp4(full(b"stsz", longs(1, 2_000_000)), count=2_000_000, kind=b"soun")  # counted before it was packed
    with_index = io.BytesIO()
    with av.open(with_index, "w", format="mov", options={"movflags": "frag_keyframe+empty_moov"}) as container:
        stream = container.add_stream("rawvideo", rate=30)
        stream.width = stream.height = 16
        stream.pix_fmt = "rgb24"
        for number in range(30):
            frame = av.VideoFrame.from_ndarray(np.full((16, 16, 3), number, np.uint8))
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    for data in (
        film(64, 64, 30, form="mp4"),
        with_index.getvalue(),
        sound,
        mp4(full(b"stsz", longs(6, 10)), count=10),
    ):
        path.write_bytes(data)
        assert mp4_claims(path, data[:16]) == ""
    path.write_bytes(with_index.getvalue())
    assert probe(path).num_frames == 30


def test_a_picture_that_grows_is_refused_before_it_is_made(tmp_path: Path) -> None:
    """Of eight 64 x 64 pictures the last is of 12,000 x 12,000: the old code took 474 MiB and gave out all eight."""
    path = tmp_path / "a.mp4"
    path.write_bytes(of_pictures(*[png(64, 64)] * 7, png(12_000, 12_000)))
    codes, frames, peak = cost_of(path)
    assert (codes, frames) == (["too_large"], 7)
    assert peak < 150
    # 64 x 64 says the index; the old code took 474 MiB to open it
    path.write_bytes(of_pictures(png(12_000, 12_000)))
    codes, frames, peak = cost_of(path)
    assert (codes, frames) == (["too_large", "too_large"], 0)
    assert peak < 150


@pytest.mark.parametrize(("codec", "form"), [("libx264", "h264"), ("mpeg2video", "mpeg2video"), ("libx265", "hevc")])
def test_any_decoder_refuses_a_stream_that_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str, form: str
) -> None:
    path = tmp_path / f"a.{form}"
    path.write_bytes(film(64, 64, 8, codec, form) + film(256, 128, 4, codec, form))
    with open_video(path) as video:
        assert {(frame.width, frame.height) for frame in video.frames()} == {(64, 64), (256, 128)}  # within the limit
    monkeypatch.setattr(claims, "LARGEST_CHANGE", 128 * 128)
    shown: list[int] = []
    with open_video(path) as video, pytest.raises(VideoError, match="too_large: a picture grows"):
        shown.extend(to_array(frame).shape[1] for frame in video.frames())
    assert set(shown) == {64}


def test_packets_of_next_to_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """3,000,000 packets of 49 KiB took the old code 35 s and 397 MiB."""
    path = tmp_path / "a.mp4"
    monkeypatch.setattr(claims, "_FEW_PACKETS", 1000)
    path.write_bytes(mp4(full(b"stsz", longs(0, 2000, *[1] * 2000)), count=2000, data=bytes(2000)))
    with pytest.raises(VideoError, match=r"too_large: 1,000 packets of 1.0 bytes"):
        probe(path)
    monkeypatch.setattr(claims, "MOST_PACKETS", 3000)
    count = PacketCount(2999)
    with pytest.raises(TooManyPackets, match="more than 3,000 packets"):
        count.add(10**6)


def test_errors_of_memory_and_arithmetic_are_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(film(64, 64, 8, form="mp4"))

    def failing(error: BaseException) -> Any:
        raise error

    for error in (MemoryError(), OverflowError("int too big")):
        with open_video(path) as video:
            broken = type(
                "Broken", (), {"demux": lambda *_, error=error: failing(error), "format": video.container.format}
            )()
            monkeypatch.setattr(video, "container", broken)
            with pytest.raises(VideoError, match="decode_error"):
                next(video.frames())
            monkeypatch.undo()
