"""Files whose clock is odd but whose pictures are sound: every frame arrives, at its time, and probing agrees with decoding."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.wfm.numbered import Writer, counted, numbers
from wfm.curation.cut.cutter import CutConfig, Cutter
from wfm.data.decode import VideoError, open_video, read_frames
from wfm.data.probe import probe

KINDS: dict[str, dict[str, Any]] = {
    "late.mkv": {"times": list(range(100, 172))},
    "early.mp4": {"times": list(range(-12, 60))},
    "late.ts": {"times": list(range(100, 172))},
    "bare.h264": {"container": "h264"},
    # Its last two pictures lie in one packet of the stream, which has one time for both, and not the right one.
    "last frame without a time.mpg": {"codec": "mpeg2video", "bf": "2", "g": "12"},
}


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


def test_pieces_joined_end_to_end_are_kept_and_their_joint_is_known(tmp_path: Path, write_video: Writer) -> None:
    """The second piece has the times of the first; the old reader refused the file: clock_falls_back."""
    piece = write_video(tmp_path / "a.mpg", counted(48), codec="mpeg2video").read_bytes()
    (tmp_path / "joined.mpg").write_bytes(2 * piece)
    found = probe(tmp_path / "joined.mpg")
    assert (found.num_frames, found.notes) == (96, ("the clock falls back once, as in files joined end to end",))
    with open_video(tmp_path / "joined.mpg") as video:
        shown = list(video.shown())
        times = [video.seconds(one.frame.pts) for one in shown]
    assert [index for index, one in enumerate(shown) if one.joint] == [48]
    assert times == pytest.approx(np.arange(96) / 24, abs=2e-3)
    frames, _ = read_frames(tmp_path / "joined.mpg", start_seconds=times[60])  # seeking would end in either piece
    assert numbers(frames) == list(range(12, 48))


def test_a_piece_that_cannot_be_read_is_told(tmp_path: Path, write_video: Writer) -> None:
    """The codec library stops at the header of the second one; before, its frames were missing and nothing said so."""
    piece = write_video(tmp_path / "a.flv", counted(48)).read_bytes()
    assert probe(tmp_path / "a.flv").notes == ()
    (tmp_path / "joined.flv").write_bytes(2 * piece)
    found = probe(tmp_path / "joined.flv")
    assert (found.num_frames, found.notes) == (48, ("the last 50% of the file cannot be read",))
