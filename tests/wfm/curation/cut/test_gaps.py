"""A gap in time is a break: no clip spans one. A picture that stands still in a recording of a screen is none."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.wfm.numbered import Writer, counted, numbers, remux
from wfm.artifacts import Store
from wfm.curation.cut.decoded import as_decoded
from wfm.curation.cut.shot_detection import ShotConfig
from wfm.curation.cut.shots import look, spans
from wfm.curation.cut.split import SplitConfig, SplitVideo
from wfm.curation.source.ingest import IngestConfig, examine
from wfm.curation.source.listing import list_source
from wfm.data.decode import open_video, read_frames
from wfm.data.probe import probe
from wfm.records import Clip, Video

WHOLE: dict[str, Any] = {"shots": {"detector": "whole"}}


def curated(path: Path, out: Path, **config: Any) -> tuple[Video, list[Clip], SplitVideo]:
    """(the row of a file as ingest and then decoding have it, its clips, the step with what it left out)."""
    store: Any = Store.open(out / "store")
    listing = list_source(str(path), store)
    row, _ = examine(listing.files[0], store, IngestConfig())
    assert row.status == "ok", row.reason
    step = SplitVideo(SplitConfig.parse(config or WHOLE), store, store, out)
    clips = list(step(row))
    return as_decoded([row], step.decoded)[0], clips, step


def jumping(path: Path, source: Path, at: int, frames: int, container: str | None = None) -> Path:
    """The packets of a video whose clock goes ahead (or back) by so many frames at one of them."""

    def jump(number: int, packet: Any) -> None:
        packet.pts = packet.dts = (number + (frames if number >= at else 0)) * packet.duration

    return remux(source, path, jump, container)


@pytest.fixture
def film(tmp_path: Path, write_video: Writer) -> Path:
    return write_video(tmp_path / "film.mp4", counted(120), fps=25, **{"x264-params": "bframes=0:keyint=60:scenecut=0"})


@pytest.mark.parametrize("name", ["a.ts", "a.mkv", "a.mp4"])
@pytest.mark.parametrize("seconds", [2, 30, 3600])
def test_a_clock_that_jumps_ahead_breaks_the_clip(tmp_path: Path, film: Path, name: str, seconds: int) -> None:
    """The old code made one clip of 120 frames, or, after an hour, a first one of 0.017 frames a second."""
    path = jumping(tmp_path / name, film, 60, 25 * seconds)
    row, clips, step = curated(path, tmp_path)
    assert [(clip.num_frames, clip.transcode) for clip in clips] == [(60, "copy" if name != "a.ts" else "encode")] * 2
    assert [clip.fps for clip in clips] == pytest.approx([25, 25], rel=1e-3)
    assert clips[1].start_seconds - clips[0].start_seconds == pytest.approx(2.4 + seconds, abs=2e-3)
    assert numbers(read_frames(tmp_path / clips[1].path)[0]) == list(range(60, 120))
    assert (row.num_frames, row.fps) == (120, pytest.approx(25, rel=1e-3))  # was 0.03 frames a second
    assert (row.notes, row.variable_frame_rate) == ("1 gap in time", False)
    assert step.skips == []


def test_a_clock_that_falls_back_breaks_the_clip(tmp_path: Path, film: Path) -> None:
    """The old code refused the file: truncated: data ends inside a frame at 604.72 s (118 frames read)."""
    path = tmp_path / "a.ts"
    jumping(tmp_path / "first.ts", film, 60, 25 * 600)
    data = (tmp_path / "first.ts").read_bytes()
    path.write_bytes(data + jumping(tmp_path / "second.ts", film, 0, 0).read_bytes())
    row, clips, _ = curated(path, tmp_path)
    assert [clip.num_frames for clip in clips] == [60, 60, 120]
    assert [numbers(read_frames(tmp_path / clip.path)[0])[0] for clip in clips] == [0, 60, 0]
    assert row.num_frames == 240


def test_the_clock_of_a_transport_stream_comes_round(tmp_path: Path, film: Path) -> None:
    """33 bits of 90 kHz end after 26.5 hours; the film goes on."""

    def late(number: int, packet: Any) -> None:
        packet.time_base = Fraction(1, 90_000)
        packet.pts = packet.dts = 2**33 - 90_000 + 3600 * number
        packet.duration = 3600

    path = remux(film, tmp_path / "a.ts", late)
    row, clips, _ = curated(path, tmp_path)
    assert [clip.num_frames for clip in clips] == [120]
    assert (row.notes, clips[0].end_seconds - clips[0].start_seconds) == ("", pytest.approx(4.8))


def test_a_still_screen_is_no_gap(tmp_path: Path, write_video: Writer) -> None:
    """Frames come when something changes, every 1 to 4 ticks, and the screen stands still for 3, 6 and 9 s."""
    gaps = np.resize([1, 2, 4], 90)
    gaps[[20, 45, 70]] = [72, 144, 216]
    path = write_video(
        tmp_path / "a.mp4", counted(91), times=[0, *np.cumsum(gaps).tolist()], time_base=Fraction(1, 24)
    )  # fmt: skip
    row, clips, _ = curated(path, tmp_path)
    assert row.variable_frame_rate
    assert [clip.num_frames for clip in clips] == [91]


def test_a_picture_every_few_seconds_is_no_gap(tmp_path: Path, write_video: Writer) -> None:
    path = write_video(tmp_path / "a.mp4", counted(12), times=[3 * k for k in range(12)], time_base=Fraction(1, 1))
    _, clips, _ = curated(path, tmp_path)
    assert [clip.num_frames for clip in clips] == [12]


def test_holes_make_no_even_video_uneven(tmp_path: Path, film: Path) -> None:
    assert not probe(jumping(tmp_path / "a.mkv", film, 60, 100)).variable_frame_rate


def test_a_lost_frame_makes_no_hole_a_still_picture(tmp_path: Path, film: Path) -> None:
    """Two frames are missing, and later 4 s. Before: the two made it uneven, and one clip spanned the 4 s."""

    def lost(number: int, packet: Any) -> None:
        packet.pts = packet.dts = (number + 2 * (number >= 20) + 100 * (number >= 60)) * packet.duration

    row, clips, _ = curated(remux(film, tmp_path / "a.mkv", lost), tmp_path)
    assert not row.variable_frame_rate
    assert [clip.num_frames for clip in clips] == [60, 60]
    assert row.notes == "1 gap in time"


def test_frames_without_a_time_of_their_own_are_told(tmp_path: Path, film: Path) -> None:
    """The old table said 120 frames at 25 a second; 114 could be had."""

    def stutters(number: int, packet: Any) -> None:
        packet.pts = packet.dts = (number - (number % 20 == 10)) * packet.duration

    row, clips, _ = curated(remux(film, tmp_path / "a.mkv", stutters), tmp_path)
    assert (row.num_frames, sum(clip.num_frames for clip in clips)) == (114, 114)
    assert row.fps == pytest.approx(114 / 4.8, rel=1e-3)
    assert row.notes == "6 frames left out: their times are those of others, or earlier"


def test_packets_that_show_nothing_are_not_counted(tmp_path: Path, write_video: Writer) -> None:
    """VP8's alternate references: the old table counted each as a frame."""
    options = {"cpu-used": "8", "deadline": "realtime", "lag-in-frames": "0"}
    source = write_video(tmp_path / "s.webm", counted(120), codec="libvpx", **options)
    path = tmp_path / "a.webm"
    with av.open(str(source)) as read, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(read.streams.video[0])
        for number, packet in enumerate(packet for packet in read.demux(video=0) if packet.size):
            data = bytes(packet)
            for shown in [0x00, 0x10] if number % 20 == 10 else [0x10]:
                again = av.Packet(bytes([data[0] & 0xEF | shown]) + data[1:])
                again.pts, again.dts, again.time_base = packet.pts, packet.dts, packet.time_base
                again.is_keyframe, again.stream = packet.is_keyframe, stream
                out.mux(again)
    with open_video(path) as video:
        assert len(list(video.packets())) == 126
    row, clips, _ = curated(path, tmp_path)
    assert (row.num_frames, row.notes, sum(clip.num_frames for clip in clips)) == (120, "", 120)


