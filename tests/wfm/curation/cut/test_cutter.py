"""A clip holds just its frames: copied without loss where that can be, else encoded to the same bytes every time."""

import hashlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wfm.curation.cut.cutter import CutConfig, Cutter, Packets, Written
from wfm.data.decode import open_video, read_frames
from wfm.data.probe import probe

Writer = Callable[..., Path]
Cut = Callable[..., Written]
Psnr = Callable[[np.ndarray, np.ndarray], float]
Scenes = Callable[..., np.ndarray]


@pytest.mark.parametrize("b_frames", ["0", "3"])
def test_a_span_between_key_frames_is_copied_without_loss(
    tmp_path: Path, write_video: Writer, make_scenes: Scenes, b_frames: str, cut_frames: Cut
) -> None:
    options = {"x264-params": f"keyint=24:min-keyint=24:scenecut=0:bframes={b_frames}"}
    path = write_video(tmp_path / "a.mp4", make_scenes([96]), **options)
    written = cut_frames(path, 24, 72, tmp_path / "clip.mp4")
    assert written == Written("copy", 48, 96, 72)
    frames, seconds = read_frames(tmp_path / "clip.mp4")
    np.testing.assert_array_equal(frames, read_frames(path)[0][24:72])
    np.testing.assert_allclose(seconds, np.arange(48) / 24)
    assert probe(tmp_path / "clip.mp4").num_frames == 48


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_the_whole_video_to_its_last_frame_is_copied(
    tmp_path: Path, write_video: Writer, container: str, cut_frames: Cut
) -> None:
    path = write_video(tmp_path / f"a.{container}")
    assert cut_frames(path, 0, 48, tmp_path / "clip.mp4").transcode == "copy"
    np.testing.assert_array_equal(read_frames(tmp_path / "clip.mp4")[0], read_frames(path)[0])


@pytest.mark.parametrize(("first", "last"), [(5, 40), (24, 48), (60, 61)])
def test_other_spans_are_encoded_frame_by_frame(
    tmp_path: Path, write_video: Writer, make_scenes: Scenes, first: int, last: int, cut_frames: Cut, psnr: Psnr
) -> None:
    options = {"x264-params": "keyint=60:min-keyint=60:scenecut=0:bframes=3"}
    path = write_video(tmp_path / "a.mp4", make_scenes([100]), **options)
    written = cut_frames(path, first, last, tmp_path / "clip.mp4")
    # (60, 61) is a key frame of its own
    assert (written.transcode, written.num_frames) == ("copy" if first == 60 else "encode", last - first)
    frames, seconds = read_frames(tmp_path / "clip.mp4")
    assert psnr(frames, read_frames(path)[0][first:last]) > 35
    np.testing.assert_allclose(seconds, np.arange(last - first) / 24)


def test_encoding_gives_the_same_bytes_every_time(tmp_path: Path, write_video: Writer, cut_frames: Cut) -> None:
    path = write_video(tmp_path / "a.mp4")
    for name in ("one.mp4", "two.mp4"):
        assert cut_frames(path, 3, 40, tmp_path / name).transcode == "encode"
    digests = {hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("one.mp4", "two.mp4")}
    assert len(digests) == 1


def test_copying_can_be_switched_off_and_quality_chosen(
    tmp_path: Path, write_video: Writer, cut_frames: Cut, psnr: Psnr
) -> None:
    path = write_video(tmp_path / "a.mp4")
    assert cut_frames(path, 0, 48, tmp_path / "low.mp4", copy_codecs=(), crf=45).transcode == "encode"
    assert cut_frames(path, 0, 48, tmp_path / "high.mp4", copy_codecs=(), crf=5).transcode == "encode"
    source = read_frames(path)[0]
    assert psnr(read_frames(tmp_path / "high.mp4")[0], source) > psnr(read_frames(tmp_path / "low.mp4")[0], source) + 5


def test_key_frames_stand_as_often_as_asked(tmp_path: Path, write_video: Writer, cut_frames: Cut) -> None:
    path = write_video(tmp_path / "a.mp4")
    cut_frames(path, 0, 48, tmp_path / "clip.mp4", copy_codecs=(), keyframe_seconds=0.5)
    with open_video(tmp_path / "clip.mp4") as video:
        keys = [index for index, frame in enumerate(video.frames()) if frame.key_frame]
    assert {0, 12, 24, 36} <= set(keys)  # the encoder may add some at sudden changes
    cut_frames(path, 0, 48, tmp_path / "rare.mp4", copy_codecs=(), keyframe_seconds=9)
    with open_video(tmp_path / "rare.mp4") as video:
        assert not [index for index, frame in enumerate(video.frames()) if frame.key_frame and 0 < index < 36]


