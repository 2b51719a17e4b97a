"""Files whose clock is odd but whose pictures are sound: every frame arrives, at its time, and probing agrees with decoding."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wfm.curation.cut import CutConfig, Cutter
from wfm.data.decode import VideoError, open_video, read_frames
from wfm.data.probe import probe

Writer = Callable[..., Path]
KINDS: dict[str, dict[str, Any]] = {
    "late.mkv": {"times": list(range(100, 172))},
    "early.mp4": {"times": list(range(-12, 60))},
    "late.ts": {"times": list(range(100, 172))},
    "bare.h264": {"container": "h264"},
    # Its last two pictures lie in one packet of the stream, which has one time for both, and not the right one.
    "last frame without a time.mpg": {"codec": "mpeg2video", "bf": "2", "g": "12"},
}


def counted(count: int) -> np.ndarray:
    """uint8 [T, 64, 96, 3]: one picture, with the frame's number as 8 light and dark fields along its top."""
    cells = np.random.default_rng(0).integers(30, 220, (8, 12, 3), dtype=np.uint8)
    frames = np.repeat(np.kron(cells, np.ones((8, 8, 1), np.uint8))[None], count, 0)
    bits = (np.arange(count)[:, None] >> np.arange(8)) & 1
    frames[:, :16] = (255 * np.repeat(bits, 12, axis=1)).astype(np.uint8)[:, None, :, None]
    return frames


def numbers(frames: np.ndarray) -> list[int]:
    fields = frames[:, 2:14].mean(axis=(1, 3)).reshape(len(frames), 8, 12)[:, :, 3:9].mean(axis=2)
    return [int(number) for number in ((fields > 127) << np.arange(8)).sum(axis=1)]


@pytest.mark.parametrize("name", KINDS)
def test_every_frame_arrives_and_probing_agrees(tmp_path: Path, write_video: Writer, name: str) -> None:
    path = write_video(tmp_path / name, counted(72), **KINDS[name])
    found = probe(path)
    frames, seconds = read_frames(path)
    hidden = 12 if name.startswith("early") else 0  # what lies before zero, by an edit list
    assert numbers(frames) == list(range(hidden, 72))
    assert found.num_frames == len(frames)
    assert not found.variable_frame_rate
    assert seconds == pytest.approx(np.arange(len(frames)) / found.fps, abs=2e-3)
    assert found.duration_seconds == pytest.approx(len(frames) / found.fps, abs=2e-3)


@pytest.mark.parametrize("name", KINDS)
def test_spans_are_cut_to_the_frame(tmp_path: Path, write_video: Writer, name: str) -> None:
    path = write_video(tmp_path / name, counted(72), **KINDS[name])
    source = numbers(read_frames(path)[0])
    with open_video(path) as video:
        pts = [int(frame.pts) for frame in video.frames()]
        cutter = Cutter(video, CutConfig())
        for first, last in ((5, 20), (20, len(pts))):
            end = pts[last] if last < len(pts) else video.end_pts(pts[-1], None)
            cutter.cut(pts[first], end, last - first, tmp_path / "clip.mp4")
            assert numbers(read_frames(tmp_path / "clip.mp4")[0]) == source[first:last]


def test_a_late_matroska_that_is_cut_short_is_still_told(tmp_path: Path, write_video: Writer) -> None:
    data = write_video(tmp_path / "late.mkv", times=list(range(100, 148))).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    with pytest.raises(VideoError, match="truncated"):
        probe(tmp_path / "cut.mkv")


def test_pieces_joined_end_to_end_are_told(tmp_path: Path, write_video: Writer) -> None:
    """The second half has the times of the first: its frames would be dropped without a word."""
    piece = write_video(tmp_path / "a.mpg", counted(48), codec="mpeg2video").read_bytes()
    (tmp_path / "joined.mpg").write_bytes(2 * piece)
    with pytest.raises(VideoError, match=r"clock_falls_back: after 48 frames the times fall back by 1\.96 s"):
        probe(tmp_path / "joined.mpg")
