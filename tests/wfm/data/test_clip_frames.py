"""Frames of a range are those of the whole clip, and what the range does not need is not decoded."""

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from wfm.data.decode import read_frames
from wfm.data.frame_order import FrameOrder
from wfm.data.shards import Sample
from wfm.data.windows import decode_sample
from wfm.errors import DataError

COUNT, SIZE = 40, (24, 32)
UNEVEN = [0, 40, 70, 130, 135, *range(200, 200 + 35 * 33, 33)]
CODECS = {
    "b frames": {"g": "8", "bf": "3", "preset": "fast"},
    "open groups": {"g": "8", "bf": "3", "x264-params": "open-gop=1:keyint=8:min-keyint=8:scenecut=0"},
    "hevc": {"codec": "libx265", "x265-params": "keyint=8:min-keyint=8:open-gop=1:log-level=none"},
    "mpeg4": {"codec": "mpeg4", "g": "8"},
    "one key frame": {"g": "250"},
    "uneven times": {"g": "8", "times": UNEVEN, "time_base": Fraction(1, 1000)},
    "turned": {"g": "8", "rotation": 90},
}
KEYS_EVERY_8 = tuple(name for name in CODECS if name != "one key frame")


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """Grows with each frame that comes out of a decoder."""
    came: list[int] = []
    own = FrameOrder.came

    def counted(self, frame):
        came.append(1)
        return own(self, frame)

    monkeypatch.setattr(FrameOrder, "came", counted)
    return came


@pytest.fixture
def sample_of(tmp_path: Path, write_video, make_scenes) -> Callable[..., Sample]:
    def made(kind: str, stated: int | None = COUNT) -> Sample:
        path = write_video(tmp_path / "clip.mp4", make_scenes([15, 25]), **CODECS[kind])
        row = {} if stated is None else {"num_frames": stated}
        return Sample("clip", {"mp4": path.read_bytes(), "json": json.dumps(row).encode()})

    return made


def whole(sample: Sample, tmp_path: Path) -> np.ndarray:
    """The twin: the clip as it was read before, all of it."""
    path = tmp_path / "twin.mp4"
    path.write_bytes(sample.members["mp4"])
    return read_frames(path, size=SIZE)[0]


@pytest.mark.parametrize("stated", [COUNT, None, COUNT - 1], ids=["stated", "not stated", "stated wrongly"])
@pytest.mark.parametrize("kind", CODECS)
def test_a_range_has_the_pixels_that_the_whole_has_there(sample_of, tmp_path, kind, stated) -> None:
    sample = sample_of(kind, stated)
    twin = whole(sample, tmp_path)
    assert len(twin) == COUNT
    assert len(np.unique(twin.reshape(COUNT, -1), axis=0)) > COUNT // 2, "frames differ: a wrong one shows"
    for start, stop in [
        (0, None),
        (0, 9),
        (5, 11),
        (8, 16),
        (17, 19),
        (23, None),
        (39, 40),
        (30, 99),
        (40, None),
        (7, 7),
    ]:
        assert np.array_equal(decode_sample(sample, SIZE, start, stop).frames, twin[start:stop]), (start, stop)


@pytest.mark.parametrize("kind", CODECS)
def test_nothing_is_decoded_behind_a_range_and_before_it_only_from_its_key_frame_on(sample_of, decoded, kind) -> None:
    sample = sample_of(kind)
    decode_sample(sample, SIZE)
    assert len(decoded) == COUNT
    decoded.clear()
    decode_sample(sample, SIZE, 0, 9)
    assert 9 <= len(decoded) <= 9 + 5, "and those that come out of the decoder before the order of showing is sure"
    decoded.clear()
    decode_sample(sample, SIZE, 33, 36)
    least, most = (3, 3 + 8 + 5) if kind in KEYS_EVERY_8 else (36, COUNT)
    assert least <= len(decoded) <= most


def test_times_of_decoding_and_a_picture_that_refreshes_by_and_by_give_the_frames_of_the_whole(tmp_path) -> None:
    """Before, the first frame that had the time sought was believed. Of a film with times of decoding alone (copied out of
    AVI), whose groups are open, it was one three places later; without whole key frames, a picture made from nothing."""
    noise = np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    frames = [np.ascontiguousarray(np.roll(noise, (3 * at, 2 * at), (0, 1))[:64, :64]) for at in range(60)]
    kinds = {
        "times of decoding": ({"x264-params": "open-gop=1:bframes=3:b-adapt=0:scenecut=0:keyint=12"}, 3),
        "gradual": ({"intra-refresh": "1"}, 0),
    }
    for kind, (options, most_b) in kinds.items():
        path = tmp_path / f"{kind}.mp4"
        with av.open(str(path), "w") as out:
            stream = out.add_stream("libx264", rate=25, options={"preset": "veryfast", **options})
            stream.width = stream.height = 64
            stream.pix_fmt = "yuv420p"
            context = stream.codec_context
            context.gop_size, context.thread_count, context.max_b_frames = 12, 1, most_b
            packets = []
            for at, pixels in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
                frame.pts, frame.time_base = at, Fraction(1, 25)
                packets += stream.encode(frame)
            for packet in [*packets, *stream.encode(None)]:
                if kind == "times of decoding":
                    packet.pts = packet.dts
                out.mux(packet)
        members = {"mp4": path.read_bytes(), "json": b'{"num_frames": 0}'}
        all_of_it = decode_sample(Sample("clip", members), (64, 64)).frames
        sample = Sample("clip", {**members, "json": json.dumps({"num_frames": len(all_of_it)}).encode()})
        for start in range(1, len(all_of_it), 2):
            found = decode_sample(sample, (64, 64), start, start + 5).frames
            assert np.array_equal(found, all_of_it[start : start + 5]), (kind, start)


def test_without_a_count_in_its_row_a_clip_is_decoded_from_its_start(sample_of, decoded) -> None:
    decode_sample(sample_of("b frames", None), SIZE, 33, 36)
    assert len(decoded) >= 36


def test_a_sample_without_its_members_is_told() -> None:
    with pytest.raises(DataError, match="sample clip: no member 'mp4'; it has json"):
        decode_sample(Sample("clip", {"json": b"{}"}), SIZE, 0, 1)
    with pytest.raises(DataError, match="sample clip: no member 'json'; it has mp4"):
        decode_sample(Sample("clip", {"mp4": b""}), SIZE)
