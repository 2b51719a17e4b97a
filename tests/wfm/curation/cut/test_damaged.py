"""Damaged pictures reach no clip: what is lost is counted, and the rest of the film is kept."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.wfm.curation.cut.test_gaps import curated
from tests.wfm.numbered import Writer, counted, numbers, remux
from wfm.curation.cut.split import SplitVideo
from wfm.data.decode import VideoError, open_video, read_frames

EVEN = {"x264-params": "bframes=2:keyint=48:min-keyint=48:scenecut=0"}


def with_holes(path: Path, packets: list[int]) -> Path:
    """The middle of these packets of an mp4, overwritten."""
    with av.open(str(path)) as read:
        places = [(packet.pos, packet.size) for packet in read.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for number in packets:
        at, size = places[number]
        data[at + size // 3 : at + size * 2 // 3] = b"\x5a" * (size * 2 // 3 - size // 3)
    path.write_bytes(data)
    return path


def inside(step: SplitVideo) -> list[tuple[float, float, str]]:
    return [(skip.start_seconds or 0.0, skip.end_seconds or 0.0, skip.reason) for skip in step.skips]


@pytest.mark.parametrize("copied", [True, False])
def test_the_damaged_part_is_left_out(tmp_path: Path, write_video: Writer, copied: bool) -> None:
    """The old code kept all 192 frames in one clip, the spoilt ones too."""
    path = with_holes(write_video(tmp_path / "a.mp4", counted(192), **EVEN), [53])
    config: dict[str, Any] = {"shots": {"detector": "whole"}, "cut": {} if copied else {"copy_codecs": []}}
    row, clips, step = curated(path, tmp_path, **config)
    kept = [numbers(read_frames(tmp_path / clip.path)[0]) for clip in clips]
    assert [(frames[0], frames[-1]) for frames in kept] == [(0, kept[0][-1]), (96, 191)]
    assert 48 <= kept[0][-1] <= 56
    assert clips[1].transcode == ("copy" if copied else "encode")
    *_, (start, end, reason) = inside(step)
    assert (start, end) == (pytest.approx(clips[0].end_seconds), pytest.approx(4.0))
    assert reason.endswith("frames that were decoded from damaged data, or refer to such")
    lost = 96 - len(kept[0])
    assert sum(int(reason.split()[1]) for _, _, reason in inside(step)) == lost
    assert row.num_frames == 192
    assert row.notes == f"{lost} damaged frames left out; 1 gap in time"


def test_a_little_damage_does_not_end_a_clip(tmp_path: Path, write_video: Writer) -> None:
    path = with_holes(write_video(tmp_path / "a.mp4", counted(144), **EVEN), [89])
    _, (clip,), step = curated(path, tmp_path, shots={"detector": "whole"})
    frames, seconds = read_frames(tmp_path / clip.path)
    found = numbers(frames)
    assert set(range(144)) - set(found) <= set(range(84, 96))
    assert 1 <= 144 - len(found) <= 12
    assert seconds == pytest.approx(np.asarray(found) / 24, abs=2e-3)  # every picture stays at its time
    assert clip.num_frames == len(found)
    assert sum(int(reason.split()[1]) for _, _, reason in inside(step)) == 144 - len(found)


def test_the_same_damage_is_found_when_a_shot_is_decoded_again(tmp_path: Path, write_video: Writer) -> None:
    path = with_holes(write_video(tmp_path / "a.mp4", counted(144), **EVEN), [60, 89])
    made = []
    for held in (0, 1 << 28):
        out = tmp_path / str(held)
        _, clips, _ = curated(path, out, shots={"detector": "whole"}, cut={"copy_codecs": []}, held_bytes=held)
        made.append([(clip.clip_sha256, clip.num_frames) for clip in clips])
    assert made[0] == made[1]


def test_a_recording_from_the_middle_counts_what_it_shows(tmp_path: Path, write_video: Writer) -> None:
    """The old table said 134 frames, for 96 that the decoder gives."""
    source = write_video(tmp_path / "s.ts", counted(144), **EVEN)
    path = remux(source, tmp_path / "a.ts", lambda number, _: number >= 10)
    row, clips, _ = curated(path, tmp_path)
    assert numbers(read_frames(tmp_path / clips[0].path)[0]) == list(range(48, 144))
    assert (row.num_frames, row.fps) == (96, pytest.approx(24, rel=1e-3))
    assert row.notes == "38 of 134 packets show no frame"


def test_a_film_without_a_sound_frame_says_so(tmp_path: Path, write_video: Writer) -> None:
    path = write_video(
        tmp_path / "s.mp4", counted(60), codec="mpeg4", g="600", sc_threshold="1000000000", container="mp4"
    )
    late = remux(path, tmp_path / "a.mp4", lambda number, _: number >= 5)
    from wfm.curation.cut.shot_detection import ShotConfig
    from wfm.curation.cut.shots import look

    with open_video(late) as video, pytest.raises(VideoError, match="decode_error: all of 55 frames are damaged"):
        look(video, ShotConfig(detector="whole"))


@pytest.mark.parametrize("name", ["a.mp4", "a.ts"])
def test_zeros_in_hevc_are_found(tmp_path: Path, write_video: Writer, name: str) -> None:
    """Its decoder says nothing of them. The old code kept all 96 frames, 24 of them without their number."""
    params = "log-level=none:info=0:keyint=24:min-keyint=24:scenecut=0:bframes=2:open-gop=0"
    path = write_video(tmp_path / "whole.mp4", counted(96), codec="libx265", **{"x265-params": params})
    if name.endswith("ts"):
        path = remux(path, tmp_path / "whole.ts", lambda number, packet: None)
    with open_video(path) as video:
        assert not any(video.is_damaged(packet) for packet in video.packets())
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as read:
        places = [(packet.pos, packet.size) for packet in read.demux(video=0) if packet.size]
    at, size = places[48]
    first, last = (at + size // 3, at + size * 2 // 3) if name == "a.mp4" else (at + 188 + 40, at + 188 + 160)
    data[first:last] = bytes(last - first)
    (tmp_path / name).write_bytes(data)
    row, clips, _ = curated(tmp_path / name, tmp_path, shots={"detector": "whole", "minimum_seconds": 0.5})
    kept = [number for clip in clips for number in numbers(read_frames(tmp_path / clip.path)[0])]
    assert kept == [*range(48), *range(72, 96)]
    assert "24 damaged frames left out" in row.notes
