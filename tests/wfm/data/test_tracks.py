"""Which track is the film, and whether all of it is there: by the video track alone, whatever lies beside it."""

import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from tests.wfm.numbered import Writer, counted, numbers
from wfm.curation.cut.cutter import CutConfig, Cutter
from wfm.data.decode import VideoError, open_video, read_frames
from wfm.data.probe import probe

Track = tuple[Path, int]
"""A file with one track, and the disposition that it gets."""
DEFAULT, COVER = int(av.stream.Disposition.default), int(av.stream.Disposition.attached_pic)


def joined(target: Path, *tracks: Track) -> Path:
    """The video tracks of several files in one, interleaved by time."""
    with av.open(str(target), "w") as out:
        packets = []
        for source, disposition in tracks:
            with av.open(str(source)) as read:
                stream = out.add_stream_from_template(read.streams.video[0])
                stream.disposition = disposition
                for packet in read.demux(video=0):
                    if packet.size:
                        packets.append((float((packet.dts or 0) * packet.time_base), len(packets), packet))
                        packet.stream = stream
        for _, _, packet in sorted(packets, key=lambda one: one[:2]):
            out.mux(packet)
    return target


@pytest.fixture
def film(tmp_path: Path, write_video: Writer) -> Path:
    return write_video(tmp_path / "film.mp4", counted(72), **{"x264-params": "bframes=2"})


@pytest.fixture
def still(tmp_path: Path, write_video: Writer) -> Path:
    return write_video(tmp_path / "still.mov", counted(1), codec="mjpeg", pixel_format="yuvj420p")


@pytest.fixture
def preview(tmp_path: Path, write_video: Writer) -> Path:
    return write_video(tmp_path / "preview.mp4", counted(72)[:, ::2, ::2])


@pytest.mark.parametrize("name", ["a.mov", "a.mkv"])
@pytest.mark.parametrize("first", ["still", "marked still", "preview", "default preview"])
def test_the_film_is_taken(tmp_path: Path, film: Path, still: Path, preview: Path, name: str, first: str) -> None:
    """The old reader took the first track: 'truncated: read 0.04 s of 3.00 s announced (1 frames)', or 48 x 32 pixels."""
    before = {"still": (still, 0), "marked still": (still, DEFAULT), "preview": (preview, 0)}
    path = joined(
        tmp_path / name, before.get(first, (preview, DEFAULT)), (film, 0 if first == "default preview" else DEFAULT)
    )
    found = probe(path)
    chosen = (32, 48) if first == "default preview" else (64, 96)
    assert (found.height, found.width) == chosen
    assert found.num_frames == 72
    other = "mjpeg 96 x 64" if "still" in first else "h264 96 x 64" if first == "default preview" else "h264 48 x 32"
    assert found.notes == (f"video in track {int(first == 'default preview')} ({other}) was not taken",)
    if first == "default preview":
        return
    frames, _ = read_frames(path)
    assert numbers(frames) == list(range(72))
    with open_video(path) as video:
        times = [int(frame.pts) for frame in video.frames()]
        written = Cutter(video, CutConfig()).cut(times[0], video.end_pts(times[-1], None), 72, tmp_path / "clip.mp4")
    assert (written.transcode, written.width) == ("copy", 96)
    assert numbers(read_frames(tmp_path / "clip.mp4")[0]) == list(range(72))


def with_subtitle(target: Path, film: Path, seconds: float) -> Path:
    """The film with one subtitle that is shown from 2 s on for so long."""
    words = target.with_suffix(".srt")
    words.write_text(f"1\n00:00:02,000 --> 00:00:{2 + seconds:02.0f},000\nby the translators\n")
    with av.open(str(film)) as read, av.open(str(words)) as text, av.open(str(target), "w") as out:
        streams = [out.add_stream_from_template(one) for one in (read.streams.video[0], text.streams.subtitles[0])]
        for stream, source in zip(reversed(streams), (text, read), strict=True):
            for packet in source.demux():
                if packet.size:
                    packet.stream = stream
                    out.mux(packet)
    return target


