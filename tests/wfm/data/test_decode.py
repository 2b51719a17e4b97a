"""Frames come out true to their timestamps, upright, of any codec; what is broken says so and how."""

import itertools
import pickle
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from wfm.data.decode import VideoError, iter_frames, open_video, read_frames, to_array
from wfm.data.probe import probe

Writer = Callable[..., Path]
OPENED_AT_ALL = ("dangling", "loop", "fifo", "device", "two")  # never reach the decoder, or are fine for it


def test_probe_tells_what_a_plain_file_holds(tmp_path: Path, write_video: Writer) -> None:
    found = probe(write_video(tmp_path / "a.mp4"))
    assert (found.width, found.height, found.num_frames, found.codec) == (96, 72, 48, "h264")
    assert found.fps == pytest.approx(24.0)
    assert found.duration_seconds == pytest.approx(2.0)
    assert (found.rotation_degrees, found.variable_frame_rate, found.has_audio) == (0, False, False)


@pytest.mark.parametrize(
    ("name", "options", "codec", "pixel_format"),
    [
        ("ten.mp4", {"pixel_format": "yuv420p10le"}, "h264", "yuv420p10le"),
        ("hevc.mp4", {"codec": "libx265", "x265-params": "log-level=none"}, "hevc", "yuv420p"),
        ("vp9.webm", {"codec": "libvpx-vp9", "cpu-used": "8", "deadline": "realtime"}, "vp9", "yuv420p"),
        ("mpeg4.avi", {"codec": "mpeg4"}, "mpeg4", "yuv420p"),
        ("ffv1.mkv", {"codec": "ffv1", "pixel_format": "yuv444p"}, "ffv1", "yuv444p"),
        ("stream.ts", {}, "h264", "yuv420p"),
        ("fragmented.mp4", {"flags": "frag_keyframe+empty_moov"}, "h264", "yuv420p"),
    ],
)
def test_many_codecs_and_containers(
    tmp_path: Path, write_video: Writer, name: str, options: dict[str, Any], codec: str, pixel_format: str
) -> None:
    path = write_video(tmp_path / name, **options)
    found = probe(path)
    assert (found.codec, found.pixel_format, found.num_frames, found.variable_frame_rate) == (
        codec,
        pixel_format,
        48,
        False,
    )
    frames, seconds = read_frames(path)
    assert frames.shape == (48, 72, 96, 3)
    np.testing.assert_allclose(seconds, np.arange(48) / 24, atol=1.1e-3)  # matroska rounds to milliseconds
    part, times = read_frames(path, start_seconds=1.0, end_seconds=1.5)
    np.testing.assert_array_equal(part, frames[24:36])
    np.testing.assert_array_equal(times, seconds[24:36])


def test_odd_sizes(tmp_path: Path, write_video: Writer) -> None:
    odd = np.zeros((12, 71, 95, 3), np.uint8)
    path = write_video(tmp_path / "odd.mkv", odd, codec="ffv1", pixel_format="yuv444p")
    assert (probe(path).height, probe(path).width) == (71, 95)
    assert read_frames(path)[0].shape == (12, 71, 95, 3)


def test_variable_frame_rate_keeps_every_time(tmp_path: Path, write_video: Writer) -> None:
    gaps = np.tile([1, 1, 5, 2], 12)
    times = [0, *np.cumsum(gaps)[:-1].tolist()]
    path = write_video(tmp_path / "vfr.mp4", times=times, time_base=Fraction(1, 48))
    found = probe(path)
    assert found.variable_frame_rate
    assert found.num_frames == 48
    assert found.fps == pytest.approx(47 / (times[-1] / 48))
    np.testing.assert_allclose(read_frames(path)[1], np.array(times) / 48)
    np.testing.assert_allclose(
        read_frames(path, start_seconds=1.0, end_seconds=1.5)[1], [t / 48 for t in times if 48 <= t < 72]
    )


CORNERS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}


def four_corners(count: int = 6, height: int = 48, width: int = 96) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    half, middle = height // 2, width // 2
    image[:half, :middle], image[:half, middle:] = CORNERS["red"], CORNERS["green"]
    image[half:, :middle], image[half:, middle:] = CORNERS["blue"], CORNERS["white"]
    return np.repeat(image[None], count, axis=0)


def corner_names(image: np.ndarray) -> list[str]:
    """Colours of the corners, clockwise from the top left."""
    height, width = image.shape[:2]
    points = [(4, 4), (4, width - 5), (height - 5, width - 5), (height - 5, 4)]
    named = np.array(list(CORNERS.values()), dtype=int)
    return [list(CORNERS)[int(np.abs(named - image[y, x].astype(int)).sum(1).argmin())] for y, x in points]


ONE = 65536


@pytest.mark.parametrize(
    ("orientation", "expected", "degrees"),
    [
        ({}, ["red", "green", "white", "blue"], 0),
        # a display matrix counts its angle against the clock: 90 turns the picture to the left
        ({"rotation": 90}, ["green", "white", "blue", "red"], 270),
        ({"rotation": -90}, ["blue", "red", "green", "white"], 90),
        ({"rotation": 180}, ["white", "blue", "red", "green"], 180),
        ({"matrix": (-ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30)}, ["green", "red", "blue", "white"], 0),
    ],
)
def test_the_picture_comes_out_upright(
    tmp_path: Path, write_video: Writer, orientation: dict[str, Any], expected: list[str], degrees: int
) -> None:
    path = write_video(tmp_path / "turned.mp4", four_corners(), **orientation)
    frames, _ = read_frames(path)
    assert corner_names(frames[0]) == expected
    found = probe(path)
    assert (found.height, found.width) == frames.shape[1:3]
    assert found.rotation_degrees == degrees
    resized, _ = read_frames(path, size=(40, 60))
    assert resized.shape[1:3] == (40, 60)
    assert corner_names(resized[0]) == expected


