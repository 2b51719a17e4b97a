"""All frames, in the order they are shown, whatever times their packets carry; and those that cannot be trusted are known."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.wfm.numbered import Writer, counted, numbers, remux
from wfm.data.decode import open_video, read_frames
from wfm.data.frame_order import Shown
from wfm.data.probe import probe

B_FRAMES: dict[str, dict[str, Any]] = {
    # name -> how it is written, and the frames that the former reader gave: the packets' times were believed.
    "h264.avi": {"x264-params": "bframes=3:b-adapt=0"},  # 51 of 100
    "mpeg4.avi": {"codec": "mpeg4", "bf": "2"},  # 100 of 100, each 1/24 s late
    "h264.asf": {"x264-params": "bframes=3:b-adapt=0"},  # 51 of 100
    "mpeg4.wmv": {"codec": "mpeg4", "bf": "2"},
    "two_deep.avi": {"x264-params": "bframes=7:b-pyramid=normal:b-adapt=0"},  # 75 of 100
    "open.avi": {"x264-params": "bframes=3:open-gop=1:keyint=20:b-adapt=0"},  # 51 of 100
}


@pytest.mark.parametrize("name", B_FRAMES)
def test_b_frames_where_times_are_those_of_decoding(tmp_path: Path, write_video: Writer, name: str) -> None:
    path = write_video(tmp_path / name, counted(100), **B_FRAMES[name])
    frames, seconds = read_frames(path)
    assert numbers(frames) == list(range(100))
    assert np.diff(seconds) == pytest.approx(1 / 24, abs=2e-3)
    found = probe(path)
    assert found.num_frames == 100
    assert found.fps == pytest.approx(24, rel=1e-3)
    assert not found.variable_frame_rate
    if name.endswith("avi"):
        assert seconds[0] == 0.0
    later, at = read_frames(path, start_seconds=seconds[50])
    assert numbers(later) == list(range(50, 100))
    assert at[0] == seconds[50]


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_decoding_times_that_pose_as_times_of_showing(tmp_path: Path, write_video: Writer, name: str) -> None:
    """As a copy out of an AVI has them: the old reader gave 51 of 100 frames."""
    source = write_video(tmp_path / "source.mp4", counted(100), **B_FRAMES["h264.avi"])

    def in_order(number: int, packet: Any) -> None:
        packet.pts = packet.dts = number * packet.duration

    path = remux(source, tmp_path / name, in_order)
    frames, seconds = read_frames(path)
    assert numbers(frames) == list(range(100))
    assert np.diff(seconds) == pytest.approx(1 / 24, abs=2e-3)
    with open_video(path) as video:
        assert video.straight
        list(video.frames())
        assert not video.straight


def test_h264_in_a_program_stream(tmp_path: Path, write_video: Writer) -> None:
    """Some of its pictures have no time, and some that of another. Before: 96 of 100, without 21."""
    large = np.tile(counted(100), (1, 3, 3, 1))
    path = write_video(tmp_path / "a.mpg", large, **{"x264-params": "bframes=3:keyint=40:scenecut=0"})
    frames, seconds = read_frames(path)
    assert numbers(frames[:, :64, :96]) == list(range(100))
    assert np.diff(seconds) == pytest.approx(1 / 24, abs=2e-3)
    later, at = read_frames(path, start_seconds=seconds[50])
    assert (numbers(later[:, :64, :96]), at[0]) == (list(range(50, 100)), seconds[50])
    with open_video(path) as video:
        assert len(list(video.shown())) == 100
        assert video.misplaced == 0


def test_frames_at_the_time_of_another_are_counted(tmp_path: Path, write_video: Writer) -> None:
    """The old reader left them out, and nothing said so."""
    source = write_video(tmp_path / "source.mp4", counted(60), **{"x264-params": "bframes=0"})

    def stutters(number: int, packet: Any) -> None:
        packet.pts = packet.dts = (number - (number % 20 == 10)) * packet.duration

    path = remux(source, tmp_path / "a.mkv", stutters)
    with open_video(path) as video:
        found = list(video.frames())
        assert (len(found), video.misplaced) == (57, 3)


SOUND: dict[str, dict[str, Any]] = {
    "b.mp4": {"x264-params": "bframes=7:b-pyramid=normal"},
    "open.ts": {"x264-params": "bframes=3:open-gop=1:keyint=20"},
    "refreshed bit by bit.ts": {"x264-params": "intra-refresh=1:keyint=20"},
    "slices.mkv": {"x264-params": "slices=4:keyint=20"},
    "hevc.mp4": {"codec": "libx265", "x265-params": "bframes=3:log-level=error:info=0"},
    "mpeg2.mpg": {"codec": "mpeg2video", "bf": "2", "g": "12"},
    "mpeg4.avi": {"codec": "mpeg4", "bf": "2", "g": "12"},
    "vp8.webm": {"codec": "libvpx", "cpu-used": "4", "auto-alt-ref": "1", "lag-in-frames": "16", "arnr-maxframes": "5"},
    "vp9.webm": {"codec": "libvpx-vp9", "cpu-used": "8", "auto-alt-ref": "1", "lag-in-frames": "16"},
    "mjpeg.avi": {"codec": "mjpeg", "pixel_format": "yuvj420p"},
    "wmv2.asf": {"codec": "wmv2"},
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_films_are_not_condemned(tmp_path: Path, write_video: Writer, name: str) -> None:
    path = write_video(tmp_path / name, counted(72), **SOUND[name])
    with open_video(path) as video:
        shown = list(video.shown())
        assert (video.misplaced, any(one.damaged or one.joint for one in shown)) == (0, False)
        found = [one.frame.to_ndarray(format="rgb24") for one in shown]
    assert numbers(found) == list(range(72))
    assert probe(path).num_frames == 72


def rotten(path: Path, target: Path, packets: range, seed: int, count: int = 3) -> Path:
    """Some bytes of these packets of an mp4, changed; their headers are left alone."""
    with av.open(str(path)) as read:
        places = [(packet.pos, packet.size) for packet in read.demux(video=0) if packet.size]
    data, rng = bytearray(path.read_bytes()), np.random.default_rng(seed)
    for number in rng.choice(np.asarray(packets), count):
        at, size = places[number]
        data[at + int(rng.integers(size // 4, size))] ^= int(rng.integers(1, 256))
    target.write_bytes(data)
    return target


def looked_at(path: Path) -> list[tuple[Shown, np.ndarray]]:
    with open_video(path) as video:
        return [(one, one.frame.to_ndarray(format="gray")) for one in video.shown()]


DAMAGED: dict[str, dict[str, Any]] = {
    "h264": {"x264-params": "bframes=3:keyint=24:min-keyint=24:scenecut=0"},
    "cavlc": {"x264-params": "cabac=0:bframes=0:keyint=24:min-keyint=24:scenecut=0"},
    "mpeg2": {"codec": "mpeg2video", "bf": "2", "g": "12"},
    "mpeg4": {"codec": "mpeg4", "g": "24"},
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_made_from_damaged_data_is_known(tmp_path: Path, write_video: Writer, name: str) -> None:
    """Damage in the second 24 pictures. The old reader gave all that it spoils as sound."""
    path = write_video(tmp_path / "a.mp4", counted(72), **DAMAGED[name])
    right = {one.frame.pts: picture for one, picture in looked_at(path)}
    wrong = missed = 0
    for seed in range(12):
        found = looked_at(rotten(path, tmp_path / "rotten.mp4", range(26, 46), seed))
        spoilt = {
            one.frame.pts for one, picture in found
            if (np.abs(picture.astype(int) - right[one.frame.pts]) > 24).mean() > 0.002
        }  # fmt: skip
        damaged = {one.frame.pts for one, _ in found if one.damaged}
        assert not any(one.damaged for one, _ in [*found[:22], *found[50:]])
        wrong += len(spoilt)
        missed += len(spoilt - damaged)
    assert wrong > 60
    # 19 of 132 (27 of 129 where x264 has AVX2 alone), 0 of 189, 2 of 76, 5 of 177:
    # some changed bytes read as other pictures, and no decoder can know.
    assert missed <= 0.25 * wrong, (missed, wrong)


def test_a_recording_that_begins_between_key_frames(tmp_path: Path, write_video: Writer) -> None:
    """MPEG-4's decoder shows pictures made from grey; the old reader gave all 62 as if they were sound."""
    path = write_video(tmp_path / "a.mp4", counted(72), codec="mpeg4", g="24", container="mp4")
    late = remux(path, tmp_path / "late.mp4", lambda number, packet: number >= 10)
    damaged = [one.damaged for one, _ in looked_at(late)]
    assert damaged == 14 * [True] + 48 * [False]