@pytest.mark.parametrize("tag", [True, False])
def test_a_subtitle_may_last_longer_than_the_film(tmp_path: Path, film: Path, tag: bool) -> None:
    """The old reader: truncated: read 3.00 s of 59.00 s announced (72 frames)."""
    path = with_subtitle(tmp_path / "a.mkv", film, 57.0)
    if not tag:  # writers other than ours leave each track's length out
        data = path.read_bytes()
        assert data.count(b"DURATION") == 2
        path.write_bytes(data.replace(b"DURATION", b"DURATIOX"))
    assert probe(path).num_frames == 72
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    if tag:
        with pytest.raises(VideoError, match="truncated"):
            probe(path)


def boxes(data: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(data):
        size = struct.unpack(">I", data[at : at + 4])[0]
        found.append(data[at : at + size])
        at += size
    return found


def test_fragments_may_begin_late(tmp_path: Path, write_video: Writer) -> None:
    """The old reader subtracted their start twice: truncated: read 3.08 s of 3.00 s announced (48 frames)."""
    path = write_video(
        tmp_path / "whole.mp4", counted(72), flags="frag_keyframe+empty_moov+default_base_moof",
        **{"x264-params": "bframes=2:keyint=24:min-keyint=24:scenecut=0"},
    )  # fmt: skip
    parts = boxes(path.read_bytes())
    fragments = [index for index, box in enumerate(parts) if box[4:8] == b"moof"]
    assert len(fragments) == 3
    (tmp_path / "late.mp4").write_bytes(b"".join([*parts[: fragments[0]], *parts[fragments[1] :]]))
    found = probe(tmp_path / "late.mp4")
    assert (found.num_frames, found.duration_seconds) == (48, pytest.approx(2.0))
    frames, seconds = read_frames(tmp_path / "late.mp4")
    assert numbers(frames) == list(range(24, 72))
    assert seconds == pytest.approx(np.arange(48) / 24, abs=2e-3)


def packets_of(path: Path) -> tuple[list[bytes], list[int]]:
    """(the transport packets of 188 bytes, which of them carry on a picture of the video)."""
    data = path.read_bytes()
    found = [data[at : at + 188] for at in range(0, len(data), 188)]
    on = [index for index, one in enumerate(found) if (one[1] & 31) << 8 | one[2] == 0x100 and not one[1] & 0x40]
    return found, on


@pytest.fixture
def recording(tmp_path: Path, write_video: Writer) -> Path:
    noise = np.random.default_rng(0).integers(0, 60, (250, 64, 96, 3), dtype=np.uint8)
    pictures = np.clip(counted(250).astype(int) - noise, 0, 255).astype(np.uint8)
    return write_video(tmp_path / "a.ts", pictures, **{"x264-params": "keyint=24:min-keyint=24:scenecut=0:bframes=2"})


@pytest.mark.parametrize("place", [0.2, 0.5, 0.98])
def test_a_lost_transport_packet_is_not_the_end(
    tmp_path: Path, recording: Path, looked_up: Callable[[Path], list[bool]], place: float
) -> None:
    """The old reader: truncated: data ends inside a frame at 5.08 s (123 frames read), and the like."""
    packets, on = packets_of(recording)
    lost = on[int(place * len(on))]
    (tmp_path / "lost.ts").write_bytes(b"".join(packets[:lost] + packets[lost + 1 :]))
    assert probe(tmp_path / "lost.ts").num_frames >= 249
    damaged = looked_up(tmp_path / "lost.ts")
    assert 1 <= sum(damaged) <= 26


def test_segments_joined_end_to_end_are_whole(
    tmp_path: Path, write_video: Writer, looked_up: Callable[[Path], list[bool]]
) -> None:
    """Their counters begin anew, which the old reader took for a file that ends inside a frame."""
    data = b""
    for index in range(4):
        times = [index * 40 + k for k in range(40)]
        path = write_video(
            tmp_path / f"{index}.ts", counted(40, index * 40), times=times, **{"x264-params": "bframes=2"}
        )
        data += path.read_bytes()
    (tmp_path / "joined.ts").write_bytes(data)
    assert probe(tmp_path / "joined.ts").num_frames == 160
    assert looked_up(tmp_path / "joined.ts") == 160 * [False]
    assert numbers(read_frames(tmp_path / "joined.ts")[0]) == list(range(160))


@pytest.fixture
def looked_up() -> Callable[[Path], list[bool]]:
    """Whether each frame of a file is damaged."""

    def look(path: Path) -> list[bool]:
        with open_video(path) as video:
            return [shown.damaged for shown in video.shown()]

    return look