def test_frames_come_one_at_a_time(tmp_path: Path, write_video: Writer) -> None:
    reader = iter_frames(write_video(tmp_path / "a.mp4"), size=(18, 24))
    image, seconds = next(reader)
    assert (image.shape, image.dtype, seconds) == ((18, 24, 3), np.uint8, 0.0)
    assert next(reader)[1] == pytest.approx(1 / 24)
    reader.close()


def test_an_empty_range_is_no_frames(tmp_path: Path, write_video: Writer) -> None:
    frames, seconds = read_frames(write_video(tmp_path / "a.mp4"), start_seconds=5.0, size=(8, 9))
    assert frames.shape == (0, 8, 9, 3)
    assert seconds.shape == (0,)


def test_a_file_can_be_read_again_from_anywhere(tmp_path: Path, write_video: Writer) -> None:
    with open_video(write_video(tmp_path / "stream.ts")) as video:
        first = [frame.pts for frame in video.frames()]
        assert len(first) == 48
        assert [frame.pts for frame in video.frames()] == first
        assert [frame.pts for frame in video.frames(first[30])] == first[30:]


def test_names_are_never_taken_for_protocols(tmp_path: Path, write_video: Writer) -> None:
    for name in ("concat:x.mp4", "a b\n'\"é漢.mp4", "-i.mp4", "%03d.mp4"):
        path = write_video(tmp_path / "plain.mp4").rename(tmp_path / name)
        assert probe(path).num_frames == 48


def test_every_bad_file_says_what_is_wrong(bad_files: dict[str, Path], bad_codes: dict[str, str]) -> None:
    for name, path in bad_files.items():
        if name.startswith(OPENED_AT_ALL):
            continue
        with pytest.raises(VideoError) as raised:
            probe(path)
        assert raised.value.code == bad_codes[name], name
        assert path.name in str(raised.value)
        assert str(path.parent) not in str(raised.value)


def test_truncation_says_how_far_it_read(bad_files: dict[str, Path]) -> None:
    with pytest.raises(VideoError, match=r"truncated: .*\b\d+ of 120 frames read"):
        probe(bad_files["cut index first.mp4"])
    with pytest.raises(VideoError, match=r"truncated: read \d\.\d+ s of 5\.00 s announced"):
        probe(bad_files["cut.mkv"])
    with pytest.raises(VideoError, match=r"truncated: an mp4 of \d+ bytes without its index"):
        probe(bad_files["cut index at the end.mp4"])


def test_damaged_frames_are_an_error_not_a_crash(tmp_path: Path, write_video: Writer) -> None:
    path = write_video(tmp_path / "a.mp4", codec="mpeg4", container="mp4")
    data = bytearray(path.read_bytes())
    start = data.find(b"mdat") + 4
    data[start : start + 2000] = b"\xff" * 2000
    path.write_bytes(data)
    with pytest.raises(VideoError) as raised:
        read_frames(path)
    assert raised.value.code == "decode_error"


def test_a_huge_frame_is_refused_before_it_is_decoded(tmp_path: Path, write_video: Writer) -> None:
    with pytest.raises(VideoError, match="too_large: frames of 6912 pixels, at most 1000"):
        probe(write_video(tmp_path / "a.mp4"), maximum_pixels=1000)


def test_an_error_crosses_process_borders() -> None:
    error = pickle.loads(pickle.dumps(VideoError("/x/y.mp4", "truncated", "read 1 s")))
    assert (error.code, error.words, error.reason) == ("truncated", "read 1 s", "truncated: read 1 s")


FORMATS = (
    "yuv420p",
    "yuv422p",
    "yuv444p",
    "yuv410p",
    "yuv420p10le",
    "nv12",
    "yuvj420p",
    "gray",
    "rgb24",
    "rgb48le",
    "gbrp",
)


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize(("height", "width"), [(64, 64), (97, 131), (240, 426)])
def test_one_thread_gives_the_picture_that_many_give(pixel_format: str, height: int, width: int) -> None:
    noise = np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)
    frame = av.VideoFrame.from_ndarray(noise, "rgb24").reformat(format=pixel_format)
    for size, channels in itertools.product(
        [None, (32, 32), (height // 2, width // 2), (2 * height - 1, 256)], ["rgb24", "gray", "bgr24"]
    ):
        form = {} if size is None else {"height": size[0], "width": size[1], "interpolation": "AREA"}
        found = to_array(frame, size=size, channels=channels)
        for threads in (0, 2, 5):
            picture = frame.reformat(format=channels, threads=threads, **form).to_ndarray()
            np.testing.assert_array_equal(found, picture)


def test_where_threads_do_change_a_picture_it_is_seen() -> None:
    """The twin of the test above: planes of a quarter's height are cut otherwise by each number of threads."""
    noise = np.random.default_rng(3).integers(0, 256, (240, 426, 3), dtype=np.uint8)
    frame = av.VideoFrame.from_ndarray(noise, "rgb24").reformat(format="yuv410p")
    one, five = (frame.reformat(format="yuv420p", threads=threads).to_ndarray() for threads in (1, 5))
    assert (one != five).any()