def test_whether_copied_or_encoded_the_frames_are_the_right_ones(
    tmp_path: Path, write_video: Writer, make_scenes: Scenes, cut_frames: Cut, psnr: Psnr
) -> None:
    path = write_video(
        tmp_path / "a.mp4", make_scenes([60]), **{"x264-params": "keyint=60:scenecut=0:bframes=3:b-adapt=0"}
    )
    source = read_frames(path)[0]
    ways = set()
    for last in range(36, 48):
        ways.add(cut_frames(path, 0, last, tmp_path / "clip.mp4").transcode)
        frames, _ = read_frames(tmp_path / "clip.mp4")
        assert len(frames) == last
        assert psnr(frames, source[:last]) > 35
    assert ways == {"copy", "encode"}


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"rotation": 90}, (96, 72)),
        ({"matrix": (-65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)}, (72, 96)),
        ({"pixel_format": "yuv420p10le", "codec": "libx265", "x265-params": "log-level=none"}, (72, 96)),
        ({"codec": "mpeg4"}, (72, 96)),
    ],
)
def test_turned_or_foreign_video_is_encoded_upright(
    tmp_path: Path,
    write_video: Writer,
    make_scenes: Scenes,
    options: dict[str, Any],
    size: tuple[int, int],
    cut_frames: Cut,
    psnr: Psnr,
) -> None:
    path = write_video(tmp_path / "a.mp4", make_scenes([30]), **options)
    written = cut_frames(path, 0, 30, tmp_path / "clip.mp4", copy_codecs=("h264",))
    assert (written.transcode, (written.height, written.width)) == ("encode", size)
    found = probe(tmp_path / "clip.mp4")
    assert (found.codec, found.pixel_format, found.rotation_degrees) == ("h264", "yuv420p", 0)
    assert psnr(read_frames(tmp_path / "clip.mp4")[0], read_frames(path)[0]) > 30


def test_odd_sizes_lose_one_row_and_column(tmp_path: Path, write_video: Writer, cut_frames: Cut, psnr: Psnr) -> None:
    rng = np.random.default_rng(0)
    picture = np.kron(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))[:71, :95]
    path = write_video(tmp_path / "odd.mkv", np.repeat(picture[None], 12, 0), codec="ffv1", pixel_format="yuv444p")
    written = cut_frames(path, 0, 12, tmp_path / "clip.mp4")
    assert (written.height, written.width) == (70, 94)
    assert psnr(read_frames(tmp_path / "clip.mp4")[0], read_frames(path)[0][:, :70, :94]) > 25


@pytest.mark.parametrize("copy", [True, False])
def test_uneven_times_are_kept_and_begin_at_zero(
    tmp_path: Path, write_video: Writer, copy: bool, cut_frames: Cut
) -> None:
    times = [0, *np.cumsum(np.tile([1, 4, 1, 2], 12))[:-1].tolist()]
    options = {"x264-params": "keyint=12:min-keyint=12:scenecut=0:bframes=2"}
    path = write_video(tmp_path / "a.mp4", times=times, time_base=Fraction(1, 48), **options)
    first, last = (12, 36) if copy else (13, 38)  # the last frame is not as long as the others are on average
    assert cut_frames(path, first, last, tmp_path / "clip.mp4").transcode == ("copy" if copy else "encode")
    _, seconds = read_frames(tmp_path / "clip.mp4")
    np.testing.assert_allclose(seconds, (np.array(times[first:last]) - times[first]) / 48, atol=1e-6)
    length = (times[last] - times[first]) / 48
    assert probe(tmp_path / "clip.mp4").duration_seconds == pytest.approx(length, abs=1e-3)


def test_neighbouring_spans_are_cut_in_one_pass(
    tmp_path: Path, write_video: Writer, make_scenes: Scenes, cut_frames: Cut, psnr: Psnr
) -> None:
    path = write_video(tmp_path / "a.ts", make_scenes([90]))
    source = read_frames(path)[0]
    with open_video(path) as video:
        pts = [int(frame.pts) for frame in video.frames()]
        cutter = Cutter(video, CutConfig())
        for index, (first, last) in enumerate([(0, 30), (30, 50), (60, 80), (10, 20)]):
            cutter.cut(pts[first], pts[last], last - first, tmp_path / f"{index}.mp4")
            assert psnr(read_frames(tmp_path / f"{index}.mp4")[0], source[first:last]) > 35


def test_what_cannot_be_cut_by_copying() -> None:
    #            I  P  B  B  I  B  P
    packets = Packets(np.array([0, 3, 1, 2, 4, 6, 5]), np.array([1, 0, 0, 0, 1, 0, 0], dtype=bool))
    assert shown(packets.copyable(0, 4)) == [0, 3, 1, 2]
    assert shown(packets.copyable(4, 7)) == [4, 6, 5]
    assert packets.copyable(1, 4) is None, "does not begin at a key frame"
    assert packets.copyable(0, 3) is None, "a picture shown later is needed"
    assert packets.copyable(4, 6) is None, "a picture shown later is needed"
    assert packets.copyable(9, 12) is None, "nothing there"
    open_group = Packets(np.array([0, 2, 1, 5, 3, 4, 6]), np.array([1, 0, 0, 1, 0, 0, 0], dtype=bool))
    assert shown(open_group.copyable(5, 7)) == [
        5,
        3,
        4,
        6,
    ]  # 3 and 4 are shown before the key frame: passed over when cut
    assert shown(open_group.copyable(0, 3)) == [0, 2, 1]


def shown(packets: Packets | None) -> list[int]:
    assert packets is not None
    return packets.pts.tolist()