def test_b_frames_from_avi_reach_the_clips(tmp_path: Path, write_video: Writer) -> None:
    """The old code gave 61 of 120, at 13 a second."""
    path = write_video(tmp_path / "a.avi", counted(120), **{"x264-params": "bframes=3:b-adapt=0"})
    row, clips, _ = curated(path, tmp_path)
    assert [clip.num_frames for clip in clips] == [120]
    assert numbers(read_frames(tmp_path / clips[0].path)[0]) == list(range(120))
    assert (row.num_frames, row.fps, row.notes) == (120, pytest.approx(24), "")


def test_nothing_is_copied_by_times_that_are_wrong(tmp_path: Path, write_video: Writer) -> None:
    source = write_video(tmp_path / "s.mp4", counted(120), **{"x264-params": "bframes=3:b-adapt=0"})

    def in_order(number: int, packet: Any) -> None:
        packet.pts = packet.dts = number * packet.duration

    path = remux(source, tmp_path / "a.mkv", in_order)
    _, clips, _ = curated(path, tmp_path)
    assert [(clip.num_frames, clip.transcode) for clip in clips] == [(120, "encode")]
    assert numbers(read_frames(tmp_path / clips[0].path)[0]) == list(range(120))


def test_look_and_spans_agree_on_a_gap(tmp_path: Path, film: Path) -> None:
    with open_video(jumping(tmp_path / "a.mkv", film, 60, 250)) as video:
        timeline, cuts = look(video, ShotConfig(detector="stride", stride_seconds=2.0))
        kept, short = spans(timeline, cuts, ShotConfig(detector="stride", stride_seconds=2.0))
    assert all(not span.first < 60 < span.last for span in [*kept, *short])
    assert sum(span.last - span.first for span in [*kept, *short]) == 120
