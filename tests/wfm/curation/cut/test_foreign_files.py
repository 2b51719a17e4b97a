"""Files that break other systems go through cutting and looking: each gives right clips, or an error with its reason code."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wfm.curation.cut.cutter import CutConfig, Cutter
from wfm.curation.one_pass import Wanted, fitted, one_pass
from wfm.curation.one_pass_consumers import Gather
from wfm.data.decode import VideoError, open_video
from wfm.data.probe import probe

Writer = Callable[..., Path]

_HDR = "colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:log-level=none"
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("mp4", {}),
    "variable frame rate": (
        "mp4",
        {"times": np.cumsum(np.resize([1, 5, 2], 48)).tolist(), "time_base": Fraction(1, 90)},
    ),
    "rotated": ("mp4", {"rotation": 90}),
    "10 bit": ("mp4", {"codec": "libx265", "pixel_format": "yuv420p10le", "x265-params": "log-level=none"}),
    "hdr": ("mp4", {"codec": "libx265", "pixel_format": "yuv420p10le", "x265-params": _HDR}),
    "av1": ("mp4", {"codec": "libsvtav1", "preset": "12", "svtav1-params": "lp=1"}),
    "vp9": ("webm", {"codec": "libvpx-vp9", "cpu-used": "8", "deadline": "realtime"}),
    "full range, 4:4:4": ("mkv", {"codec": "mjpeg", "pixel_format": "yuvj444p"}),
    "oblong pixels": ("mp4", {"aspect": "4/3"}),
    "transport stream": ("ts", {}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("copy", [True, False])
def test_every_frame_of_a_foreign_file_arrives(tmp_path: Path, write_video: Writer, kind: str, copy: bool) -> None:
    ending, options = KINDS[kind]
    path = write_video(tmp_path / f"a.{ending}", **options)
    whole = probe(path)
    with open_video(path) as video:
        pts = [int(frame.pts) for frame in video.frames()]
        end = video.end_pts(pts[-1], None)
        config = CutConfig(audio="keep") if copy else CutConfig(copy_codecs=(), audio="keep")
        written = Cutter(video, config).cut(pts[0], end, len(pts), tmp_path / "clip.mp4")
    clip = probe(tmp_path / "clip.mp4")
    assert (written.num_frames, clip.num_frames, len(pts)) == (48, 48, 48)
    assert clip.rotation_degrees == 0
    assert clip.variable_frame_rate == whole.variable_frame_rate
    assert (clip.width > clip.height) == (kind != "rotated")
    small = Gather(Wanted("gray", fitted(64)))
    assert one_pass(tmp_path / "clip.mp4", [small]).frames == 48
    expected = (np.array(pts) - pts[0]) * float(whole.time_base)
    np.testing.assert_allclose(small.seconds(), expected, atol=2e-3)


def test_a_file_that_ends_early_is_an_error_with_its_reason(
    tmp_path: Path, write_video: Writer, make_scenes: Callable[..., np.ndarray]
) -> None:
    whole = write_video(tmp_path / "a.mp4", make_scenes([120]), flags="faststart")
    with open_video(whole) as video:
        pts = [int(frame.pts) for frame in video.frames()]
        end = video.end_pts(pts[-1], None)
    data = whole.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 2 // 3])
    with open_video(tmp_path / "cut.mp4") as video, pytest.raises(VideoError) as caught:
        Cutter(video, CutConfig(copy_codecs=())).cut(pts[0], end, len(pts), tmp_path / "clip.mp4")
    assert caught.value.code in ("decode_error", "truncated")
